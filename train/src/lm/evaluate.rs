//! How well a model predicts whole chapters.

use std::f64::consts::LN_2;

use serde::{Deserialize, Serialize};
use tch::{Kind, Reduction, Tensor};

use super::model::LanguageModel;
use super::text::Chapter;

/// Stretches that are predicted together.
const TOGETHER: usize = 16;

/// A chapter's loss.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Measured {
    /// Sum over its tokens and its end, in nats.
    pub(crate) nats: f64,
    /// Tokens predicted.
    pub(crate) tokens: usize,
    /// Bytes of its text.
    pub(crate) bytes: usize,
}

/// Loss of each chapter. Every token is predicted once, from those before it in its stretch of `length` tokens; a stretch begins where
/// the last one ends.
///
/// # Errors
/// libtorch's.
pub(crate) fn measure(model: &LanguageModel, chapters: &[Chapter], length: usize) -> anyhow::Result<Vec<Measured>> {
    let new = |chapter: &Chapter| Measured { nats: 0.0, tokens: chapter.tokens.len() - 1, bytes: chapter.text.len() };
    let mut measured: Vec<Measured> = chapters.iter().map(new).collect();
    let mut stretches = Vec::new();
    for (index, chapter) in chapters.iter().enumerate() {
        let starts = (0..chapter.tokens.len() - 1).step_by(length);
        stretches
            .extend(starts.map(|start| (index, &chapter.tokens[start..chapter.tokens.len().min(start + length + 1)])));
    }
    for group in stretches.chunks(TOGETHER) {
        let nats = tch::no_grad(|| losses(model, group, length))?;
        for ((chapter, tokens), nats) in group.iter().zip(nats.chunks_exact(length)) {
            measured[*chapter].nats += nats[..tokens.len() - 1].iter().sum::<f64>();
        }
    }
    Ok(measured)
}

/// Of each stretch, the loss at each of `length` places; those after its end mean nothing.
fn losses(model: &LanguageModel, stretches: &[(usize, &[u32])], length: usize) -> anyhow::Result<Vec<f64>> {
    let of = |shift: usize| {
        let mut tokens = vec![0i64; stretches.len() * length];
        for (row, (_, stretch)) in tokens.chunks_exact_mut(length).zip(stretches) {
            row.iter_mut().zip(&stretch[shift..]).for_each(|(to, &from)| *to = i64::from(from));
        }
        Tensor::from_slice(&tokens).view([stretches.len() as i64, length as i64])
    };
    let logits = model.forward(&of(0)).logits.flatten(0, 1);
    let nats = logits.cross_entropy_loss::<Tensor>(&of(1).flatten(0, 1), None, Reduction::None, -100, 0.0);
    Ok(Vec::try_from(nats.to_kind(Kind::Double))?)
}

/// How far logits move where another token stands in the middle of a stretch of `length` tokens of `text`: the most before it, which
/// tells of a leak, and the most behind it, where nothing but 0 tells that tokens are not mixed.
pub(crate) fn moved(model: &LanguageModel, text: &[u32], length: usize) -> [f64; 2] {
    let (mut tokens, place) = (text[..length].iter().map(|&token| i64::from(token)).collect::<Vec<_>>(), length / 2);
    let logits =
        |tokens: &[i64]| tch::no_grad(|| model.forward(&Tensor::from_slice(tokens).unsqueeze(0)).logits.get(0));
    let before = logits(&tokens);
    tokens[place] = (tokens[place] + 1) % model.config.vocabulary as i64;
    let moved = (logits(&tokens) - before).abs().amax(-1, false);
    let most = |from: usize, to: usize| {
        if from < to { moved.narrow(0, from as i64, (to - from) as i64).max().double_value(&[]) } else { 0.0 }
    };
    [most(0, place), most(place + 1, length)]
}

/// Mean over all tokens, in nats.
pub(crate) fn nats_per_token(measured: &[Measured]) -> f64 {
    measured.iter().map(|chapter| chapter.nats).sum::<f64>()
        / measured.iter().map(|chapter| chapter.tokens).sum::<usize>() as f64
}

/// Bits per byte of the text, which do not depend on the vocabulary.
pub(crate) fn bits_per_byte(measured: &[Measured]) -> f64 {
    let bytes = measured.iter().map(|chapter| chapter.bytes).sum::<usize>();
    measured.iter().map(|chapter| chapter.nats).sum::<f64>() / LN_2 / bytes as f64
}
