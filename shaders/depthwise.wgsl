// Depthwise convolution whose result more than one operation needs.
// #import shared/network.wgsl
// #import shared/elementwise.wgsl
// #import shared/doubled.wgsl
// #import shared/window.wgsl

fn output_quad(job: u32, channel: u32, quad: u32, image: u32) -> vec4<f32> {
    return window_quad(job, channel, quad, image);
}

@compute @workgroup_size(64)
fn depthwise(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) count: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    each_quad(id, count, thread);
}
