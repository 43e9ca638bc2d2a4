// 1x1 convolution: a matrix product of weights (out_channels, in_channels) and planes (in_channels, positions).
// Gated: the input is u * silu(g) of two lists of planes.
// #import shared/network.wgsl
// #import shared/scalar.wgsl
// #import shared/product.wgsl
// #import shared/residual.wgsl
// #import shared/doubled.wgsl

override GATED: bool = false;

fn input_quad(job: u32, k: u32, quad: u32, image: u32) -> vec4<f32> {
    let plane = plane_of(jobs[job].inputs, k, image);
    var value = arena[plane / 4u + quad];
    if DOUBLED && (plane & 1u) != 0u {
        let width = jobs[job].out_width;
        for (var part = 0u; part < 4u; part++) {
            let position = quad * 4u + part;
            // Padding beyond the last row repeats it.
            let y = min(position / width, jobs[job].out_height - 1u);
            value[part] = value_at(place_of(plane, position % width, y, width));
        }
    }
    if !GATED {
        return value;
    }
    let gate = arena[plane_of(jobs[job].second, k, image) / 4u + quad];
    return value * gate / (1.0 + exp(-gate));
}

@compute @workgroup_size(128)
fn pointwise(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) count: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let group = group_index(id, count);
    let job = find_job(group);
    product(job, group - jobs[job].first_group, id.z, thread, jobs[job].in_channels);
}
