//! Byte-level byte-pair encoding (BPE) with the crate `tokenizers`: any text is some tokens, and they give it back byte for byte.

use std::path::{Path, PathBuf};

use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, Tokenizer as Bpe};

/// The token that stands between texts, number 0.
pub const END_OF_TEXT: u32 = 0;
const END_OF_TEXT_WORD: &str = "<|endoftext|>";

/// What can go wrong with tokens.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// A file that is no tokeniser.
    #[error("{}: no tokeniser: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What its reader says.
        reason: String,
    },
    /// Learning, encoding or decoding failed.
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
}

/// Text to tokens and back.
#[derive(Clone, Debug)]
pub struct Tokenizer(Bpe);

fn other(error: impl std::fmt::Display) -> TokenizerError {
    TokenizerError::Other(error.to_string())
}

impl Tokenizer {
    /// Learns a vocabulary of `vocabulary` tokens (at least 257: all bytes and the end of a text) from `texts`.
    ///
    /// # Errors
    /// [`TokenizerError::Vocabulary`] if the texts are too short to have so many.
    pub fn learn(texts: &[&str], vocabulary: usize) -> Result<Self, TokenizerError> {
        let mut bpe = Bpe::new(BPE::default());
        bpe.with_pre_tokenizer(Some(ByteLevel::new(false, true, true)));
        bpe.with_decoder(Some(ByteLevel::default()));
        let trainer = BpeTrainer::builder()
            .vocab_size(vocabulary)
            .show_progress(false)
            .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
            .special_tokens(vec![AddedToken::from(END_OF_TEXT_WORD, true)]);
        let mut trainer: TrainerWrapper = trainer.build().into();
        bpe.train(&mut trainer, texts.iter()).map_err(other)?;
        let learnt = Self(bpe);
        learnt.check(vocabulary)?;
        Ok(learnt)
    }

    /// Reads a `tokenizer.json`.
    ///
    /// # Errors
    /// [`TokenizerError::File`].
    pub fn load(path: &Path) -> Result<Self, TokenizerError> {
        let fail = |reason: String| TokenizerError::File { path: path.to_owned(), reason };
        let bytes = std::fs::read(path).map_err(|error| fail(error.to_string()))?;
        Self::from_bytes(&bytes).map_err(|error| fail(error.to_string()))
    }

    /// As [`Tokenizer::load`], from the file's bytes.
    ///
    /// # Errors
    /// [`TokenizerError::Other`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, TokenizerError> {
        Bpe::from_bytes(bytes).map(Self).map_err(other)
    }

    /// The `tokenizer.json` of it.
    ///
    /// # Errors
    /// [`TokenizerError::Other`].
    pub fn to_json(&self) -> Result<String, TokenizerError> {
        self.0.to_string(false).map_err(other)
    }

    /// Tokens known.
    pub fn vocabulary(&self) -> usize {
        self.0.get_vocab_size(true)
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
    ///
    /// # Errors
    /// [`TokenizerError::Other`].
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        Ok(self.0.encode(text, false).map_err(other)?.get_ids().to_vec())
    }

    /// Text of tokens; bytes that are no UTF-8, of a character cut in two, become U+FFFD.
    ///
    /// # Errors
    /// [`TokenizerError::Other`].
    pub fn decode(&self, tokens: &[u32]) -> Result<String, TokenizerError> {
        self.0.decode(tokens, false).map_err(other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_text_comes_back() {
        let text = "It is a truth universally acknowledged, that a single man in possession of a good fortune, must be in want of a wife.\n";
        let tokenizer = Tokenizer::learn(&[text], 280).unwrap();
        let learnt_again = Tokenizer::learn(&[text], 280).unwrap();
        assert_eq!(tokenizer.to_json().unwrap(), learnt_again.to_json().unwrap());
        let read = Tokenizer::from_bytes(tokenizer.to_json().unwrap().as_bytes()).unwrap();
        for text in [text, "", "  two spaces\r\n\ttab", "Ünïcode \u{1F980} 漢字 \u{0}"] {
            let tokens = read.encode(text).unwrap();
            assert_eq!(tokens, tokenizer.encode(text).unwrap());
            assert_eq!(read.decode(&tokens).unwrap(), text);
        }
        assert!(read.encode(text).unwrap().len() < text.len());
        assert_eq!(read.encode("<|endoftext|>").unwrap(), [END_OF_TEXT]);
    }

    #[test]
    fn what_is_no_tokeniser_is_refused() {
        let error = Tokenizer::learn(&["ab"], 500).unwrap_err().to_string();
        assert_eq!(error, "tokeniser: knows 258 tokens, the model 500");
        assert!(Tokenizer::from_bytes(b"{}").is_err());
        let folder = std::path::Path::new("no/such/tokenizer.json");
        assert!(Tokenizer::load(folder).unwrap_err().to_string().starts_with("no/such/tokenizer.json: no tokeniser: "));
    }
}
