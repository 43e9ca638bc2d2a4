// The best candidate of a workgroup of 256 threads: highest confidence, then lowest order. By halves through workgroup
// memory; the variant of the same name with _subgroup lets subgroups do most of it.

struct Team {
    @builtin(local_invocation_index) thread: u32,
}

var<workgroup> best_confidence: array<f32, 256>;
var<workgroup> best_order: array<u32, 256>;
var<workgroup> best_index: array<u32, 256>;

/// Leaves the winner in element 0 of the three arrays; every thread must come here.
fn find_best(team: Team, confidence: f32, order: u32, index: u32) {
    let thread = team.thread;
    best_confidence[thread] = confidence;
    best_order[thread] = order;
    best_index[thread] = index;
    workgroupBarrier();
    for (var half = 128u; half > 0u; half /= 2u) {
        if thread < half {
            let other = thread + half;
            if best_confidence[other] > best_confidence[thread]
                || (best_confidence[other] == best_confidence[thread] && best_order[other] < best_order[thread]) {
                best_confidence[thread] = best_confidence[other];
                best_order[thread] = best_order[other];
                best_index[thread] = best_index[other];
            }
        }
        workgroupBarrier();
    }
}
