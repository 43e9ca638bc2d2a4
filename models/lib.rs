//! The models that come with yolo-lat: configurations and weights as bytes, for programs that carry them.

/// A model as its two files.
#[derive(Clone, Copy, Debug)]
pub struct Builtin {
    /// The name people type.
    pub short: &'static str,
    /// The name of its files.
    pub name: &'static str,
    /// Contents of `NAME.toml`.
    pub config: &'static str,
    /// Contents of `NAME.safetensors`.
    pub weights: &'static [u8],
}

/// All of them, the smallest first; none without the feature `embed`.
pub const BUILTIN: &[Builtin] = &[
    #[cfg(feature = "embed")]
    Builtin {
        short: "n",
        name: "yolo-lat-n",
        config: include_str!("yolo-lat-n.toml"),
        weights: include_bytes!("yolo-lat-n.safetensors"),
    },
    #[cfg(feature = "embed")]
    Builtin {
        short: "s",
        name: "yolo-lat-s",
        config: include_str!("yolo-lat-s.toml"),
        weights: include_bytes!("yolo-lat-s.safetensors"),
    },
];

/// A language model as its three files.
#[derive(Clone, Copy, Debug)]
pub struct BuiltinLanguageModel {
    /// The name of its files.
    pub name: &'static str,
    /// Contents of `NAME.toml`.
    pub config: &'static str,
    /// Contents of `NAME.safetensors`.
    pub weights: &'static [u8],
    /// Contents of `NAME.tokenizer.json`.
    pub tokenizer: &'static str,
}

/// The language model that comes with yolo-lat.
#[cfg(feature = "embed-lm")]
pub const LANGUAGE_MODEL: BuiltinLanguageModel = BuiltinLanguageModel {
    name: "yolo-lat-lm",
    config: include_str!("yolo-lat-lm.toml"),
    weights: include_bytes!("yolo-lat-lm.safetensors"),
    tokenizer: include_str!("yolo-lat-lm.tokenizer.json"),
};
