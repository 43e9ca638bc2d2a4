//! What attention keeps of the tokens so far, whatever its kernel.

use super::causal::CausalState;
use super::kernel::Kernel;
use super::softmax::KeyValueCache;

/// One head's past, token by token: [`CausalState`], of constant size, or [`KeyValueCache`], which grows.
pub trait DecodeState {
    /// Takes one more token: `key` (D), `value` (Dv).
    ///
    /// # Panics
    /// If they have other lengths.
    fn push(&mut self, key: &[f32], value: &[f32]);

    /// Attention of `query` (D) to all tokens so far, into `result` (Dv); zeros before the first token.
    ///
    /// # Panics
    /// If one of them has another length.
    fn query_into(&mut self, query: &[f32], result: &mut [f32]);

    /// Bytes that are kept.
    fn bytes(&self) -> usize;
}

macro_rules! decode_state {
    ($name:ty $(, $kernel:ident)?) => {
        impl$(<$kernel: Kernel>)? DecodeState for $name {
            fn push(&mut self, key: &[f32], value: &[f32]) {
                Self::push(self, key, value);
            }

            fn query_into(&mut self, query: &[f32], result: &mut [f32]) {
                Self::query_into(self, query, result);
            }

            fn bytes(&self) -> usize {
                Self::bytes(self)
            }
        }
    };
}

decode_state!(CausalState<K>, K);
decode_state!(KeyValueCache);
