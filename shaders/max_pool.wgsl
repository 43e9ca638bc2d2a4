// Maximum over a 3x3 window, stride 2; nothing outside counts.
// #import shared/network.wgsl
// #import shared/elementwise.wgsl

fn output_quad(job: u32, channel: u32, quad: u32, image: u32) -> vec4<f32> {
    let plane = plane_of(jobs[job].inputs, channel, image);
    let width = jobs[job].out_width;
    var value = vec4(0.0);
    for (var part = 0u; part < 4u; part++) {
        let position = quad * 4u + part;
        let y = min(position / width, jobs[job].out_height - 1u);
        let x = position % width;
        // The centre is always inside.
        var peak = value_at(plane + 2u * y * jobs[job].in_width + 2u * x);
        for (var row = max(2u * y, 1u) - 1u; row < min(2u * y + 2u, jobs[job].in_height); row++) {
            for (var column = max(2u * x, 1u) - 1u; column < min(2u * x + 2u, jobs[job].in_width); column++) {
                peak = max(peak, value_at(plane + row * jobs[job].in_width + column));
            }
        }
        value[part] = peak;
    }
    return value;
}

@compute @workgroup_size(64)
fn max_pool(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) count: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    each_quad(id, count, thread);
}
