// Logits to candidates: sigmoid of the class logit; a side's distance is the expectation of its bins (distribution
// focal loss). What reaches the threshold is compacted; its order is restored by `order`.
// #import shared/network.wgsl
// #import shared/detections.wgsl

fn sigmoid(x: f32) -> f32 {
    return 1.0 / (1.0 + exp(-x));
}

fn is_allowed(class_index: u32) -> bool {
    let word = options.allowed[class_index / 128u][class_index / 32u % 4u];
    return ((word >> (class_index % 32u)) & 1u) == 1u;
}

/// Distance of a side from the cell's centre in pixels.
fn distance_of(job: u32, side: u32, cell: u32, image: u32) -> f32 {
    let bins = jobs[job].parts;
    var peak = -3.0e38;
    for (var bin = 0u; bin < bins; bin++) {
        peak = max(peak, value_at(plane_of(jobs[job].second, side * bins + bin, image) + cell));
    }
    var sum = 0.0;
    var mean = 0.0;
    for (var bin = 0u; bin < bins; bin++) {
        let weight = exp(value_at(plane_of(jobs[job].second, side * bins + bin, image) + cell) - peak);
        sum += weight;
        mean += weight * f32(bin);
    }
    return mean / sum * jobs[job].scale;
}

fn report(job: u32, cell: u32, class_index: u32, confidence: f32, order: u32, image: u32) {
    let index = atomicAdd(&counts[image], 1u);
    // The plan gave room for all that can be found.
    if index >= options.capacity {
        return;
    }
    let x = (f32(cell % jobs[job].out_width) + 0.5) * jobs[job].stride;
    let y = (f32(cell / jobs[job].out_width) + 0.5) * jobs[job].stride;
    candidates[image * options.capacity + index] = Candidate(
        x - distance_of(job, 0u, cell, image), y - distance_of(job, 1u, cell, image),
        x + distance_of(job, 2u, cell, image), y + distance_of(job, 3u, cell, image),
        confidence, class_index, order, 0u,
    );
}

@compute @workgroup_size(64)
fn decode(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) count: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let group = group_index(id, count);
    let job = find_job(group);
    let cells = jobs[job].out_width * jobs[job].out_height;
    let cell = (group - jobs[job].first_group) * 64u + thread;
    if cell >= cells {
        return;
    }
    let image = id.z;
    let classes = jobs[job].out_channels;
    let before = jobs[job].chunks; // cells of the scales before
    var best = -3.0e38;
    var best_class = NONE;
    for (var class_index = 0u; class_index < classes; class_index++) {
        if !is_allowed(class_index) {
            continue;
        }
        let logit = value_at(plane_of(jobs[job].inputs, class_index, image) + cell);
        if options.multi_label == 1u {
            let confidence = sigmoid(logit);
            if confidence >= options.confidence {
                report(job, cell, class_index, confidence, before * classes + class_index * cells + cell, image);
            }
        } else if logit > best {
            best = logit;
            best_class = class_index;
        }
    }
    if best_class != NONE && sigmoid(best) >= options.confidence {
        report(job, cell, best_class, sigmoid(best), before + cell, image);
    }
}
