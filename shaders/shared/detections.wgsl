// What decoding and suppression share.

struct Options {
    confidence: f32, // least of a candidate, 0..1
    iou: f32, // of two boxes that overlap more, the less confident goes
    max_detections: u32,
    agnostic: u32, // 1: boxes of different classes suppress each other too
    multi_label: u32, // 1: a cell may report several classes
    capacity: u32, // candidates of one image
    least_voter: f32, // least confidence of a suppressed box that votes; above 1 where none does
    reserved: u32,
    allowed: array<vec4<u32>, 32>, // a bit for each class
}

struct Candidate {
    x1: f32, // pixels of the network's input
    y1: f32,
    x2: f32,
    y2: f32,
    confidence: f32, // negative once suppressed
    class_index: u32,
    order: u32, // of equal confidences the lower goes first
    voter: u32, // index of another: the first candidates list those that may vote
}

@group(1) @binding(0) var<uniform> options: Options;
/// Candidates found so far, (images)
@group(1) @binding(1) var<storage, read_write> counts: array<atomic<u32>>;
/// (images, capacity)
@group(1) @binding(2) var<storage, read_write> candidates: array<Candidate>;
/// (images, 1 + max_detections); the first one's class_index is their number
@group(1) @binding(3) var<storage, read_write> detections: array<Candidate>;
