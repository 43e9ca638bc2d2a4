// The query side of exact linear attention: joins the chunks' sums of a head, then out_i = phi(q_i) S / phi(q_i) . C.
// Exponentials are taken of q + m less its largest channel, so that the denominator is at least 1; a row without any
// weight gets the mean of the values. The importer imports features.wgsl.

/// Statistic of every channel.
var<workgroup> statistic: array<f32, 32>;
/// (features, HEAD + 1)
var<workgroup> state: array<f32, 1122>;

/// Fills both for a head; every thread must come here.
fn gather_state(job: u32, head: u32, image: u32, thread: u32) {
    let base = planes[jobs[job].second];
    if thread < HEAD {
        var value = value_at(base + state_of(job, head, 0u, image) + thread);
        for (var chunk = 1u; chunk < jobs[job].chunks; chunk++) {
            value = max(value, value_at(base + state_of(job, head, chunk, image) + thread));
        }
        statistic[thread] = value;
    }
    workgroupBarrier();
    let count_of_features = feature_count();
    for (var entry = thread; entry < count_of_features * (HEAD + 1u); entry += THREADS) {
        let feature = entry / (HEAD + 1u);
        var sum = 0.0;
        for (var chunk = 0u; chunk < jobs[job].chunks; chunk++) {
            let place = base + state_of(job, head, chunk, image);
            var value = value_at(place + MOST_HEAD + entry);
            if SIMILARITY == 0u {
                value *= exp(value_at(place + feature) - statistic[feature]);
            }
            sum += value;
        }
        state[entry] = sum;
    }
    workgroupBarrier();
}

/// What a position gets from a head whose state was gathered.
fn attend(job: u32, head: u32, position: u32, image: u32) -> array<f32, MOST_HEAD> {
    let count_of_features = feature_count();
    var query: array<f32, MOST_FEATURES>;
    var peak = -3.0e38;
    var square = 0.0;
    let sign = select(-1.0, 1.0, SIMILARITY == 1u);
    for (var channel = 0u; channel < HEAD; channel++) {
        let value = channel_at(job, 0u, head, channel, position, image) * jobs[job].scale;
        if SIMILARITY == 0u {
            query[channel] = value + statistic[channel];
            peak = max(peak, query[channel]);
        } else {
            // q + k = (q + c) + (k - c), q - k = (q - c) - (k - c).
            var moved = value;
            if SIMILARITY != 3u {
                moved += sign * statistic[channel];
            }
            square += moved * moved;
            query[channel] = select(2.0 * sign * moved, moved, SIMILARITY == 3u);
        }
    }
    if SIMILARITY == 0u {
        for (var channel = 0u; channel < HEAD; channel++) {
            query[channel] = exp(query[channel] - peak);
        }
    } else if SIMILARITY == 3u {
        // Its direction; |q|^2 + 1 cancels.
        let stretch = select(0.0, 1.0 / sqrt(square), square > 0.0);
        for (var channel = 0u; channel < HEAD; channel++) {
            query[channel] *= stretch;
        }
        query[HEAD] = 0.0;
        query[HEAD + 1u] = 1.0;
    } else {
        query[HEAD] = square;
        query[HEAD + 1u] = 1.0;
    }
    var denominator = 0.0;
    for (var feature = 0u; feature < count_of_features; feature++) {
        denominator += query[feature] * state[feature * (HEAD + 1u) + HEAD];
    }
    var result: array<f32, MOST_HEAD>;
    for (var channel = 0u; channel < HEAD; channel++) {
        var numerator = 0.0;
        for (var feature = 0u; feature < count_of_features; feature++) {
            numerator += query[feature] * state[feature * (HEAD + 1u) + channel];
        }
        result[channel] = numerator / denominator;
        if SIMILARITY != 0u && !(denominator > 0.0) {
            // The feature that is 1 for every key summed the values.
            result[channel] = state[HEAD * (HEAD + 1u) + channel] / state[HEAD * (HEAD + 1u) + HEAD];
        }
    }
    return result;
}
