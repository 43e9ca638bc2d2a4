// a + b.
// #import shared/network.wgsl

@compute @workgroup_size(64)
fn add(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) count: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let group = group_index(id, count);
    let job = find_job(group);
    let quads = quads_of(jobs[job].out_width, jobs[job].out_height);
    let item = (group - jobs[job].first_group) * 64u + thread;
    if item >= quads * jobs[job].out_channels {
        return;
    }
    let channel = item / quads;
    let quad = item % quads;
    let value = arena[plane_of(jobs[job].inputs, channel, id.z) / 4u + quad]
        + arena[plane_of(jobs[job].second, channel, id.z) / 4u + quad];
    arena[plane_of(jobs[job].outputs, channel, id.z) / 4u + quad] = value;
}
