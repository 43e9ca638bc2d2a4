// Exact linear attention, key side: for each head and each chunk of the keys S = sum_j psi(k_j) v_j^T and
// C = sum_j psi(k_j). Exponentials are taken of k - m with m the chunk's maximum, so that every one is at most 1;
// distances of k - c with c the mean of some keys, the same for all chunks, so that none cancels.
// #import shared/network.wgsl
// #import shared/features.wgsl
// #import shared/scalar.wgsl
// #import shared/statistic.wgsl

/// Keys whose features are in workgroup memory together.
const TILE = 32u;

/// (features, tile)
var<workgroup> features: array<tile_scalar, 1088>;
/// (HEAD, tile)
var<workgroup> values: array<tile_scalar, 1024>;
@compute @workgroup_size(64)
fn attention_state(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) count: vec3<u32>,
    team: Team,
) {
    let thread = team.thread;
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
    gather_statistic(job, head, first, end, image, team);

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
                var key = channel_at(job, 1u, head, channel, position, image) * jobs[job].scale;
                if SIMILARITY != 3u {
                    key -= statistic[channel];
                }
                feature = select(key, exp(key), SIMILARITY == 0u);
                value = channel_at(job, 2u, head, channel, position, image);
            }
            features[item] = into_tile(feature);
            values[item] = into_tile(value);
        }
        workgroupBarrier();
        if SIMILARITY != 0u {
            // Two more features: 1, and the square of the norm or, of directions, their length.
            for (var token = thread; token < TILE; token += THREADS) {
                var square = 0.0;
                for (var channel = 0u; channel < HEAD; channel++) {
                    let key = f32(features[channel * TILE + token]);
                    square += key * key;
                }
                features[HEAD * TILE + token] = into_tile(select(0.0, 1.0, start + token < end));
                if SIMILARITY == 3u {
                    let factor = square + 1.0;
                    let stretch = select(0.0, factor / sqrt(square), square > 0.0);
                    for (var channel = 0u; channel < HEAD; channel++) {
                        features[channel * TILE + token] *= tile_scalar(stretch);
                    }
                    square = select(0.0, factor, start + token < end);
                }
                features[(HEAD + 1u) * TILE + token] = into_tile(square);
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
                    let value = select(1.0, f32(values[min(column, HEAD - 1u) * TILE + token]), column < HEAD);
                    sum += f32(features[feature + token]) * value;
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
