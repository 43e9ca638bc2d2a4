// Depthwise convolution at four neighbouring positions, with what comes before (a sum) and after it folded in.

/// Side of the window: 3 or 5.
override KERNEL: u32 = 3u;
/// 1 or 2.
override STRIDE: u32 = 1u;

/// One value of the input, the second input added; zero outside.
fn padded_at(job: u32, plane: u32, second: u32, x: i32, y: i32) -> f32 {
    let width = jobs[job].in_width;
    if x < 0 || y < 0 || x >= i32(width) || y >= i32(jobs[job].in_height) {
        return 0.0;
    }
    var value = value_at(plane + u32(y) * width + u32(x));
    if second != NONE {
        let shift = jobs[job].second_shift;
        value += value_at(second + (u32(y) >> shift) * (width >> shift) + (u32(x) >> shift));
    }
    return value;
}

fn window_quad(job: u32, channel: u32, quad: u32, image: u32) -> vec4<f32> {
    let plane = plane_of(jobs[job].inputs, channel, image);
    var second = NONE;
    if jobs[job].second != NONE {
        second = plane_of(jobs[job].second, channel, image);
    }
    var bias = 0.0;
    if jobs[job].window_bias != NONE {
        bias = weights[jobs[job].window_bias + channel];
    }
    let filter_at = jobs[job].window_weight + channel * KERNEL * KERNEL;
    let width = jobs[job].out_width;
    let reach = i32(KERNEL / 2u);
    var result = vec4(bias);
    for (var part = 0u; part < 4u; part++) {
        let position = quad * 4u + part;
        let x = i32(position % width * STRIDE) - reach;
        let y = i32(position / width * STRIDE) - reach;
        var sum = bias;
        for (var dy = 0u; dy < KERNEL; dy++) {
            for (var dx = 0u; dx < KERNEL; dx++) {
                let weight = weights[filter_at + dy * KERNEL + dx];
                sum += weight * padded_at(job, plane, second, x + i32(dx), y + i32(dy));
            }
        }
        result[part] = sum;
    }
    result = leaky(result, jobs[job].window_slope);
    if jobs[job].window_residual != NONE {
        result += arena[plane_of(jobs[job].window_residual, channel, image) / 4u + quad];
    }
    return result;
}
