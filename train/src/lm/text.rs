//! Chapters of the texts, in three parts by their numbers, as tokens.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, anyhow, bail};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};
use tch::{Device, Tensor};
use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, Tokenizer as Learner};
use yolo_lat::sink::write_atomically;
use yolo_lat_lm::{END_OF_TEXT, END_OF_TEXT_WORD, Tokenizer};

use super::corpus::{Text, hash};

/// Where a run's texts come from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Source {
    /// A text of Debian's.
    Debian(Text),
    /// A file of one's own, with chapters headed as novels have them. Relative to the working folder.
    File { file: std::path::PathBuf },
}

/// A chapter, its heading with it.
#[derive(Debug)]
pub(crate) struct Chapter {
    pub(crate) text: String,
    /// Without and with an end of text before and after it.
    pub(crate) tokens: Vec<u32>,
}

/// Every tenth chapter is measured on, every tenth is kept for a last test and not read here, the others are learnt from.
pub(crate) struct Texts {
    /// The tokeniser's `tokenizer.json`.
    pub(crate) tokenizer: String,
    /// Tokens of all chapters to learn from, an end of text before each.
    pub(crate) train: Vec<u32>,
    pub(crate) validation: Vec<Chapter>,
}

/// Of ten chapters, the one to test on and the one to measure on.
const TEST: usize = 4;
const VALIDATION: usize = 9;

impl Texts {
    /// Reads the texts; the tokeniser is learnt from the chapters to learn from, and kept in `data`.
    ///
    /// # Errors
    /// A text is missing or another one, or too short.
    pub(crate) fn load(sources: &[Source], vocabulary: usize, data: &Path) -> anyhow::Result<Self> {
        let mut chapters = Vec::new();
        for source in sources {
            match source {
                Source::Debian(Text::Austen) => chapters.extend(chapters_of_novels(&Text::Austen.read(data)?)),
                Source::Debian(Text::KingJames) => chapters.extend(chapters_of_verses(&Text::KingJames.read(data)?)),
                Source::File { file } => {
                    let text = std::fs::read_to_string(file);
                    chapters.extend(chapters_of_novels(&text.with_context(|| file.display().to_string())?));
                }
            }
        }
        if chapters.len() <= VALIDATION {
            bail!("texts: {} chapters, at least {} are needed", chapters.len(), VALIDATION + 1);
        }
        let learnt: Vec<&str> = part(&chapters, |place| place != TEST && place != VALIDATION).collect();
        let tokenizer = tokenizer(&learnt, vocabulary, data)?;
        let bpe = Tokenizer::from_bytes(tokenizer.as_bytes())?;
        bpe.check(vocabulary)?;
        let tokens = |text: &str| [vec![END_OF_TEXT], bpe.encode(text), vec![END_OF_TEXT]].concat();
        let mut train = vec![END_OF_TEXT];
        for text in learnt {
            train.extend(&tokens(text)[1..]);
        }
        let validation = part(&chapters, |place| place == VALIDATION)
            .map(|text| Chapter { text: text.to_owned(), tokens: tokens(text) })
            .collect();
        Ok(Self { tokenizer, train, validation })
    }

    /// The tokens to learn from, if there is to be no more than `most` of them.
    pub(crate) fn first(&self, most: Option<usize>) -> &[u32] {
        &self.train[..most.map_or(self.train.len(), |most| most.min(self.train.len()))]
    }
}

