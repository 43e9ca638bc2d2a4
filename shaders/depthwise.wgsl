// Depthwise convolution whose result more than one operation needs.
// #import shared/network.wgsl
// #import shared/window.wgsl

@compute @workgroup_size(64)
fn depthwise(
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
    let value = window_quad(job, channel, quad, id.z);
    arena[plane_of(jobs[job].outputs, channel, id.z) / 4u + quad] = value;
}
