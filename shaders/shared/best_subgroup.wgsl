// The best candidate of a workgroup of 256 threads, as in best.wgsl: each subgroup finds its own without workgroup memory,
// then one thread looks through theirs. Two barriers instead of nine.

struct Team {
    @builtin(local_invocation_index) thread: u32,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(num_subgroups) subgroups: u32,
    @builtin(subgroup_invocation_id) lane: u32,
}

/// One for each subgroup, which has at least one thread.
var<workgroup> best_confidence: array<f32, 256>;
var<workgroup> best_order: array<u32, 256>;
var<workgroup> best_index: array<u32, 256>;

/// Leaves the winner in element 0 of the three arrays; every thread must come here.
fn find_best(team: Team, confidence: f32, order: u32, index: u32) {
    let most = subgroupMax(confidence);
    let first = subgroupMin(select(0xffffffffu, order, confidence == most));
    let winner = subgroupMin(select(0xffffffffu, index, confidence == most && order == first));
    if team.lane == 0u {
        best_confidence[team.subgroup] = most;
        best_order[team.subgroup] = first;
        best_index[team.subgroup] = winner;
    }
    workgroupBarrier();
    if team.thread == 0u {
        for (var other = 1u; other < team.subgroups; other++) {
            if best_confidence[other] > best_confidence[0]
                || (best_confidence[other] == best_confidence[0] && best_order[other] < best_order[0]) {
                best_confidence[0] = best_confidence[other];
                best_order[0] = best_order[other];
                best_index[0] = best_index[other];
            }
        }
    }
    workgroupBarrier();
}
