//! A small language model (ELA-GPT of arXiv 2605.18848, made causal), run by the attention of `yolo-lat-attention`: what is kept of a
//! text is one state of constant size a head, however long the text.

mod config;
mod decoder;
mod model;
mod text;
mod tokenizer;
mod weights;

pub use config::{
    Attention, Axis, Bias, ConfigError, ConvolutionTaps, Experts, Link, LmConfig, Mask, Memory, MemoryInput,
    RMS_EPSILON, ROPE_BASE,
};
pub use decoder::Decoder;
pub use model::{LmError, Model};
pub use text::{Generation, Sampling, Surprise, surprise};
pub use tokenizer::{END_OF_TEXT, END_OF_TEXT_WORD, Tokenizer, TokenizerError};
pub use weights::WeightsError;
