// Greedy non-maximum suppression, one workgroup an image: the most confident candidate is taken, those that overlap
// it go, and again. Those of its class that go vote for it: they confirm it and draw its corners to theirs
// (the formula is at `suppress` in src/postprocess.rs).
// #import shared/network.wgsl
// #import shared/detections.wgsl
// #import shared/best.wgsl

const WORKERS = 256u;

/// Votes for a box.
struct Votes {
    corners: vec4<f32>, // sum of weighted ones
    weight: f32, // sum
    all_wrong: f32, // how probable it is that all are wrong
}

var<workgroup> votes: array<Votes, WORKERS>;
/// How many may vote.
var<workgroup> voters: atomic<u32>;
var<workgroup> voter_count: u32;

fn corners_of(box: Candidate) -> vec4<f32> {
    return vec4(box.x1, box.y1, box.x2, box.y2);
}

fn overlap(a: Candidate, b: Candidate) -> f32 {
    let width = max(min(a.x2, b.x2) - max(a.x1, b.x1), 0.0);
    let height = max(min(a.y2, b.y2) - max(a.y1, b.y1), 0.0);
    let shared_area = width * height;
    let area_a = max(a.x2 - a.x1, 0.0) * max(a.y2 - a.y1, 0.0);
    let area_b = max(b.x2 - b.x1, 0.0) * max(b.y2 - b.y1, 0.0);
    let total = area_a + area_b - shared_area;
    return select(0.0, shared_area / total, total > 0.0);
}

/// Leaves the sum of all threads' votes in element 0; every thread must come here.
fn count_votes(thread: u32) {
    workgroupBarrier();
    for (var half = WORKERS / 2u; half > 0u; half /= 2u) {
        if thread < half {
            let other = votes[thread + half];
            votes[thread].corners += other.corners;
            votes[thread].weight += other.weight;
            votes[thread].all_wrong *= other.all_wrong;
        }
        workgroupBarrier();
    }
}

/// Leaves in `voter` of the first candidates the indices of those that may vote, and gives their number. They are sorted by `order`
/// (bitonic sort, every comparison upwards), so that votes are always summed up in the same order: decoding leaves the candidates
/// as they happened to come. Every thread must come here.
fn find_voters(thread: u32, first: u32, end: u32) -> u32 {
    for (var at = first + thread; at < end; at += WORKERS) {
        if candidates[at].confidence >= options.least_voter {
            candidates[first + atomicAdd(&voters, 1u)].voter = at;
        }
    }
    workgroupBarrier();
    if thread == 0u {
        voter_count = atomicLoad(&voters);
    }
    let count = workgroupUniformLoad(&voter_count);
    storageBarrier();
    for (var size = 2u; size < 2u * count; size *= 2u) {
        for (var mask = size - 1u; mask > 0u; mask = min(mask / 2u, size / 4u)) {
            for (var place = thread; place < count; place += WORKERS) {
                let partner = place ^ mask;
                if partner < place || partner >= count {
                    continue;
                }
                let low = candidates[first + place].voter;
                let high = candidates[first + partner].voter;
                if candidates[low].order > candidates[high].order {
                    candidates[first + place].voter = high;
                    candidates[first + partner].voter = low;
                }
            }
            storageBarrier();
        }
    }
    return count;
}

@compute @workgroup_size(256)
fn suppress(@builtin(workgroup_id) id: vec3<u32>, team: Team) {
    let thread = team.thread;
    let image = id.z;
    let first = image * options.capacity;
    let end = first + min(atomicLoad(&counts[image]), options.capacity);
    let output = image * (options.max_detections + 1u);
    let voter_end = first + find_voters(thread, first, end);
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
        var taken = candidates[winner];
        found++;
        // What was suppressed before, and who may vote, is seen by all threads from here on.
        storageBarrier();
        if options.least_voter <= 1.0 {
            var own = Votes(vec4(0.0), 0.0, 1.0);
            for (var place = first + thread; place < voter_end; place += WORKERS) {
                let at = candidates[place].voter;
                let other = candidates[at];
                let part = overlap(taken, other);
                if at != winner && other.class_index == taken.class_index && other.confidence >= 0.0 && part > options.iou {
                    let root = other.confidence * part * part;
                    own.corners += root * root * corners_of(other);
                    own.weight += root * root;
                    own.all_wrong *= 1.0 - other.confidence;
                }
            }
            votes[thread] = own;
            count_votes(thread);
        }
        workgroupBarrier();
        for (var at = first + thread; at < end; at += WORKERS) {
            let other = candidates[at];
            let rival = options.agnostic == 1u || other.class_index == taken.class_index;
            if at == winner || (rival && overlap(taken, other) > options.iou) {
                candidates[at].confidence = -1.0;
            }
        }
        if thread == 0u {
            if options.least_voter <= 1.0 {
                let weight = votes[0].weight;
                let all_wrong = votes[0].all_wrong * (1.0 - taken.confidence);
                let own = taken.confidence * taken.confidence;
                // Without voters the box stays where it is.
                let mean = (votes[0].corners + own * corners_of(taken)) / (weight + own);
                let corners = select(corners_of(taken), mean, weight > 0.0);
                taken = Candidate(
                    corners.x, corners.y, corners.z, corners.w,
                    taken.confidence * (1.0 - all_wrong), taken.class_index, taken.order, taken.voter,
                );
            }
            detections[output + found] = taken;
        }
    }
    if thread == 0u {
        detections[output].class_index = found;
    }
}
