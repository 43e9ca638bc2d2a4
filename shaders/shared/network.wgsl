// What every kernel of the network sees: one arena for all feature maps, weights, lists of planes, jobs.

/// One operation on one feature map. A dispatch works on a list of jobs that do not depend on each other.
struct Job {
    first_group: u32, // workgroups of this dispatch before this job's
    inputs: u32, // first of the input's planes in `planes`
    second: u32, // of the second input: addend, gate, boxes, state; NONE without
    residual: u32, // added after everything; NONE without
    outputs: u32, // of the output's planes
    in_channels: u32,
    out_channels: u32,
    in_width: u32, // pixels
    in_height: u32,
    out_width: u32,
    out_height: u32,
    weight: u32, // first float in `weights`: (out_channels, depth)
    bias: u32, // (out_channels); NONE without
    window_weight: u32, // (in_channels, kernel, kernel)
    window_bias: u32, // (in_channels); NONE without
    window_residual: u32, // planes added after the window's activation; NONE without
    slope: f32, // of the leaky rectifier; 1 for none
    window_slope: f32,
    second_shift: u32, // 1: the second input has half the resolution
    parts: u32, // heads of attention; bins of a box; channels between the convolutions of a unit
    chunks: u32, // pieces into which the keys are divided; first cell of a scale
    scale: f32, // of queries and keys; pixels of a bin; stride
    stride: f32, // pixels between two cells
    first_weight: u32, // of the convolution before the window, in one pass with it: (parts, in_channels); of attention's projection
    first_bias: u32, // NONE without
    first_slope: f32,
    extra_weight: u32, // of one convolution more: the second half of the ghost that is added; the gated layer's first
    extra_bias: u32, // NONE without
    extra_slope: f32,
    extra_channels: u32, // of the ghost's first half; between the gated layer's convolutions
}

struct Dispatch {
    first_job: u32,
    jobs: u32,
    image_stride: u32, // floats of the arena that belong to one image
    images: u32,
}

const NONE = 0xffffffffu;

/// All feature maps, (channel, row, column) in planes of whole vec4s; image after image.
@group(0) @binding(0) var<storage, read_write> arena: array<vec4<f32>>;
/// All weights, one after the other.
@group(0) @binding(1) var<storage, read> weights: array<f32>;
/// Where planes begin, in floats from the image's start: views are lists.
@group(0) @binding(2) var<storage, read> planes: array<u32>;
@group(0) @binding(3) var<storage, read> jobs: array<Job>;
@group(0) @binding(4) var<uniform> dispatch: Dispatch;

/// Number of this workgroup; the grid is folded where one dimension does not suffice.
fn group_index(id: vec3<u32>, count: vec3<u32>) -> u32 {
    return id.x + id.y * count.x;
}

/// The job a workgroup works on.
fn find_job(group: u32) -> u32 {
    var found = dispatch.first_job;
    for (var index = found + 1u; index < dispatch.first_job + dispatch.jobs; index++) {
        if group >= jobs[index].first_group {
            found = index;
        }
    }
    return found;
}

fn value_at(index: u32) -> f32 {
    return arena[index / 4u][index % 4u];
}

fn store(index: u32, value: f32) {
    arena[index / 4u][index % 4u] = value;
}

/// Where the plane `channel` of a list begins for an image, in floats.
fn plane_of(list: u32, channel: u32, image: u32) -> u32 {
    return planes[list + channel] + image * dispatch.image_stride;
}

/// The bias of a channel; zero without a list.
fn bias_at(list: u32, channel: u32) -> f32 {
    if list == NONE {
        return 0.0;
    }
    return weights[list + channel];
}

/// Four weights.
fn weights_at(at: vec4<u32>) -> vec4<f32> {
    return vec4(weights[at.x], weights[at.y], weights[at.z], weights[at.w]);
}

/// Vec4s of a plane.
fn quads_of(width: u32, height: u32) -> u32 {
    return (width * height + 3u) / 4u;
}

fn leaky(x: vec4<f32>, slope: f32) -> vec4<f32> {
    return max(x, x * slope);
}
