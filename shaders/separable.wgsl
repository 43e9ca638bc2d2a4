// Depthwise convolution and the pointwise one that follows it, which never meet in memory.
// #import shared/network.wgsl
// #import shared/scalar.wgsl
// #import shared/product.wgsl
// #import shared/window.wgsl

fn input_quad(job: u32, k: u32, quad: u32, image: u32) -> vec4<f32> {
    return window_quad(job, k, quad, image);
}

@compute @workgroup_size(128)
fn separable(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) count: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let group = group_index(id, count);
    let job = find_job(group);
    product(job, group - jobs[job].first_group, id.z, thread, jobs[job].in_channels);
}
