// u * silu(g).
// #import shared/network.wgsl
// #import shared/elementwise.wgsl

fn output_quad(job: u32, channel: u32, quad: u32, image: u32) -> vec4<f32> {
    let u = arena[plane_of(jobs[job].inputs, channel, image) / 4u + quad];
    let g = arena[plane_of(jobs[job].second, channel, image) / 4u + quad];
    return u * g / (1.0 + exp(-g));
}

@compute @workgroup_size(64)
fn gate(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) count: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    each_quad(id, count, thread);
}
