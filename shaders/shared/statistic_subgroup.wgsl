// What the features of the keys are measured from, as in statistic.wgsl: a subgroup takes a channel, its lanes
// neighbouring keys, and they need no workgroup memory to agree.

struct Team {
    @builtin(local_invocation_index) thread: u32,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(num_subgroups) subgroups: u32,
    @builtin(subgroup_invocation_id) lane: u32,
    @builtin(subgroup_size) lanes: u32,
}

/// Keys whose mean is the centre of distances.
const SAMPLE = 256u;

/// Of channels.
var<workgroup> statistic: array<f32, 32>;

/// Fills `statistic` from the keys first..end, or for distances from some of all; every thread must come here.
fn gather_statistic(job: u32, head: u32, first: u32, end: u32, image: u32, team: Team) {
    var step = 1u;
    var begin = first;
    var to = end;
    if SIMILARITY != 0u {
        to = jobs[job].out_width * jobs[job].out_height;
        begin = 0u;
        step = max(to / SAMPLE, 1u);
    }
    // All subgroups go round equally often, so that no lane is missing where lanes agree.
    let rounds = (HEAD + team.subgroups - 1u) / team.subgroups;
    for (var round = 0u; round < rounds; round++) {
        let channel = min(round * team.subgroups + team.subgroup, HEAD - 1u);
        var value = channel_at(job, 1u, head, channel, begin, image);
        if SIMILARITY != 0u {
            value = 0.0;
        }
        for (var position = begin + team.lane * step; position < to; position += team.lanes * step) {
            let key = channel_at(job, 1u, head, channel, position, image);
            value = select(value + key, max(value, key), SIMILARITY == 0u);
        }
        let most = subgroupMax(value);
        let sum = subgroupAdd(value) / f32((to - begin + step - 1u) / step);
        if team.lane == 0u {
            statistic[channel] = select(sum, most, SIMILARITY == 0u) * jobs[job].scale;
        }
    }
    workgroupBarrier();
}