/// Inputs and targets (batch, length) of a step: stretches of `text` that begin anywhere, the same for the same seed and step.
pub(crate) fn stretches(text: &[u32], seed: u64, step: usize, [batch, length]: [usize; 2]) -> (Tensor, Tensor) {
    let mut random = SmallRng::seed_from_u64(seed ^ (step as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    let mut tokens = Vec::with_capacity(batch * (length + 1));
    for _ in 0..batch {
        let start = random.random_range(0..text.len() - length);
        tokens.extend(text[start..=start + length].iter().map(|&token| i64::from(token)));
    }
    let tokens = Tensor::from_slice(&tokens).view([batch as i64, length as i64 + 1]).to_device(Device::Cpu);
    (tokens.narrow(1, 0, length as i64), tokens.narrow(1, 1, length as i64))
}

/// What remains unknown of a token of `text` if the one before is known, in nats: the mean over all pairs that lie beside each other of
/// the logarithm of how often the first is followed by the second, added up in the order of the tokens, so that it is the same in each
/// process. Nothing that sees the last token alone can say more of this text.
pub(crate) fn pair_entropy(text: &[u32]) -> f64 {
    let (mut firsts, mut pairs) = (BTreeMap::new(), BTreeMap::new());
    for pair in text.windows(2) {
        *firsts.entry(pair[0]).or_insert(0.0) += 1.0;
        *pairs.entry((pair[0], pair[1])).or_insert(0.0) += 1.0;
    }
    let nats = pairs.iter().map(|((first, _), count): (_, &f64)| count * (firsts[first] / count).ln());
    nats.sum::<f64>() / (text.len().max(2) - 1) as f64
}

fn part(chapters: &[String], wanted: impl Fn(usize) -> bool) -> impl Iterator<Item = &str> {
    chapters.iter().enumerate().filter(move |(index, _)| wanted(index % 10)).map(|(_, text)| text.as_str())
}

/// The `tokenizer.json` of these texts: from its file in `data`, or learnt.
fn tokenizer(texts: &[&str], vocabulary: usize, data: &Path) -> anyhow::Result<String> {
    let path = data.join(format!("tokenizer-{vocabulary}-{}.json", &hash(&texts.concat())[..12]));
    if path.exists() {
        return std::fs::read_to_string(&path).with_context(|| path.display().to_string());
    }
    let json = learn(texts, vocabulary)?;
    std::fs::create_dir_all(data).with_context(|| data.display().to_string())?;
    write_atomically(&path, |file| std::io::Write::write_all(file, json.as_bytes()))?;
    Ok(json)
}

/// Learns a vocabulary of `vocabulary` tokens (at least 257: all bytes and the end of a text; fewer if the texts are too short) as a
/// `tokenizer.json`.
///
/// # Errors
/// What the crate `tokenizers` says.
pub(super) fn learn(texts: &[&str], vocabulary: usize) -> anyhow::Result<String> {
    let mut learner = Learner::new(BPE::default());
    learner.with_pre_tokenizer(Some(ByteLevel::new(false, true, true)));
    learner.with_decoder(Some(ByteLevel::default()));
    let trainer = BpeTrainer::builder()
        .vocab_size(vocabulary)
        .show_progress(false)
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .special_tokens(vec![AddedToken::from(END_OF_TEXT_WORD, true)]);
    let mut trainer: TrainerWrapper = trainer.build().into();
    let json = learner.train(&mut trainer, texts.iter()).and_then(|learner| learner.to_string(false));
    json.map_err(|error| anyhow!("tokeniser: {error}"))
}

/// A chapter begins with a line of that word and its number, or with a new novel (form feed), whose title goes with its first chapter.
fn chapters_of_novels(text: &str) -> Vec<String> {
    let mut chapters = Vec::new();
    for novel in text.split('\u{c}') {
        let mut titled = false;
        chapters.push(String::new());
        for line in novel.split_inclusive('\n') {
            let number = line.strip_prefix("CHAPTER ").or_else(|| line.strip_prefix("Chapter "));
            let heads = number.is_some_and(|rest| {
                let rest = rest.trim_end();
                !rest.is_empty() && rest.chars().all(|letter| "IVXLC0123456789".contains(letter))
            });
            if heads && std::mem::replace(&mut titled, true) {
                chapters.push(String::new());
            }
            if let Some(chapter) = chapters.last_mut() {
                chapter.push_str(line);
            }
        }
    }
    chapters
}

/// Lines are `Ge1:1 In the beginning ...`; a chapter is what has the same place before the colon, without the places.
fn chapters_of_verses(text: &str) -> Vec<String> {
    let (mut chapters, mut place) = (Vec::new(), "");
    for line in text.lines() {
        let Some((here, verse)) =
            line.split_once(':').filter(|(here, _)| here.ends_with(|end: char| end.is_ascii_digit()))
        else {
            continue;
        };
        if here != place {
            chapters.push(String::new());
            place = here;
        }
        let verse = verse.split_once(' ').map_or(verse, |(_, verse)| verse);
        if let Some(chapter) = chapters.last_mut() {
            *chapter += verse;
            chapter.push('\n');
        }
    }
    chapters
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chapters_are_split_as_written() {
        let text = "EMMA\n\nVOLUME I\n\nCHAPTER I\n\nEmma\nChapter of accidents\n\nCHAPTER II\nMr. Weston\n\u{c}Persuasion\nChapter 1\n\nSir Walter\n";
        let expected = [
            "EMMA\n\nVOLUME I\n\nCHAPTER I\n\nEmma\nChapter of accidents\n\n",
            "CHAPTER II\nMr. Weston\n",
            "Persuasion\nChapter 1\n\nSir Walter\n",
        ];
        assert_eq!(chapters_of_novels(text), expected);
        let verses = "Ge1:1 In the beginning\nGe1:2 And: the earth\nGe2:1 Thus\n1Sa2:1 And Hannah\n";
        assert_eq!(chapters_of_verses(verses), ["In the beginning\nAnd: the earth\n", "Thus\n", "And Hannah\n"]);
    }

    #[test]
    fn the_parts_have_no_chapter_in_common_and_batches_follow_from_the_step() {
        let folder = tempfile::tempdir().unwrap();
        let chapter = |number: usize| format!("Chapter {number}\n\n{}\n", format!("word{number} ").repeat(30));
        let file = folder.path().join("novel.txt");
        std::fs::write(&file, (0..20).map(chapter).collect::<String>()).unwrap();
        let texts = Texts::load(&[Source::File { file }], 270, folder.path()).unwrap();
        let text = |chapters: &[Chapter]| chapters.iter().map(|chapter| chapter.text.clone()).collect::<Vec<_>>();
        assert_eq!(text(&texts.validation), [chapter(9), chapter(19)]);
        let learnt = Tokenizer::from_bytes(texts.tokenizer.as_bytes()).unwrap().decode(&texts.train).unwrap();
        let expected: String =
            (0..20).filter(|n| n % 10 != 4 && n % 10 != 9).map(|n| chapter(n) + "<|endoftext|>").collect();
        assert_eq!(learnt, format!("<|endoftext|>{expected}"));
        let batch = |seed, step| stretches(texts.first(None), seed, step, [4, 16]);
        let (input, target) = batch(7, 3);
        assert_eq!(input.size(), [4, 16]);
        assert_eq!(input.narrow(1, 1, 15), target.narrow(1, 0, 15));
        assert_eq!(batch(7, 3).0, input);
        assert_ne!(batch(7, 4).0, input);
        assert_ne!(batch(8, 3).0, input);
        assert_eq!((texts.first(Some(9)).len(), texts.first(Some(9_999_999)).len()), (9, texts.train.len()));
    }

    #[test]
    fn what_a_token_says_of_the_next_one() {
        // After 0 comes 1 or 2, as often; all others are followed by one token only: of six pairs two are a coin's toss.
        let text = [0, 1, 3, 0, 2, 3, 4];
        let expected = 2.0 * 2f64.ln() + 2.0 * 2f64.ln();
        assert!((pair_entropy(&text) - expected / 6.0).abs() < 1e-12);
    }
}
