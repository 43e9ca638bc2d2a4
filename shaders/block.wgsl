// An attention block after its queries, keys and values, some positions a workgroup: the query side of exact linear attention, the
// depthwise 3x3 of the values added to it, the projection, and the gated feed-forward layer. Only the sums over the keys come from
// elsewhere; what lies between never leaves workgroup memory.
// #import shared/network.wgsl
// #import shared/features.wgsl
// #import shared/query.wgsl

/// Positions of a workgroup.
override TILE: u32 = 16u;

/// What attention gives, then what the gate lets through: (channels, TILE)
var<workgroup> narrow: array<f32, 1400>;
/// The projection: (channels, TILE)
var<workgroup> wide: array<f32, 1536>;

/// The depthwise 3x3 of a plane of the values.
fn window_at(job: u32, channel: u32, position: u32, image: u32) -> f32 {
    let width = jobs[job].out_width;
    let height = jobs[job].out_height;
    let plane = plane_of(jobs[job].inputs, 2u * jobs[job].parts * HEAD + channel, image);
    var sum = bias_at(jobs[job].window_bias, channel);
    for (var tap = 0u; tap < 9u; tap++) {
        // One past the left or upper border wraps to a huge number.
        let x = position % width + tap % 3u - 1u;
        let y = position / width + tap / 3u - 1u;
        if x < width && y < height {
            sum += weights[jobs[job].window_weight + channel * 9u + tap] * value_at(plane + y * width + x);
        }
    }
    return sum;
}

@compute @workgroup_size(64)
fn block(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) count: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let group = group_index(id, count);
    let job = find_job(group);
    let image = id.z;
    let tokens = jobs[job].out_width * jobs[job].out_height;
    // A folded grid has some groups too many: their positions lie behind the last one, and they write nothing.
    let first = (group - jobs[job].first_group) * TILE;
    let inner = jobs[job].parts * HEAD;
    let outputs = jobs[job].out_channels;
    let hidden = jobs[job].extra_channels;

    for (var head = 0u; head < jobs[job].parts; head++) {
        gather_state(job, head, image, thread);
        if thread < TILE && first + thread < tokens {
            let result = attend(job, head, first + thread, image);
            for (var channel = 0u; channel < HEAD; channel++) {
                narrow[(head * HEAD + channel) * TILE + thread] = result[channel];
            }
        }
        workgroupBarrier();
    }
    for (var item = thread; item < inner * TILE; item += THREADS) {
        let position = first + item % TILE;
        if position < tokens {
            narrow[item] += window_at(job, item / TILE, position, image);
        }
    }
    workgroupBarrier();

    // Four channels of one position a thread.
    for (var item = thread; item < (outputs + 3u) / 4u * TILE; item += THREADS) {
        let channel = item / TILE * 4u;
        let row = min(vec4(channel) + vec4(0u, 1u, 2u, 3u), vec4(outputs - 1u)) * inner + jobs[job].first_weight;
        var sum = vec4(0.0);
        for (var k = 0u; k < inner; k++) {
            sum += weights_at(row + k) * narrow[k * TILE + item % TILE];
        }
        for (var part = 0u; part < min(4u, outputs - channel); part++) {
            wide[(channel + part) * TILE + item % TILE] = sum[part] + bias_at(jobs[job].first_bias, channel + part);
        }
    }
    workgroupBarrier();

    // Two channels of the gated layer, which need two rows each.
    for (var item = thread; item < (hidden + 1u) / 2u * TILE; item += THREADS) {
        let channel = item / TILE * 2u;
        let next = min(channel + 1u, hidden - 1u);
        let row = vec4(channel, next, hidden + channel, hidden + next) * outputs + jobs[job].extra_weight;
        var sum = vec4(0.0);
        for (var k = 0u; k < outputs; k++) {
            sum += weights_at(row + k) * wide[k * TILE + item % TILE];
        }
        for (var part = 0u; part < min(2u, hidden - channel); part++) {
            let u = sum[part] + bias_at(jobs[job].extra_bias, channel + part);
            let g = sum[part + 2u] + bias_at(jobs[job].extra_bias, hidden + channel + part);
            narrow[(channel + part) * TILE + item % TILE] = u * g / (1.0 + exp(-g));
        }
    }
    workgroupBarrier();

    for (var item = thread; item < (outputs + 3u) / 4u * TILE; item += THREADS) {
        let channel = item / TILE * 4u;
        let position = first + item % TILE;
        if position >= tokens {
            continue;
        }
        let row = min(vec4(channel) + vec4(0u, 1u, 2u, 3u), vec4(outputs - 1u)) * hidden + jobs[job].weight;
        var sum = vec4(0.0);
        for (var k = 0u; k < hidden; k++) {
            sum += weights_at(row + k) * narrow[k * TILE + item % TILE];
        }
        for (var part = 0u; part < min(4u, outputs - channel); part++) {
            var value = sum[part] + bias_at(jobs[job].bias, channel + part);
            if jobs[job].residual != NONE {
                value += value_at(plane_of(jobs[job].residual, channel + part, image) + position);
            }
            store(plane_of(jobs[job].outputs, channel + part, image) + position, value);
        }
    }
}
