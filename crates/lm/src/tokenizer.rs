//! Byte-level byte-pair encoding (BPE, Sennrich et al. 2016; over bytes as in GPT-2): any text is some tokens, and they give it back
//! byte for byte. Reads the `tokenizer.json` of the crate `tokenizers`, with which the trainer learns vocabularies.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::path::{Path, PathBuf};

use serde_json::Value;
use unicode_properties::{GeneralCategoryGroup, UnicodeGeneralCategory};

/// The token that stands between texts, number 0.
pub const END_OF_TEXT: u32 = 0;
/// What it is written as.
pub const END_OF_TEXT_WORD: &str = "<|endoftext|>";

/// What can go wrong with tokens.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// A file that is no tokeniser.
    #[error("{}: no tokeniser: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Bytes that are no tokeniser, or of another kind.
    #[error("tokeniser: {0}")]
    Other(String),
    /// It knows other tokens than it should.
    #[error("tokeniser: knows {found} tokens, the model {expected}")]
    Vocabulary {
        /// Of the model.
        expected: usize,
        /// Of the tokeniser.
        found: usize,
    },
    /// A token that it does not know.
    #[error("tokeniser: knows {known} tokens, none is number {token}")]
    Token {
        /// The unknown one.
        token: u32,
        /// How many there are.
        known: usize,
    },
}

/// Text to tokens and back.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    /// Bytes of each token, by number.
    words: Vec<Vec<u8>>,
    /// The token of each single byte.
    bytes: [u32; 256],
    /// Pairs of tokens that become one: its rank (the lowest first) and number.
    merges: HashMap<(u32, u32), (u32, u32)>,
}

fn other(reason: impl std::fmt::Display) -> TokenizerError {
    TokenizerError::Other(reason.to_string())
}

impl Tokenizer {
    /// Reads a `tokenizer.json`.
    ///
    /// # Errors
    /// [`TokenizerError::File`].
    pub fn load(path: &Path) -> Result<Self, TokenizerError> {
        let fail = |reason: String| TokenizerError::File { path: path.to_owned(), reason };
        let bytes = std::fs::read(path).map_err(|error| fail(error.to_string()))?;
        Self::from_bytes(&bytes).map_err(|error| match error {
            TokenizerError::Other(reason) => fail(reason),
            error => fail(error.to_string()),
        })
    }

