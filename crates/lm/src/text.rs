//! Text with a model: going on with a prompt, and measuring how well a text is predicted.

use std::f64::consts::LN_2;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::decoder::Decoder;
use crate::model::{LmError, Model};
use crate::tokenizer::END_OF_TEXT;

/// Tokens that may have to come until a character is whole: its bytes.
const LONGEST_CHARACTER: usize = 4;

/// How the next token is chosen.
#[derive(Clone, Copy, Debug)]
pub struct Sampling {
    /// Logits are divided by it; 0 takes the likeliest token.
    pub temperature: f32,
    /// The same seed gives the same text.
    pub seed: u64,
}

/// A text that a model goes on with, piece by piece; ends with the text or after so many tokens.
pub struct Generation<'a> {
    model: &'a Model,
    decoder: Decoder<'a>,
    sampling: Sampling,
    random: SmallRng,
    /// Of the next token.
    logits: Vec<f32>,
    left: usize,
    /// Tokens whose bytes are no whole characters yet.
    pending: Vec<u32>,
}

impl<'a> Generation<'a> {
    /// Reads `prompt`; at most `tokens` more will come.
    ///
    /// # Errors
    /// [`LmError`] if the model cannot be decoded.
    pub fn new(model: &'a Model, prompt: &str, tokens: usize, sampling: Sampling) -> Result<Self, LmError> {
        let mut decoder = Decoder::new(model)?;
        decoder.step(END_OF_TEXT)?;
        for token in model.tokenizer().encode(prompt) {
            decoder.step(token)?;
        }
        let logits = decoder.logits().to_vec();
        let random = SmallRng::seed_from_u64(sampling.seed);
        Ok(Self { model, decoder, sampling, random, logits, left: tokens, pending: Vec::new() })
    }

    /// Bytes that are kept of all tokens so far.
    pub fn bytes(&self) -> usize {
        self.decoder.bytes()
    }

    fn choose(&mut self) -> u32 {
        let temperature = self.sampling.temperature;
        let best = || self.logits.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1).then(b.0.cmp(&a.0)));
        let Some((likeliest, &peak)) = best() else { return END_OF_TEXT };
        if temperature <= 0.0 {
            return likeliest as u32;
        }
        let weights: Vec<f32> = self.logits.iter().map(|logit| ((logit - peak) / temperature).exp()).collect();
        let mut left = self.random.random::<f32>() * weights.iter().sum::<f32>();
        let chosen = weights.iter().position(|weight| {
            left -= weight;
            left < 0.0
        });
        chosen.unwrap_or(likeliest) as u32
    }

    /// The next characters, if the last tokens end with a whole one.
    fn next_piece(&mut self) -> Result<Option<String>, LmError> {
        while self.left > 0 {
            let token = self.choose();
            if token == END_OF_TEXT {
                break;
            }
            self.left -= 1;
            self.logits.copy_from_slice(self.decoder.step(token)?);
            self.pending.push(token);
            let piece = self.model.tokenizer().decode(&self.pending)?;
            if !piece.ends_with('\u{fffd}') || self.pending.len() >= LONGEST_CHARACTER {
                self.pending.clear();
                return Ok(Some(piece));
            }
        }
        self.left = 0;
        let rest = std::mem::take(&mut self.pending);
        Ok(if rest.is_empty() { None } else { Some(self.model.tokenizer().decode(&rest)?) })
    }
}

impl Iterator for Generation<'_> {
    type Item = Result<String, LmError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_piece().transpose()
    }
}

/// How well a text is predicted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Surprise {
    /// Sum over its tokens and its end, in nats.
    pub nats: f64,
    /// Tokens predicted.
    pub tokens: usize,
    /// Bytes of the text.
    pub bytes: usize,
}

impl Surprise {
    /// Mean over the tokens, in nats.
    pub fn nats_per_token(&self) -> f64 {
        self.nats / self.tokens as f64
    }

    /// Bits per byte of the text, which do not depend on the vocabulary.
    pub fn bits_per_byte(&self) -> f64 {
        self.nats / LN_2 / self.bytes as f64
    }
}

/// Predicts each token of `text` from those before. `length`: tokens after which the model forgets all and goes on anew, as in training;
/// `None` to never forget.
///
/// # Errors
/// [`LmError`] if the model cannot be decoded.
pub fn surprise(model: &Model, text: &str, length: Option<usize>) -> Result<Surprise, LmError> {
    let mut tokens = vec![END_OF_TEXT];
    tokens.extend(model.tokenizer().encode(text));
    tokens.push(END_OF_TEXT);
    let mut decoder = Decoder::new(model)?;
    let mut nats = 0.0;
    for pair in tokens.windows(2) {
        if length.is_some_and(|length| decoder.position() >= length) {
            decoder = Decoder::new(model)?;
        }
        let logits = decoder.step(pair[0])?;
        let peak = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let total: f64 = logits.iter().map(|logit| f64::from(logit - peak).exp()).sum();
        let target = logits.get(pair[1] as usize).copied().unwrap_or(f32::NEG_INFINITY);
        nats += total.ln() - f64::from(target - peak);
    }
    Ok(Surprise { nats, tokens: tokens.len() - 1, bytes: text.len() })
}
