//! What the network's results become at the end of an exported file: logits, predictions or detections.

use super::{Exporter, MOST, ints};
use crate::proto::{Attribute, Dimension};
use yolo_lat_core::model::config::STRIDES;
use yolo_lat_core::postprocess::{Nms, PostprocessOptions};

/// Most boxes of an image that may vote.
const VOTERS: i64 = 1000;

/// Names of tensors: corners (batch, 4, boxes), scores and classes (batch, 1, boxes).
#[derive(Clone)]
struct Boxes {
    corners: String,
    scores: String,
    class: String,
}

impl Exporter<'_> {
    /// The network's results as 32-bit floats: class and box logits of each scale.
    fn results(&mut self) -> Vec<String> {
        let names: Vec<String> = self.graph.outputs().map(|node| self.names[node].clone()).collect();
        if !self.options.half {
            return names;
        }
        names.iter().map(|name| self.out.to_float(name)).collect()
    }

    pub(super) fn logits(&mut self) {
        let (width, height) = self.options.size;
        let results = self.results();
        for (scale, results) in self.graph.scales.clone().iter().zip(results.chunks_exact(2)) {
            for ((name, node), result) in [("class", scale.class), ("box", scale.boxes)].into_iter().zip(results) {
                let name = format!("{name}{}", scale.stride);
                self.out.node_named("Identity", &[result], &name, &[]);
                let channels = Dimension::Fixed(self.graph.nodes[node].shape.channels);
                let [rows, columns] =
                    [(height, "height"), (width, "width")].map(|(pixels, name)| self.side(pixels, name, scale.stride));
                self.out.output(&name, &[self.batch(), channels, rows, columns]);
            }
        }
    }

    /// Probabilities (batch, classes, cells) and the boxes' upper left and lower right corners (batch, 2, cells).
    fn decoded(&mut self) -> (String, String, String) {
        let results = self.results();
        let head = self.graph.head;
        let (classes, bins) = (self.model.config.classes.len() as i64, head.bins as i64);
        let (mut scores, mut sides, mut centres, mut strides) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let class_form = self.out.integers(&[0, classes, -1]);
        let box_form = self.out.integers(&[0, 4, bins, -1]);
        for (scale, results) in self.graph.scales.clone().iter().zip(results.chunks_exact(2)) {
            scores.push(self.out.node("Reshape", &[&results[0], &class_form], &[]));
            sides.push(self.out.node("Reshape", &[&results[1], &box_form], &[]));
            if self.options.dynamic {
                let (centre, stride) = self.grid(&results[0], scale.stride);
                centres.push(centre);
                strides.push(stride);
            }
        }
        let (centres, strides) = if self.options.dynamic {
            (self.concat(&centres, 2), self.concat(&strides, 2))
        } else {
            self.constant_grid()
        };
        let scores = self.concat(&scores, 2);
        let scores = self.out.node("Sigmoid", &[&scores], &[]);
        let sides = self.concat(&sides, 3);
        let shares = self.out.node("Softmax", &[&sides], &[("axis", Attribute::Int(2))]);
        let step = head.max_distance / (bins - 1) as f32;
        let bins: Vec<f32> = (0..head.bins).map(|bin| bin as f32 * step).collect();
        let bins = self.out.floats(&[1, 1, head.bins, 1], &bins);
        let shares = self.out.node("Mul", &[&shares, &bins], &[]);
        let axis = self.out.integers(&[2]);
        let distances = self.out.node("ReduceSum", &[&shares, &axis], &[("keepdims", Attribute::Int(0))]);
        let distances = self.out.node("Mul", &[&distances, &strides], &[]);
        let [before, after] = [0, 2].map(|start| self.slice(&distances, start, 1, 2));
        let upper = self.out.node("Sub", &[&centres, &before], &[]);
        let lower = self.out.node("Add", &[&centres, &after], &[]);
        (scores, upper, lower)
    }

    fn concat(&mut self, parts: &[String], axis: i64) -> String {
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        self.out.node("Concat", &parts, &[("axis", Attribute::Int(axis))])
    }

    /// Centres (1, 2, cells) and strides (1, 1, cells) of all cells.
    fn constant_grid(&mut self) -> (String, String) {
        let (width, height) = self.options.size;
        let cells = || {
            STRIDES.into_iter().flat_map(move |stride| {
                (0..height / stride).flat_map(move |row| (0..width / stride).map(move |column| (stride, row, column)))
            })
        };
        let centre = |index: usize, stride: usize| (index as f32 + 0.5) * stride as f32;
        let centres: Vec<f32> = cells()
            .map(|(stride, _, column)| centre(column, stride))
            .chain(cells().map(|(stride, row, _)| centre(row, stride)))
            .collect();
        let strides: Vec<f32> = cells().map(|(stride, _, _)| stride as f32).collect();
        (self.out.floats(&[1, 2, strides.len()], &centres), self.out.floats(&[1, 1, strides.len()], &strides))
    }

    /// The same for one scale, from the shape of a map at run time.
    fn grid(&mut self, map: &str, stride: usize) -> (String, String) {
        let shape = self.out.node("Shape", &[map], &[]);
        let sides = self.integer_slice(&shape, 2, 4);
        let [start, step] = [0, 1].map(|value| self.out.integer(value));
        let [half, stride] = [0.5, stride as f32].map(|value| self.out.floats(&[], &[value]));
        let flat = self.out.integers(&[1, 1, -1]);
        let mut axis = |dimension: i64, form: &[i64]| {
            let at = self.out.integer(dimension);
            let count = self.out.node("Gather", &[&shape, &at], &[]);
            let range = self.out.node("Range", &[&start, &count, &step], &[]);
            let range = self.out.to_float(&range);
            let range = self.out.node("Add", &[&range, &half], &[]);
            let range = self.out.node("Mul", &[&range, &stride], &[]);
            let form = self.out.integers(form);
            let range = self.out.node("Reshape", &[&range, &form], &[]);
            let grid = self.out.node("Expand", &[&range, &sides], &[]);
            self.out.node("Reshape", &[&grid, &flat], &[])
        };
        let (x, y) = (axis(3, &[1, -1]), axis(2, &[-1, 1]));
        let centres = self.concat(&[x.clone(), y], 1);
        let zero = self.out.floats(&[], &[0.0]);
        let none = self.out.node("Mul", &[&x, &zero], &[]);
        (centres, self.out.node("Add", &[&none, &stride], &[]))
    }

    fn cells(&self) -> Dimension {
        let (width, height) = self.options.size;
        let count = STRIDES.iter().map(|stride| (width / stride) * (height / stride)).sum();
        if self.options.dynamic { Dimension::Named("cells".into()) } else { Dimension::Fixed(count) }
    }

    pub(super) fn predictions(&mut self) {
        let (scores, upper, lower) = self.decoded();
        let half = self.out.floats(&[], &[0.5]);
        let sum = self.out.node("Add", &[&upper, &lower], &[]);
        let centre = self.out.node("Mul", &[&sum, &half], &[]);
        let size = self.out.node("Sub", &[&lower, &upper], &[]);
        self.out.node_named("Concat", &[&centre, &size, &scores], "output0", &[("axis", Attribute::Int(1))]);
        let channels = Dimension::Fixed(4 + self.model.config.classes.len());
        self.out.output("output0", &[self.batch(), channels, self.cells()]);
    }

    pub(super) fn detections(&mut self, options: &PostprocessOptions) {
        let (scores, upper, lower) = self.decoded();
        let classes = self.model.config.classes.len();
        // Of each cell the best class: (batch, 1, cells).
        let class = self.out.node("ArgMax", &[&scores], &[("axis", Attribute::Int(1))]);
        let best = self.reduce("ReduceMax", &scores, 1);
        let all: Vec<i64> = (0..classes as i64).collect();
        let all = self.out.integers(&all);
        let form = self.out.integers(&[1, -1, 1]);
        let all = self.out.node("Reshape", &[&all, &form], &[]);
        let is_best = self.out.node("Equal", &[&all, &class], &[]);
        let zero = self.out.floats(&[], &[0.0]);
        let only_best = self.out.node("Where", &[&is_best, &scores, &zero], &[]);
        let corners = self.concat(&[upper, lower], 1);
        let boxes = self.transposed(&corners);
        let most = self.out.integers(&[MOST]);
        let [iou, least] = [options.iou, options.least_candidate()].map(|value| self.out.floats(&[1], &[value]));
        let kept = self.out.node("NonMaxSuppression", &[&boxes, &only_best, &most, &iou, &least], &[]);
        // (kept, 3): batch, class, cell. Ones at (batch, 0, cell) of a map of zeros.
        let one = self.out.integers(&[1]);
        let [batch, cell] = [0, 2].map(|column| {
            let [from, to] = [column, column + 1].map(|at| self.out.integers(&[at]));
            self.out.node("Slice", &[&kept, &from, &to, &one], &[])
        });
        let nothing = self.out.node("Sub", &[&batch, &batch], &[]);
        let places = self.concat(&[batch, nothing, cell], 1);
        let blank = self.out.node("Mul", &[&best, &zero], &[]);
        let values = self.out.node("GatherND", &[&best, &places], &[]);
        let marked = self.out.node("ScatterND", &[&blank, &places, &values], &[]);
        let class = self.out.to_float(&class);
        let everything = Boxes { corners, scores: best, class };
        let mut kept = self.top(&Boxes { scores: marked, ..everything.clone() }, MOST);
        if options.nms == Nms::BoxVoting {
            let voters = self.top(&everything, VOTERS);
            let merged = self.merged(&kept, &voters, options);
            kept = self.top(&merged, MOST);
        }
        let rows = self.concat(&[kept.corners, kept.scores.clone(), kept.class], 1);
        // What was not kept has confidence 0; its whole row becomes zeros, and rows are filled up to the maximum.
        let shown = self.out.node("Greater", &[&kept.scores, &zero], &[]);
        let rows = self.out.node("Where", &[&shown, &rows, &zero], &[]);
        let count = self.count(&kept.scores);
        let missing = self.out.node("Sub", &[&most, &count], &[]);
        let none = self.out.integers(&[0, 0, 0, 0, 0]);
        let pads = self.concat(&[none, missing], 0);
        let rows = self.out.node("Pad", &[&rows, &pads], &[]);
        self.out.node_named("Transpose", &[&rows], "output0", &[("perm", ints(&[0, 2, 1]))]);
        self.out.output("output0", &[self.batch(), Dimension::Fixed(MOST as usize), Dimension::Fixed(6)]);
    }

    /// How many columns a tensor of three dimensions has.
    fn count(&mut self, tensor: &str) -> String {
        let shape = self.out.node("Shape", &[tensor], &[]);
        self.integer_slice(&shape, 2, 3)
    }

    /// Rows as columns.
    fn transposed(&mut self, tensor: &str) -> String {
        self.out.node("Transpose", &[tensor], &[("perm", ints(&[0, 2, 1]))])
    }

    /// The `most` boxes of the highest scores, or all, by falling score.
    fn top(&mut self, boxes: &Boxes, most: i64) -> Boxes {
        let most = self.out.integers(&[most]);
        let count = self.count(&boxes.scores);
        let count = self.out.node("Min", &[&count, &most], &[]);
        let top = self.out.node_outputs("TopK", &[&boxes.scores, &count], 2, &[("axis", Attribute::Int(2))]);
        let along = [("axis", Attribute::Int(2))];
        let class = self.out.node("GatherElements", &[&boxes.class, &top[1]], &along);
        let fours = self.out.integers(&[1, 4, 1]);
        let at = self.out.node("Tile", &[&top[1], &fours], &[]);
        let corners = self.out.node("GatherElements", &[&boxes.corners, &at], &along);
        Boxes { corners, scores: top[0].clone(), class }
    }

    /// The boxes that suppression kept (the others have a score of 0) after the votes of those that they suppressed; what has less
    /// than the least confidence then has a score of 0. The formula is at [`suppress`](yolo_lat_core::postprocess::suppress).
    fn merged(&mut self, kept: &Boxes, voters: &Boxes, options: &PostprocessOptions) -> Boxes {
        let [zero, one, tiny] = [0.0, 1.0, 1e-12].map(|value| self.out.floats(&[], &[value]));
        let [iou, least, least_voter] =
            [options.iou, options.confidence, options.least_voter()].map(|value| self.out.floats(&[], &[value]));
        // Kept boxes are rows from here on, voters columns: (batch, kept, voters).
        let [corners, scores, class] = [&kept.corners, &kept.scores, &kept.class].map(|tensor| self.transposed(tensor));
        let mut sides = |axis: usize| {
            let low = [self.slice_of(&corners, 2, axis), self.slice_of(&voters.corners, 1, axis)];
            let high = [self.slice_of(&corners, 2, axis + 2), self.slice_of(&voters.corners, 1, axis + 2)];
            let length = |this: &mut Self, high: &str, low: &str| {
                let length = this.out.node("Sub", &[high, low], &[]);
                this.out.node("Relu", &[&length], &[])
            };
            let from = self.out.node("Max", &[&low[0], &low[1]], &[]);
            let to = self.out.node("Min", &[&high[0], &high[1]], &[]);
            [length(self, &to, &from), length(self, &high[0], &low[0]), length(self, &high[1], &low[1])]
        };
        let (widths, heights) = (sides(0), sides(1));
        let [both, of_kept, of_voter] = [0, 1, 2].map(|of| self.out.node("Mul", &[&widths[of], &heights[of]], &[]));
        let sum = self.out.node("Add", &[&of_kept, &of_voter], &[]);
        let sum = self.out.node("Sub", &[&sum, &both], &[]);
        let sum = self.out.node("Max", &[&sum, &tiny], &[]);
        let overlap = self.out.node("Div", &[&both, &sum], &[]);
        // Each votes for the first row that suppresses it; a kept box for itself.
        let near = self.out.node("Greater", &[&overlap, &iou], &[]);
        let same = self.out.node("Equal", &[&class, &voters.class], &[]);
        let is_kept = self.out.node("Greater", &[&scores, &zero], &[]);
        let near = self.out.node("And", &[&near, &same], &[]);
        let near = self.out.node("And", &[&near, &is_kept], &[]);
        let suppresses = self.out.to_float(&near);
        let rows = self.out.integer(1);
        let order = self.out.node("CumSum", &[&suppresses, &rows], &[]);
        let first = self.out.node("Equal", &[&order, &one], &[]);
        let may_vote = self.out.node("GreaterOrEqual", &[&voters.scores, &least_voter], &[]);
        let votes = self.out.node("And", &[&near, &first], &[]);
        let votes = self.out.node("And", &[&votes, &may_vote], &[]);
        let all_wrong = self.out.node("Sub", &[&one, &voters.scores], &[]);
        let all_wrong = self.out.node("Where", &[&votes, &all_wrong, &one], &[]);
        let all_wrong = self.reduce("ReduceProd", &all_wrong, 2);
        let certainty = self.out.node("Sub", &[&one, &all_wrong], &[]);
        // A box that is too unsure to vote for itself has no other voters either.
        let certainty = self.out.node("Max", &[&certainty, &scores], &[]);
        let confidence = self.out.node("Mul", &[&scores, &certainty], &[]);
        let root = self.out.node("Mul", &[&overlap, &overlap], &[]);
        let root = self.out.node("Mul", &[&root, &voters.scores], &[]);
        let weights = self.out.node("Mul", &[&root, &root], &[]);
        let weights = self.out.node("Where", &[&votes, &weights, &zero], &[]);
        let voices = self.transposed(&voters.corners);
        let means = self.out.node("MatMul", &[&weights, &voices], &[]);
        let axis = self.out.integers(&[2]);
        let weight = self.out.node("ReduceSum", &[&weights, &axis], &[]);
        let has_votes = self.out.node("Greater", &[&weight, &zero], &[]);
        let weight = self.out.node("Max", &[&weight, &tiny], &[]);
        let means = self.out.node("Div", &[&means, &weight], &[]);
        let corners = self.out.node("Where", &[&has_votes, &means, &corners], &[]);
        let enough = self.out.node("GreaterOrEqual", &[&confidence, &least], &[]);
        let confidence = self.out.node("Where", &[&enough, &confidence, &zero], &[]);
        let [corners, scores] = [corners, confidence].map(|tensor| self.transposed(&tensor));
        Boxes { corners, scores, class: kept.class.clone() }
    }

    /// One row or column of a tensor, which stays one of three dimensions.
    fn slice_of(&mut self, tensor: &str, axis: i64, at: usize) -> String {
        let [from, to, axis] = [at as i64, at as i64 + 1, axis].map(|value| self.out.integers(&[value]));
        self.out.node("Slice", &[tensor, &from, &to, &axis], &[])
    }
}
