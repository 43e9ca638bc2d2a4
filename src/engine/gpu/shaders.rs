//! The WGSL kernels of `shaders/`: one a file, named like its entry point and its Rust twin.

/// A line `// #import shared/NAME.wgsl` in a kernel's head asks for one of these.
const SHARED: [(&str, &str); 7] = [
    ("shared/network.wgsl", include_str!("../../../shaders/shared/network.wgsl")),
    ("shared/product.wgsl", include_str!("../../../shaders/shared/product.wgsl")),
    ("shared/elementwise.wgsl", include_str!("../../../shaders/shared/elementwise.wgsl")),
    ("shared/window.wgsl", include_str!("../../../shaders/shared/window.wgsl")),
    ("shared/features.wgsl", include_str!("../../../shaders/shared/features.wgsl")),
    ("shared/resize.wgsl", include_str!("../../../shaders/shared/resize.wgsl")),
    ("shared/detections.wgsl", include_str!("../../../shaders/shared/detections.wgsl")),
];

macro_rules! kernels {
    ($($(#[$documentation:meta])* $kernel:ident = $name:literal,)*) => {
        /// A compute kernel.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub(crate) enum Kernel {
            $($(#[$documentation])* $kernel,)*
        }

        impl Kernel {
            /// Every kernel.
            #[cfg(test)]
            pub(crate) const ALL: &[Self] = &[$(Self::$kernel),*];

            /// Name of the file and of the entry point.
            pub(crate) fn name(self) -> &'static str {
                match self {
                    $(Self::$kernel => $name,)*
                }
            }

            /// The file as it was written.
            fn file(self) -> &'static str {
                match self {
                    $(Self::$kernel => include_str!(concat!("../../../shaders/", $name, ".wgsl")),)*
                }
            }
        }
    };
}

kernels! {
    /// Picture of any size to the network's input.
    Letterbox = "letterbox",
    /// The same from a texture.
    LetterboxTexture = "letterbox_texture",
    /// Dense convolution with a window.
    Convolution = "convolution",
    /// 1x1 convolution.
    Pointwise = "pointwise",
    /// Depthwise and 1x1 convolution in one.
    Separable = "separable",
    /// Depthwise convolution.
    Depthwise = "depthwise",
    /// Maximum over windows.
    MaxPool = "max_pool",
    /// Key side of linear attention.
    AttentionState = "attention_state",
    /// Query side of linear attention.
    AttentionQuery = "attention_query",
    /// Softmax attention.
    Softmax = "softmax",
    /// `u * silu(g)`.
    Gate = "gate",
    /// `a + b`.
    Add = "add",
    /// Nearest neighbour.
    Upsample = "upsample",
    /// Logits to candidates above the threshold.
    Decode = "decode",
    /// Non-maximum suppression.
    Suppress = "suppress",
}

impl Kernel {
    /// The file with all it imports, each once.
    pub(crate) fn source(self) -> String {
        let mut source = String::new();
        for line in self.file().lines() {
            let Some(wanted) = line.strip_prefix("// #import ") else { continue };
            if let Some((_, text)) = SHARED.iter().find(|(name, _)| *name == wanted.trim()) {
                source += text;
            } else {
                debug_assert!(false, "{}.wgsl imports {wanted}, which does not exist", self.name());
            }
        }
        source + self.file()
    }
}
