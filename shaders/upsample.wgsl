// Each value twice in both directions.
// #import shared/network.wgsl
// #import shared/elementwise.wgsl

fn output_quad(job: u32, channel: u32, quad: u32, image: u32) -> vec4<f32> {
    let plane = plane_of(jobs[job].inputs, channel, image);
    let width = jobs[job].out_width;
    var value = vec4(0.0);
    for (var part = 0u; part < 4u; part++) {
        let position = quad * 4u + part;
        // Padding beyond the last row repeats it.
        let y = min(position / width, jobs[job].out_height - 1u);
        value[part] = value_at(plane + y / 2u * jobs[job].in_width + position % width / 2u);
    }
    return value;
}

@compute @workgroup_size(64)
fn upsample(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) count: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    each_quad(id, count, thread);
}
