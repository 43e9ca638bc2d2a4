// Depthwise convolution and the pointwise one that follows it, which never meet in memory. What is added to the result may be a
// ghost, whose second half is made on the way: a depthwise 3x3 convolution of the first.
// #import shared/network.wgsl
// #import shared/scalar.wgsl
// #import shared/product.wgsl
// #import shared/doubled.wgsl
// #import shared/window.wgsl

/// Whether a ghost is added.
override GHOST: bool = false;

fn input_quad(job: u32, k: u32, quad: u32, image: u32) -> vec4<f32> {
    return window_quad(job, k, quad, image);
}

fn residual_quad(job: u32, output: u32, quad: u32, image: u32) -> vec4<f32> {
    let plane = plane_of(jobs[job].residual, output, image);
    if !GHOST || output < jobs[job].extra_channels {
        return arena[plane / 4u + quad];
    }
    let channel = output - jobs[job].extra_channels;
    let bias = bias_at(jobs[job].extra_bias, channel);
    let sums = window_sums(job, vec2(plane, NONE), vec2(3u, 1u), jobs[job].extra_weight + channel * 9u, bias, quad);
    return leaky(sums, jobs[job].extra_slope);
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
