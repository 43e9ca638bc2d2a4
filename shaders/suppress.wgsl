// Greedy non-maximum suppression, one workgroup a picture: the most confident candidate is taken, those that overlap
// it go, and again.
// #import shared/network.wgsl
// #import shared/detections.wgsl
// #import shared/best.wgsl

const WORKERS = 256u;

fn overlap(a: Candidate, b: Candidate) -> f32 {
    let width = max(min(a.x2, b.x2) - max(a.x1, b.x1), 0.0);
    let height = max(min(a.y2, b.y2) - max(a.y1, b.y1), 0.0);
    let shared_area = width * height;
    let area_a = max(a.x2 - a.x1, 0.0) * max(a.y2 - a.y1, 0.0);
    let area_b = max(b.x2 - b.x1, 0.0) * max(b.y2 - b.y1, 0.0);
    let total = area_a + area_b - shared_area;
    return select(0.0, shared_area / total, total > 0.0);
}

@compute @workgroup_size(256)
fn suppress(@builtin(workgroup_id) id: vec3<u32>, team: Team) {
    let thread = team.thread;
    let image = id.z;
    let first = image * options.capacity;
    let end = first + min(atomicLoad(&counts[image]), options.capacity);
    let output = image * (options.max_detections + 1u);
    var found = 0u;
    loop {
        var confidence = -1.0;
        var order = NONE;
        var index = NONE;
        for (var at = first + thread; at < end; at += WORKERS) {
            let other = candidates[at].confidence;
            if other > confidence || (other == confidence && other >= 0.0 && candidates[at].order < order) {
                confidence = other;
                order = candidates[at].order;
                index = at;
            }
        }
        find_best(team, confidence, order, index);
        let winner = workgroupUniformLoad(&best_index[0]);
        if winner == NONE || found == options.max_detections {
            break;
        }
        let taken = candidates[winner];
        found++;
        if thread == 0u {
            detections[output + found] = taken;
            // The winner's own number, before it counts as suppressed.
            detections[output + found].confidence = best_confidence[0];
        }
        workgroupBarrier();
        for (var at = first + thread; at < end; at += WORKERS) {
            let other = candidates[at];
            let rival = options.agnostic == 1u || other.class_index == taken.class_index;
            if at == winner || (rival && overlap(taken, other) > options.iou) {
                candidates[at].confidence = -1.0;
            }
        }
    }
    if thread == 0u {
        detections[output].class_index = found;
    }
}
