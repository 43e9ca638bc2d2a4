// Dense convolution as a matrix product: weights (out_channels, in_channels * KERNEL * KERNEL), inputs gathered.
// #import shared/network.wgsl
// #import shared/scalar.wgsl
// #import shared/product.wgsl
// #import shared/residual.wgsl

/// Odd side of the window.
override KERNEL: u32 = 3u;
/// 1 or 2.
override STRIDE: u32 = 1u;

fn input_quad(job: u32, k: u32, quad: u32, image: u32) -> vec4<f32> {
    let area = KERNEL * KERNEL;
    let plane = plane_of(jobs[job].inputs, k / area, image);
    let reach = i32(KERNEL / 2u);
    let dy = i32(k % area / KERNEL) - reach;
    let dx = i32(k % area % KERNEL) - reach;
    var result = vec4(0.0);
    for (var part = 0u; part < 4u; part++) {
        let position = quad * 4u + part;
        let x = i32(position % jobs[job].out_width * STRIDE) + dx;
        let y = i32(position / jobs[job].out_width * STRIDE) + dy;
        if x >= 0 && y >= 0 && x < i32(jobs[job].in_width) && y < i32(jobs[job].in_height) {
            result[part] = value_at(plane + u32(y) * jobs[job].in_width + u32(x));
        }
    }
    return result;
}

@compute @workgroup_size(128)
fn convolution(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) count: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let group = group_index(id, count);
    let job = find_job(group);
    product(job, group - jobs[job].first_group, id.z, thread, jobs[job].in_channels * KERNEL * KERNEL);
}
