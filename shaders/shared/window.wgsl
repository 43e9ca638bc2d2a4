// Depthwise convolution at four neighbouring positions, with what comes before (a sum) and after it folded in. The
// importer imports doubled.wgsl.

/// Side of the window, odd.
override KERNEL: u32 = 3u;
/// 1 or 2.
override STRIDE: u32 = 1u;

/// One value of a plane, that of a second one added unless that is NONE; zero outside.
fn padded_at(job: u32, plane: vec2<u32>, x: i32, y: i32) -> f32 {
    let width = jobs[job].in_width;
    if x < 0 || y < 0 || x >= i32(width) || y >= i32(jobs[job].in_height) {
        return 0.0;
    }
    var value = value_at(place_of(plane.x, u32(x), u32(y), width));
    if plane.y != NONE {
        let shift = jobs[job].second_shift;
        value += value_at(plane.y + (u32(y) >> shift) * (width >> shift) + (u32(x) >> shift));
    }
    return value;
}

/// A filter (side, side), moved by steps of a stride, over a plane and what is added to it.
fn window_sums(job: u32, plane: vec2<u32>, side_and_stride: vec2<u32>, filter_at: u32, bias: f32, quad: u32) -> vec4<f32> {
    let side = side_and_stride.x;
    let stride = side_and_stride.y;
    let width = jobs[job].out_width;
    let reach = i32(side / 2u);
    var result = vec4(bias);
    if width % 4u == 0u && side + 3u * stride <= 11u {
        // The four are neighbours in a row: what their windows see of a row is read once, for windows of 5 at stride 2 and those that
        // see less.
        let x = i32(quad * 4u % width * stride) - reach;
        let y = i32(quad * 4u / width * stride) - reach;
        for (var dy = 0u; dy < side; dy++) {
            var row: array<f32, 11>;
            for (var at = 0u; at < side + 3u * stride; at++) {
                row[at] = padded_at(job, plane, x + i32(at), y + i32(dy));
            }
            for (var dx = 0u; dx < side; dx++) {
                let values = vec4(row[dx], row[dx + stride], row[dx + 2u * stride], row[dx + 3u * stride]);
                result += weights[filter_at + dy * side + dx] * values;
            }
        }
        return result;
    }
    for (var part = 0u; part < 4u; part++) {
        let position = quad * 4u + part;
        let x = i32(position % width * stride) - reach;
        let y = i32(position / width * stride) - reach;
        var sum = bias;
        for (var dy = 0u; dy < side; dy++) {
            for (var dx = 0u; dx < side; dx++) {
                sum += weights[filter_at + dy * side + dx] * padded_at(job, plane, x + i32(dx), y + i32(dy));
            }
        }
        result[part] = sum;
    }
    return result;
}

fn window_quad(job: u32, channel: u32, quad: u32, image: u32) -> vec4<f32> {
    var plane = vec2(plane_of(jobs[job].inputs, channel, image), NONE);
    if jobs[job].second != NONE {
        plane.y = plane_of(jobs[job].second, channel, image);
    }
    let bias = bias_at(jobs[job].window_bias, channel);
    let filter_at = jobs[job].window_weight + channel * KERNEL * KERNEL;
    var result = leaky(window_sums(job, plane, vec2(KERNEL, STRIDE), filter_at, bias, quad), jobs[job].window_slope);
    if jobs[job].window_residual != NONE {
        result += arena[plane_of(jobs[job].window_residual, channel, image) / 4u + quad];
    }
    return result;
}
