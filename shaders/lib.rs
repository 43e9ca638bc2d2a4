//! The WGSL shaders: one a file, named like its entry point and its Rust twin. Text alone: no GPU and no wgpu.

/// Width and height of the output tiles that the unit shader is compiled for, the largest first.
pub const UNIT_TILES: [(usize, usize); 3] = [(8, 8), (4, 4), (4, 2)];
/// Positions of a workgroup that the block shader is compiled for, most first.
pub const BLOCK_TILES: [usize; 3] = [32, 16, 8];

/// A shared file: its name, the plain text, and what takes its place where the adapter has more.
struct Shared {
    name: &'static str,
    plain: &'static str,
    half: Option<&'static str>,
    subgroups: Option<&'static str>,
}

macro_rules! shared {
    ($name:literal $(, $features:ident = $file:literal)?) => {
        Shared {
            $($features: Some(include_str!(concat!("shared/", $file, ".wgsl"))),)?
            ..Shared {
                name: concat!("shared/", $name, ".wgsl"),
                plain: include_str!(concat!("shared/", $name, ".wgsl")),
                half: None,
                subgroups: None,
            }
        }
    };
}

/// A line `// #import shared/NAME.wgsl` in a shader's head asks for one of these.
const SHARED: [Shared; 13] = [
    shared!("network"),
    shared!("product"),
    shared!("elementwise"),
    shared!("residual"),
    shared!("doubled"),
    shared!("window"),
    shared!("features"),
    shared!("query"),
    shared!("resize"),
    shared!("detections"),
    shared!("scalar", half = "scalar_f16"),
    shared!("statistic", subgroups = "statistic_subgroup"),
    shared!("best", subgroups = "best_subgroup"),
];

/// What shaders may use beyond the core of WebGPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ShaderFeatures {
    /// 16-bit floats for what workgroups share; sums and feature maps stay in 32 bits.
    pub half: bool,
    /// Operations of neighbouring threads.
    pub subgroups: bool,
}

impl ShaderFeatures {
    /// Every combination, the plain one first.
    pub const ALL: [Self; 4] = [
        Self { half: false, subgroups: false },
        Self { half: true, subgroups: false },
        Self { half: false, subgroups: true },
        Self { half: true, subgroups: true },
    ];
}

macro_rules! shaders {
    ($($(#[$documentation:meta])* $shader:ident = $name:literal,)*) => {
        /// A compute shader.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Shader {
            $($(#[$documentation])* $shader,)*
        }

        impl Shader {
            /// Every shader.
            pub const ALL: &[Self] = &[$(Self::$shader),*];

            /// Name of the file and of the entry point.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$shader => $name,)*
                }
            }

            /// The file as it was written.
            fn file(self) -> &'static str {
                match self {
                    $(Self::$shader => include_str!(concat!("", $name, ".wgsl")),)*
                }
            }
        }
    };
}

shaders! {
    /// Image of any size to the network's input.
    Letterbox = "letterbox",
    /// The same from a texture.
    LetterboxTexture = "letterbox_texture",
    /// Dense convolution with a window.
    Convolution = "convolution",
    /// 1x1 convolution.
    Pointwise = "pointwise",
    /// Depthwise and 1x1 convolution in one.
    Separable = "separable",
    /// Pointwise, depthwise and pointwise convolution in one.
    Unit = "unit",
    /// Depthwise convolution.
    Depthwise = "depthwise",
    /// Maximum over windows.
    MaxPool = "max_pool",
    /// Key side of linear attention.
    AttentionState = "attention_state",
    /// Query side of linear attention.
    AttentionQuery = "attention_query",
    /// All of an attention block that comes after the sums over its keys.
    Block = "block",
    /// Softmax attention.
    Softmax = "softmax",
    /// `u * silu(g)`.
    Gate = "gate",
    /// `a + b`.
    Add = "add",
    /// Gates of experts.
    Route = "route",
    /// Channels times those of fewer.
    Scale = "scale",
    /// Nearest neighbour.
    Upsample = "upsample",
    /// Logits to candidates above the threshold.
    Decode = "decode",
    /// Non-maximum suppression.
    Suppress = "suppress",
}

impl Shader {
    fn imports(self) -> impl Iterator<Item = &'static Shared> {
        self.file().lines().filter_map(|line| line.strip_prefix("// #import ")).filter_map(move |wanted| {
            let found = SHARED.iter().find(|shared| shared.name == wanted.trim());
            debug_assert!(found.is_some(), "{}.wgsl imports {wanted}, which does not exist", self.name());
            found
        })
    }

    /// What of the features makes a difference to this shader.
    pub fn relevant(self, features: ShaderFeatures) -> ShaderFeatures {
        ShaderFeatures {
            half: features.half && self.imports().any(|shared| shared.half.is_some()),
            subgroups: features.subgroups && self.imports().any(|shared| shared.subgroups.is_some()),
        }
    }

    /// The file with all it imports, each once; what enables extensions comes first, as the language wants it.
    pub fn source(self, features: ShaderFeatures) -> String {
        let texts = self.imports().map(|shared| match *shared {
            Shared { half: Some(text), .. } if features.half => text,
            Shared { subgroups: Some(text), .. } if features.subgroups => text,
            Shared { plain, .. } => plain,
        });
        let (enable, rest): (Vec<&str>, Vec<&str>) =
            texts.chain([self.file()]).flat_map(str::lines).partition(|line| line.starts_with("enable "));
        let mut source = String::new();
        for line in enable.into_iter().chain(rest) {
            source += line;
            source.push('\n');
        }
        source
    }

    /// The same for browsers, whose compilers want lines that naga does not know. That all subgroups of `statistic_subgroup.wgsl` go
    /// round equally often is not seen by their analysis, which takes a structure of built-in values as one.
    pub fn source_in_browser(self, features: ShaderFeatures) -> String {
        let source = self.source(features);
        if self.relevant(features).subgroups {
            return format!("enable subgroups;\ndiagnostic(off, subgroup_uniformity);\n{source}");
        }
        source
    }
}

#[cfg(test)]
mod tests;
