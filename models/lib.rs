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
