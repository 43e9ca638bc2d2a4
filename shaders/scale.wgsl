// a * b; the second list of planes has one for each channel of the first.
// #import shared/network.wgsl
// #import shared/elementwise.wgsl

fn output_quad(job: u32, channel: u32, quad: u32, image: u32) -> vec4<f32> {
    return arena[plane_of(jobs[job].inputs, channel, image) / 4u + quad]
        * arena[plane_of(jobs[job].second, channel, image) / 4u + quad];
}

@compute @workgroup_size(64)
fn scale(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) count: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    each_quad(id, count, thread);
}
