//! What a point of an image looks at: attention weights, which linear attention never forms, for people.

use ndarray::Array2;

use crate::detector::Detector;
use crate::options::AttentionOptions;
use yolo_lat_attention::{Similarity, attention_weights};
use yolo_lat_core::geometry::{BBox, Letterbox};
use yolo_lat_core::model::graph::{Mixing, NodeId, Op};
use yolo_lat_core::model::{Model, ModelError};

/// A layer of attention as it runs.
#[derive(Clone)]
pub struct AttentionLayer {
    /// Its name in the network.
    pub name: String,
    /// Number of heads.
    pub heads: usize,
    /// How it weighs keys; `None` where the layer is turned off.
    pub similarity: Option<&'static dyn Similarity>,
}

impl AttentionLayer {
    /// Those of a model in the order of execution, with what takes their place.
    ///
    /// # Errors
    /// As [`Model::graph`].
    pub fn all(model: &Model, options: &AttentionOptions) -> Result<Vec<Self>, ModelError> {
        let graph = model.graph(model.config.input, model.config.input)?;
        let layer = |(index, node): (usize, NodeId)| {
            let node = &graph.nodes[node];
            let Op::Attention { mixing, heads, .. } = node.op else { return None };
            let replaced = options.replaced.iter().find(|(layer, _)| *layer == index).map(|(_, by)| *by);
            let name = node.name.trim_end_matches(".attention").to_owned();
            Some(Self { name, heads, similarity: replaced.unwrap_or(Some(mixing)).map(Mixing::similarity) })
        };
        Ok(graph.attention_layers().enumerate().filter_map(layer).collect())
    }
}

/// The weights of one query on every position.
#[derive(Clone, Debug, PartialEq)]
pub struct AttentionView {
    /// The layer by its number in the order of execution.
    pub layer: usize,
    /// Row and column of the query.
    pub query: (usize, usize),
    /// Rows and columns of positions, which cover the letterbox.
    pub grid: (usize, usize),
    /// (heads, rows * columns), each row of sum 1.
    pub weights: Array2<f64>,
}

impl Detector {
    /// Where an image of `image` pixels (width, height) lies in the network's input.
    pub fn letterbox(&self, image: (u32, u32)) -> Letterbox {
        let (width, height) = self.input_size(image);
        Letterbox::fit(image, (width as u32, height as u32))
    }

    /// What `point` of the last image, of `image` pixels, looks at in `layer`, which must be the watched one:
    /// [`AttentionOptions::watched`]. `None` where nothing was watched, or the layer is turned off.
    pub fn look(
        &self,
        (number, layer): (usize, &AttentionLayer),
        image: (u32, u32),
        (x, y): (f32, f32),
    ) -> Option<AttentionView> {
        let read = self.queries_keys_values()?;
        let (_, rows, columns) = read.dim();
        let letterbox = self.letterbox(image);
        let BBox { x1: x, y1: y, .. } = letterbox.letterbox_from_image(&BBox { x1: x, y1: y, x2: x, y2: y });
        let cell = |at: f32, cells: usize, side: u32| {
            ((at / side as f32 * cells as f32).floor().max(0.0) as usize).min(cells.saturating_sub(1))
        };
        let query = (cell(y, rows, letterbox.input.1), cell(x, columns, letterbox.input.0));
        let weights = attention_weights(layer.similarity?, read.view(), layer.heads, query);
        Some(AttentionView { layer: number, query, grid: (rows, columns), weights })
    }
}
