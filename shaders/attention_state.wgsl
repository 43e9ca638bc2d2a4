// Exact linear attention, key side: for each head and each chunk of the keys S = sum_j psi(k_j) v_j^T and
// C = sum_j psi(k_j). Exponentials are taken of k - m with m the chunk's maximum, so that every one is at most 1;
// distances of k - c with c the mean of some keys, the same for all chunks, so that none cancels.
// #import shared/network.wgsl
// #import shared/features.wgsl

/// Keys whose features are in workgroup memory together.
const TILE = 32u;
/// Keys whose mean is the centre of distances.
const SAMPLE = 256u;

/// (features, tile)
var<workgroup> features: array<f32, 1088>;
/// (HEAD, tile)
var<workgroup> values: array<f32, 1024>;
/// Statistics: of parts of the chunk, then of channels.
var<workgroup> partial: array<f32, 64>;
var<workgroup> statistic: array<f32, 32>;

/// Maximum or mean of every channel of the keys, by all threads.
fn gather_statistic(job: u32, head: u32, first: u32, end: u32, image: u32, thread: u32) {
    let parts = THREADS / HEAD;
    let channel = thread % HEAD;
    let part = thread / HEAD;
    var step = 1u;
    var begin = first;
    var to = end;
    if SIMILARITY != 0u {
        to = jobs[job].out_width * jobs[job].out_height;
        begin = 0u;
        step = max(to / SAMPLE, 1u);
    }
    if part < parts {
        var value = channel_at(job, 1u, head, channel, begin, image);
        if SIMILARITY != 0u {
            value = 0.0;
        }
        for (var position = begin + part * step; position < to; position += parts * step) {
            let key = channel_at(job, 1u, head, channel, position, image);
            value = select(value + key, max(value, key), SIMILARITY == 0u);
        }
        partial[thread] = value;
    }
    workgroupBarrier();
    if thread < HEAD {
        var value = partial[thread];
        for (var other = 1u; other < parts; other++) {
            let next = partial[other * HEAD + thread];
            value = select(value + next, max(value, next), SIMILARITY == 0u);
        }
        if SIMILARITY != 0u {
            value /= f32((to - begin + step - 1u) / step);
        }
        statistic[thread] = value * jobs[job].scale;
    }
    workgroupBarrier();
}

@compute @workgroup_size(64)
fn attention_state(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) count: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let group = group_index(id, count);
    let job = find_job(group);
    let index = group - jobs[job].first_group;
    // A folded grid has some groups too many.
    if index >= jobs[job].parts * jobs[job].chunks {
        return;
    }
    let head = index / jobs[job].chunks;
    let chunk = index % jobs[job].chunks;
    let image = id.z;
    let tokens = jobs[job].out_width * jobs[job].out_height;
    let length = (tokens + jobs[job].chunks - 1u) / jobs[job].chunks;
    let first = min(chunk * length, tokens - 1u);
    let end = min(first + length, tokens);
    gather_statistic(job, head, first, end, image, thread);

    let count_of_features = feature_count();
    let entries = count_of_features * (HEAD + 1u);
    var sums: array<f32, 18>;
    for (var start = first; start < end; start += TILE) {
        for (var item = thread; item < HEAD * TILE; item += THREADS) {
            let channel = item / TILE;
            let position = start + item % TILE;
            var feature = 0.0;
            var value = 0.0;
            if position < end {
                let key = channel_at(job, 1u, head, channel, position, image) * jobs[job].scale - statistic[channel];
                feature = select(key, exp(key), SIMILARITY == 0u);
                value = channel_at(job, 2u, head, channel, position, image);
            }
            features[item] = feature;
            values[item] = value;
        }
        workgroupBarrier();
        if SIMILARITY != 0u {
            // Two more features: 1 and the square of the norm.
            for (var token = thread; token < TILE; token += THREADS) {
                var square = 0.0;
                for (var channel = 0u; channel < HEAD; channel++) {
                    let key = features[channel * TILE + token];
                    square += key * key;
                }
                features[HEAD * TILE + token] = select(0.0, 1.0, start + token < end);
                features[(HEAD + 1u) * TILE + token] = square;
            }
            workgroupBarrier();
        }
        for (var part = 0u; part < 18u; part++) {
            let entry = part * THREADS + thread;
            if entry < entries {
                let feature = entry / (HEAD + 1u) * TILE;
                let column = entry % (HEAD + 1u);
                var sum = 0.0;
                for (var token = 0u; token < TILE; token++) {
                    // The last column is the sum of the feature itself.
                    let value = select(1.0, values[min(column, HEAD - 1u) * TILE + token], column < HEAD);
                    sum += features[feature + token] * value;
                }
                sums[part] += sum;
            }
        }
        workgroupBarrier();
    }
    let state = planes[jobs[job].outputs] + state_of(job, head, chunk, image);
    if thread < HEAD {
        store(state + thread, statistic[thread]);
    }
    for (var part = 0u; part < 18u; part++) {
        let entry = part * THREADS + thread;
        if entry < entries {
            store(state + MOST_HEAD + entry, sums[part]);
        }
    }
}
