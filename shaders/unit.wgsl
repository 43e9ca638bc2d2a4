// A shuffle unit's branch in one pass: pointwise, depthwise 3x3 and pointwise convolution of a tile, whose halo the first
// one computes again in every workgroup. What lies between them never leaves workgroup memory. Of a ghost the last one reads
// what the first has made, too.
// #import shared/network.wgsl
// #import shared/doubled.wgsl

/// Positions of a tile.
override TILE_WIDTH: u32 = 4u;
override TILE_HEIGHT: u32 = 4u;

/// Whether the last convolution reads the result of the first, then that of the depthwise one.
override GHOST: bool = false;

const THREADS = 128u;

/// After the first convolution: (channels, TILE_HEIGHT + 2, TILE_WIDTH + 2)
var<workgroup> first: array<f32, 2400>;
/// After the depthwise one: (channels, TILE_HEIGHT, TILE_WIDTH)
var<workgroup> second: array<f32, 1536>;

@compute @workgroup_size(128)
fn unit(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) count: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let group = group_index(id, count);
    let job = find_job(group);
    let image = id.z;
    let width = jobs[job].out_width;
    let height = jobs[job].out_height;
    let columns = (width + TILE_WIDTH - 1u) / TILE_WIDTH;
    let tile = group - jobs[job].first_group;
    // A folded grid has some groups too many: their tile lies below the image and writes nothing.
    let left = tile % columns * TILE_WIDTH;
    let top = tile / columns * TILE_HEIGHT;
    let inputs = jobs[job].in_channels;
    let channels = jobs[job].parts;
    let halo_width = TILE_WIDTH + 2u;
    let halo = halo_width * (TILE_HEIGHT + 2u);

    // Four channels of one position a thread.
    let quads = (channels + 3u) / 4u;
    for (var item = thread; item < quads * halo; item += THREADS) {
        let channel = item / halo * 4u;
        let x = left + item % halo % halo_width - 1u;
        let y = top + item % halo / halo_width - 1u;
        var sum = vec4(0.0);
        // One past the left or upper border wraps to a huge number.
        let inside = x < width && y < height;
        if inside {
            let row = min(vec4(channel) + vec4(0u, 1u, 2u, 3u), vec4(channels - 1u)) * inputs + jobs[job].first_weight;
            for (var k = 0u; k < inputs; k++) {
                sum += weights_at(row + k) * value_at(place_of(plane_of(jobs[job].inputs, k, image), x, y, width));
            }
        }
        for (var part = 0u; part < min(4u, channels - channel); part++) {
            let value = sum[part] + bias_at(jobs[job].first_bias, channel + part);
            // The window pads with zeros, not with what the convolution makes of zeros.
            first[(channel + part) * halo + item % halo] = select(0.0, max(value, value * jobs[job].first_slope), inside);
        }
    }
    workgroupBarrier();

    let positions = TILE_WIDTH * TILE_HEIGHT;
    for (var item = thread; item < channels * positions; item += THREADS) {
        let channel = item / positions;
        let corner = channel * halo + item % positions / TILE_WIDTH * halo_width + item % positions % TILE_WIDTH;
        var sum = bias_at(jobs[job].window_bias, channel);
        for (var tap = 0u; tap < 9u; tap++) {
            sum += weights[jobs[job].window_weight + channel * 9u + tap] * first[corner + tap / 3u * halo_width + tap % 3u];
        }
        second[item] = max(sum, sum * jobs[job].window_slope);
    }
    workgroupBarrier();

    let outputs = jobs[job].out_channels;
    let depth = select(channels, 2u * channels, GHOST);
    for (var item = thread; item < (outputs + 3u) / 4u * positions; item += THREADS) {
        let channel = item / positions * 4u;
        let at = item % positions;
        let x = left + at % TILE_WIDTH;
        let y = top + at / TILE_WIDTH;
        if x >= width || y >= height {
            continue;
        }
        let row = min(vec4(channel) + vec4(0u, 1u, 2u, 3u), vec4(outputs - 1u)) * depth + jobs[job].weight;
        var sum = vec4(0.0);
        if GHOST {
            let centre = (at / TILE_WIDTH + 1u) * halo_width + at % TILE_WIDTH + 1u;
            for (var k = 0u; k < channels; k++) {
                sum += weights_at(row + k) * first[k * halo + centre];
            }
        }
        let of_window = row + depth - channels;
        for (var k = 0u; k < channels; k++) {
            sum += weights_at(of_window + k) * second[k * positions + at];
        }
        for (var part = 0u; part < min(4u, outputs - channel); part++) {
            let value = sum[part] + bias_at(jobs[job].bias, channel + part);
            store(plane_of(jobs[job].outputs, channel + part, image) + y * width + x, max(value, value * jobs[job].slope));
        }
    }
}