    /// As [`Tokenizer::load`], from the file's bytes.
    ///
    /// # Errors
    /// [`TokenizerError::Other`]: no JSON, or a tokeniser of another kind than byte-level BPE in which 0 is `<|endoftext|>`.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, TokenizerError> {
        let json: Value = serde_json::from_slice(bytes).map_err(other)?;
        let (model, before) = (&json["model"], &json["pre_tokenizer"]);
        let settings = [
            ("model.type", &model["type"], "BPE".into()),
            ("pre_tokenizer.type", &before["type"], "ByteLevel".into()),
            ("pre_tokenizer.use_regex", &before["use_regex"], true.into()),
            ("pre_tokenizer.add_prefix_space", &before["add_prefix_space"], false.into()),
            ("normalizer", &json["normalizer"], Value::Null),
        ];
        if let Some((name, found, expected)) = settings.iter().find(|(_, found, expected)| *found != expected) {
            return Err(other(format!("{name} = {found}: only {expected} is known here")));
        }
        let vocabulary = model["vocab"].as_object().ok_or_else(|| other("model.vocab is missing"))?;
        let bytes_of: HashMap<char, u8> = (0..=255).map(|byte| (character_of(byte), byte)).collect();
        let byte_of = |character| bytes_of.get(&character).copied();
        let mut words = vec![None; vocabulary.len()];
        for (word, number) in vocabulary {
            let place = number.as_u64().and_then(|number| words.get_mut(number as usize));
            let place = place.ok_or_else(|| other(format!("model.vocab: {word} is number {number}")))?;
            let end = word == END_OF_TEXT_WORD;
            let word = if end { Some(word.as_bytes().to_vec()) } else { word.chars().map(byte_of).collect() };
            *place = Some(word.ok_or_else(|| other(format!("model.vocab: number {number} is not made of bytes")))?);
        }
        let words: Option<Vec<Vec<u8>>> = words.into_iter().collect();
        let words = words.ok_or_else(|| other("model.vocab: two words have one number"))?;
        if words.first().map(Vec::as_slice) != Some(END_OF_TEXT_WORD.as_bytes()) {
            return Err(other(format!("number 0 is not {END_OF_TEXT_WORD}")));
        }
        let number = |word: &str| vocabulary.get(word).and_then(Value::as_u64).map(|number| number as u32);
        let mut bytes = [END_OF_TEXT; 256];
        for byte in 0..=255 {
            let character = character_of(byte);
            let missing = || other(format!("model.vocab: byte {byte} is missing"));
            bytes[usize::from(byte)] = number(character.encode_utf8(&mut [0; 4])).ok_or_else(missing)?;
        }
        let mut merges = HashMap::new();
        for (rank, pair) in model["merges"].as_array().into_iter().flatten().enumerate() {
            // A list of two since tokenizers 0.20; two words and a space before.
            let known = match pair {
                Value::String(pair) => pair.split_once(' '),
                pair => pair[0].as_str().zip(pair[1].as_str()),
            };
            let known = known.and_then(|(a, b)| Some((number(a)?, number(b)?, number(&[a, b].concat())?)));
            let (a, b, merged) = known.ok_or_else(|| other(format!("model.merges: {pair} is no pair of tokens")))?;
            merges.insert((a, b), (rank as u32, merged));
        }
        Ok(Self { words, bytes, merges })
    }

    /// Tokens known.
    pub fn vocabulary(&self) -> usize {
        self.words.len()
    }

    /// Whether it fits a model with that many tokens.
    ///
    /// # Errors
    /// [`TokenizerError::Vocabulary`].
    pub fn check(&self, expected: usize) -> Result<(), TokenizerError> {
        let found = self.vocabulary();
        if found == expected { Ok(()) } else { Err(TokenizerError::Vocabulary { expected, found }) }
    }

    /// Tokens of a text; `<|endoftext|>` in it is one token.
    pub fn encode(&self, text: &str) -> Vec<u32> {
        let mut tokens = Vec::new();
        for (index, part) in text.split(END_OF_TEXT_WORD).enumerate() {
            if index > 0 {
                tokens.push(END_OF_TEXT);
            }
            let mut rest = part;
            while !rest.is_empty() {
                let (word, after) = rest.split_at(word_length(rest));
                self.encode_word(word.as_bytes(), &mut tokens);
                rest = after;
            }
        }
        tokens
    }

    /// Merges the bytes of a word pair by pair, the lowest rank first and of equal ones the leftmost.
    fn encode_word(&self, word: &[u8], tokens: &mut Vec<u32>) {
        let mut parts: Vec<Part> = (word.iter().enumerate())
            .map(|(at, &byte)| Part {
                token: Some(self.bytes[usize::from(byte)]),
                before: at.wrapping_sub(1),
                after: at + 1,
            })
            .collect();
        let mut queue = BinaryHeap::new();
        let pair_at = |parts: &[Part], at: usize| {
            let a = parts.get(at)?;
            let pair = (a.token?, parts.get(a.after)?.token?);
            let &(rank, merged) = self.merges.get(&pair)?;
            Some(Reverse((rank, at, pair, merged)))
        };
        queue.extend((0..parts.len()).filter_map(|at| pair_at(&parts, at)));
        while let Some(Reverse((_, at, pair, merged))) = queue.pop() {
            let after = parts[at].after;
            // Either may have become part of another token since.
            if (parts[at].token, parts.get(after).and_then(|part| part.token)) != (Some(pair.0), Some(pair.1)) {
                continue;
            }
            let next = parts[after].after;
            parts[after].token = None;
            parts[at] = Part { token: Some(merged), after: next, ..parts[at] };
            if let Some(next) = parts.get_mut(next) {
                next.before = at;
            }
            queue.extend([pair_at(&parts, parts[at].before), pair_at(&parts, at)].into_iter().flatten());
        }
        tokens.extend(parts.iter().filter_map(|part| part.token));
    }

    /// Text of tokens; bytes that are no UTF-8, of a character cut in two, become U+FFFD.
    ///
    /// # Errors
    /// [`TokenizerError::Token`].
    pub fn decode(&self, tokens: &[u32]) -> Result<String, TokenizerError> {
        let mut bytes = Vec::new();
        for &token in tokens {
            let known = self.vocabulary();
            bytes.extend(self.words.get(token as usize).ok_or(TokenizerError::Token { token, known })?);
        }
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

/// A token of a word that is being merged, and its neighbours' places; none if it is part of the one before.
#[derive(Clone, Copy)]
struct Part {
    token: Option<u32>,
    before: usize,
    after: usize,
}

/// Length in bytes of the first word of a text that is not empty. Words are those of GPT-2's pattern
/// `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`: no token crosses from one into the next.
fn word_length(text: &str) -> usize {
    #[derive(PartialEq)]
    enum Kind {
        Space,
        Letter,
        Number,
        Sign,
    }
    let kind = |character: char| match character.general_category_group() {
        _ if character.is_whitespace() => Kind::Space,
        GeneralCategoryGroup::Letter => Kind::Letter,
        GeneralCategoryGroup::Number => Kind::Number,
        _ => Kind::Sign,
    };
    let endings = ["'s", "'t", "'re", "'ve", "'m", "'ll", "'d"];
    if let Some(ending) = endings.iter().find(|ending| text.starts_with(**ending)) {
        return ending.len();
    }
    let after_space = text.strip_prefix(' ').unwrap_or(text);
    let Some(first) = after_space.chars().next().map(kind).filter(|kind| *kind != Kind::Space) else {
        // White space: the last one is left to what follows, if there is more than one and something follows.
        let end = text.find(|character| kind(character) != Kind::Space);
        let last = text[..end.unwrap_or(text.len())].char_indices().next_back();
        return match (end, last) {
            (Some(_), Some((last, _))) if last > 0 => last,
            (Some(end), _) => end,
            (None, _) => text.len(),
        };
    };
    let end = after_space.find(|character| kind(character) != first).unwrap_or(after_space.len());
    text.len() - after_space.len() + end
}

/// The character that stands for a byte in `tokenizer.json`: itself if it can be seen, else one from U+0100 on.
fn character_of(byte: u8) -> char {
    let seen = |byte: u8| matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    let hidden_before = (0..byte).filter(|&byte| !seen(byte)).count() as u32;
    if seen(byte) { char::from(byte) } else { char::from_u32(0x100 + hidden_before).unwrap_or_default() }
}

#[cfg(test)]
mod tests {
    use tokenizers::Tokenizer as Oracle;

    use super::*;

    const TEXT: &str = "It is a truth universally acknowledged, that a single man in possession of a good fortune, must be in want of a wife.\n\nHe'll \
        say so, won't he? 1813, 1814   and  12½ Ⅷ aaaaaaaaaaaaaaaaaaaaaaa\r\n\t";

    const SHIPPED: &[u8] = include_bytes!("../../../models/yolo-lat-lm.tokenizer.json");

    #[test]
    fn tokens_are_those_of_the_crate_tokenizers() {
        let oracle = Oracle::from_bytes(SHIPPED).unwrap();
        let tokenizer = Tokenizer::from_bytes(SHIPPED).unwrap();
        assert_eq!(tokenizer.vocabulary(), 2048);
        let long = "a".repeat(10_001);
        let texts = [
            TEXT,
            "",
            " ",
            "  ",
            "   x",
            "\n \n x",
            "x  ",
            "'s'll 're'",
            "he 's",
            "Ünïcode \u{1F980} 漢字 \u{0}",
            &long,
        ];
        let strange = [
            "<|endoftext|>",
            "a<|endoftext|> b<|endoftext|><|endoftext|>\n",
            "<|endoftext",
            "कि\u{300}x \u{300}  \u{300}",
            "x\u{a0}\u{a0}y \u{a0}z\u{2028}\u{2028}",
            "１２ ²x Ⅷ½ ٣٤",
        ];
        for text in texts.into_iter().chain(strange) {
            let expected = oracle.encode(text, false).unwrap();
            assert_eq!(tokenizer.encode(text), expected.get_ids(), "{text:?}");
            assert_eq!(tokenizer.decode(expected.get_ids()).unwrap(), text);
        }
        // All characters, alone and between two others.
        for character in (0..=0x0002_FFFF).filter_map(char::from_u32).step_by(7) {
            let text = format!("a {character} a{character}1  {character}a");
            assert_eq!(tokenizer.encode(&text), oracle.encode(text.as_str(), false).unwrap().get_ids(), "{text:?}");
        }
        let (english, _) = TEXT.split_once('\n').unwrap();
        assert!(tokenizer.encode(english).len() < english.len() / 2);
        // Half of a character.
        let half = &tokenizer.encode("漢")[..1];
        assert_eq!(tokenizer.decode(half).unwrap(), oracle.decode(half, false).unwrap());
    }

    #[test]
    fn what_is_no_tokeniser_is_refused() {
        let json: Value = serde_json::from_slice(SHIPPED).unwrap();
        let reason = |change: &dyn Fn(&mut Value)| {
            let mut json = json.clone();
            change(&mut json);
            Tokenizer::from_bytes(json.to_string().as_bytes()).unwrap_err().to_string()
        };
        let expected = "tokeniser: model.type = \"WordPiece\": only \"BPE\" is known here";
        assert_eq!(reason(&|json| json["model"]["type"] = "WordPiece".into()), expected);
        let expected = "tokeniser: normalizer = {\"type\":\"NFC\"}: only null is known here";
        assert_eq!(reason(&|json| json["normalizer"] = serde_json::json!({"type": "NFC"})), expected);
        assert_eq!(
            reason(&|json| json["model"] = serde_json::json!({"type": "BPE"})),
            "tokeniser: model.vocab is missing"
        );
        let expected = "tokeniser: model.vocab: two words have one number";
        assert_eq!(reason(&|json| json["model"]["vocab"]["a"] = 5.into()), expected);
        assert_eq!(
            reason(&|json| json["model"]["vocab"]["a"] = 9000.into()),
            "tokeniser: model.vocab: a is number 9000"
        );
        let expected = "tokeniser: model.merges: [\"zz\",\"z\"] is no pair of tokens";
        assert_eq!(reason(&|json| json["model"]["merges"] = serde_json::json!([["zz", "z"]])), expected);
        let known = Tokenizer::from_bytes(json.to_string().as_bytes()).unwrap();
        assert_eq!(known.check(500).unwrap_err().to_string(), "tokeniser: knows 2048 tokens, the model 500");
        assert_eq!(
            known.decode(&[0, 2048]).unwrap_err().to_string(),
            "tokeniser: knows 2048 tokens, none is number 2048"
        );
        assert!(Tokenizer::from_bytes(b"{").is_err());
        let folder = Path::new("no/such/tokenizer.json");
        assert!(Tokenizer::load(folder).unwrap_err().to_string().starts_with("no/such/tokenizer.json: no tokeniser: "));
    }
}
