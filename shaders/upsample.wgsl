// Each value twice in both directions.
// #import shared/network.wgsl

@compute @workgroup_size(64)
fn upsample(
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
    let plane = plane_of(jobs[job].inputs, channel, id.z);
    let width = jobs[job].out_width;
    var value = vec4(0.0);
    for (var part = 0u; part < 4u; part++) {
        let position = quad * 4u + part;
        // Padding beyond the last row repeats it.
        let y = min(position / width, jobs[job].out_height - 1u);
        value[part] = value_at(plane + y / 2u * jobs[job].in_width + position % width / 2u);
    }
    arena[plane_of(jobs[job].outputs, channel, id.z) / 4u + quad] = value;
}
