// Softmax attention, the baseline: keys pass in tiles, each query keeps its largest score so far and the sums under it.
// #import shared/network.wgsl
// #import shared/features.wgsl

const TILE = 32u;

/// (tile, HEAD)
var<workgroup> keys: array<f32, 1024>;
var<workgroup> values: array<f32, 1024>;

@compute @workgroup_size(64)
fn softmax(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) count: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let group = group_index(id, count);
    let job = find_job(group);
    let image = id.z;
    let tokens = jobs[job].out_width * jobs[job].out_height;
    let blocks = (tokens + THREADS - 1u) / THREADS;
    let index = group - jobs[job].first_group;
    if index >= blocks * jobs[job].parts {
        return;
    }
    let head = index / blocks;
    let position = index % blocks * THREADS + thread;
    var query: array<f32, MOST_HEAD>;
    var sums: array<f32, MOST_HEAD>;
    for (var channel = 0u; channel < HEAD; channel++) {
        // A thread beyond the end computes the last query again.
        let value = channel_at(job, 0u, head, channel, min(position, tokens - 1u), image);
        query[channel] = value * jobs[job].scale;
    }
    var peak = -3.0e38;
    var total = 0.0;
    for (var start = 0u; start < tokens; start += TILE) {
        for (var item = thread; item < HEAD * TILE; item += THREADS) {
            let at = min(start + item % TILE, tokens - 1u);
            let target_at = item % TILE * HEAD + item / TILE;
            keys[target_at] = channel_at(job, 1u, head, item / TILE, at, image) * jobs[job].scale;
            values[target_at] = channel_at(job, 2u, head, item / TILE, at, image);
        }
        workgroupBarrier();
        for (var token = 0u; token < min(TILE, tokens - start); token++) {
            var score = 0.0;
            for (var channel = 0u; channel < HEAD; channel++) {
                score += query[channel] * keys[token * HEAD + channel];
            }
            if score > peak {
                let factor = exp(peak - score);
                total *= factor;
                for (var channel = 0u; channel < HEAD; channel++) {
                    sums[channel] *= factor;
                }
                peak = score;
            }
            let weight = exp(score - peak);
            total += weight;
            for (var channel = 0u; channel < HEAD; channel++) {
                sums[channel] += weight * values[token * HEAD + channel];
            }
        }
        workgroupBarrier();
    }
    if position >= tokens {
        return;
    }
    for (var channel = 0u; channel < HEAD; channel++) {
        store(plane_of(jobs[job].outputs, head * HEAD + channel, image) + position, sums[channel] / total);
    }
}
