//! What a frame costs on a GPU before one is at hand: dispatches, bytes moved, arithmetic, and the time that the
//! roofline model (Williams, Waterman, Patterson 2009) gives for them.

use super::compile::{Program, Step};
use yolo_lat_core::engine::Unsupported;
use yolo_lat_core::model::CheckedGraph;
use yolo_lat_shaders::Shader;

/// One dispatch of a frame of one image.
#[derive(Clone, Debug, PartialEq)]
pub struct DispatchReport {
    /// The shader: a file of `shaders/`.
    pub shader: &'static str,
    /// Nodes of the graph that it computes, fused ones too.
    pub nodes: Vec<String>,
    /// Workgroups.
    pub groups: usize,
    /// Bytes that must be read and written: inputs, outputs and weights once.
    pub bytes: u64,
    /// Multiply-adds.
    pub multiply_adds: u64,
}

/// All dispatches of a frame, in order.
#[derive(Clone, Debug, PartialEq)]
pub struct PlanReport {
    /// From the letterbox to the suppression.
    pub dispatches: Vec<DispatchReport>,
    /// Bytes of all feature maps of an image, which share memory by lifetime.
    pub arena_bytes: u64,
}

impl PlanReport {
    /// The dispatches of a graph for an image of the size of its input.
    ///
    /// # Errors
    /// A node that there is no shader for.
    pub fn new(graph: &CheckedGraph) -> Result<Self, Unsupported> {
        let plan = Program::new(graph)?;
        let input = graph.input();
        let letterbox = DispatchReport {
            shader: Shader::Letterbox.name(),
            nodes: vec!["input".into()],
            groups: input.width.div_ceil(8) * input.height.div_ceil(8),
            // Bytes in, floats out.
            bytes: (input.values() * 5) as u64,
            multiply_adds: 0,
        };
        let report = |step: &Step| DispatchReport {
            shader: step.shader.name(),
            nodes: step.names.clone(),
            groups: step.groups,
            bytes: step.bytes,
            multiply_adds: step.multiply_adds,
        };
        let dispatches = std::iter::once(letterbox).chain(plan.steps.iter().map(report)).collect();
        Ok(Self { dispatches, arena_bytes: 4 * plan.image_stride as u64 })
    }

    /// Bytes moved by a frame.
    pub fn bytes(&self) -> u64 {
        self.dispatches.iter().map(|dispatch| dispatch.bytes).sum()
    }
}

/// What a GPU can do at most, by its maker's data sheet.
#[derive(Clone, Debug, PartialEq)]
pub struct Roofline {
    /// Its name.
    pub name: String,
    /// 10^12 operations on 32-bit floats a second; a multiply-add is two.
    pub teraflops: f64,
    /// 10^9 bytes a second from memory.
    pub gigabytes: f64,
}

/// Name, TFLOP/s of 32-bit floats outside tensor cores, GB/s.
const KNOWN: [(&str, f64, f64); 10] = [
    ("h200", 66.9, 4800.0),
    ("h100", 66.9, 3350.0),
    ("rtx-4090", 82.6, 1008.0),
    ("rtx-3060", 12.7, 360.0),
    ("rx-7900-xtx", 61.4, 960.0),
    ("rx-6600", 8.9, 224.0),
    ("arc-a770", 19.7, 560.0),
    ("iris-xe", 2.1, 68.0),
    ("apple-m2", 3.6, 100.0),
    ("apple-m1", 2.6, 68.0),
];

impl std::str::FromStr for Roofline {
    type Err = String;

    /// A known name, or `TFLOPS,GB/S`.
    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(&(name, teraflops, gigabytes)) = KNOWN.iter().find(|known| known.0.eq_ignore_ascii_case(text)) {
            return Ok(Self { name: name.into(), teraflops, gigabytes });
        }
        let number = |text: &str| text.trim().parse::<f64>().ok().filter(|x| x.is_finite() && *x > 0.0);
        let parts = text.split_once(',').and_then(|(a, b)| Some((number(a)?, number(b)?)));
        let names: Vec<&str> = KNOWN.iter().map(|known| known.0).collect();
        let (teraflops, gigabytes) = parts.ok_or_else(|| {
            format!("known are {}; or give TFLOPS,GB/S from a data sheet, as 12.7,360", names.join(", "))
        })?;
        Ok(Self { name: format!("{teraflops} TFLOP/s, {gigabytes} GB/s"), teraflops, gigabytes })
    }
}

impl Roofline {
    /// Microseconds that a dispatch takes at least: for its arithmetic or its bytes, whichever is longer. What it takes to
    /// start one is not counted, and decides for small networks.
    pub fn microseconds(&self, dispatch: &DispatchReport) -> f64 {
        let arithmetic = 2.0 * dispatch.multiply_adds as f64 / (self.teraflops * 1e6);
        let memory = dispatch.bytes as f64 / (self.gigabytes * 1e3);
        arithmetic.max(memory)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longer_of_arithmetic_and_memory_counts() {
        let gpu: Roofline = "2,100".parse().unwrap();
        let dispatch = |bytes, multiply_adds| DispatchReport {
            shader: "pointwise",
            nodes: Vec::new(),
            groups: 1,
            bytes,
            multiply_adds,
        };
        assert_eq!(gpu.microseconds(&dispatch(100_000, 0)), 1.0);
        assert_eq!(gpu.microseconds(&dispatch(100_000, 5_000_000)), 5.0);
        assert_eq!("RTX-4090".parse::<Roofline>().unwrap().gigabytes, 1008.0);
        for wrong in ["", "voodoo", "1", "0,5", "1,x", "inf,1"] {
            assert!(wrong.parse::<Roofline>().unwrap_err().contains("rtx-4090"), "{wrong}");
        }
    }
}
