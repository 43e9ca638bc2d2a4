// Antialiased bilinear resize into the letterbox: each output pixel is the mean of the input pixels under a triangle
// as wide as two output pixels, columns first, then rows, rounded to whole steps after each as the CPU does.
// Weights are whole multiples of a power of two, sums are integers: the results are those of the CPU, but for weights that
// 32-bit floats round to the other side. The importer gives `pixel`: RGB in 0..255.

struct Geometry {
    picture: vec2<u32>, // width, height
    resized: vec2<u32>, // of the picture in the network's input
    offset: vec2<u32>, // of its left upper corner
    network: vec2<u32>, // size of the input
    input: u32, // first float of the input's planes in the arena
    plane: u32, // floats from one plane to the next
    image: u32, // which picture of the batch
    grey: f32, // of the border
    bits: vec2<u32>, // behind the point of a weight, for columns and rows
}

@group(1) @binding(0) var<uniform> geometry: Geometry;

/// First pixel and one past the last under the triangle of an output pixel.
struct Footprint {
    first: u32,
    end: u32,
    center: f32,
    width: f32,
}

fn footprint(at: u32, input: u32, output: u32) -> Footprint {
    let scale = f32(input) / f32(output);
    let width = max(scale, 1.0);
    let center = (f32(at) + 0.5) * scale;
    let first = u32(max(floor(center - width), 0.0));
    let end = min(u32(ceil(center + width)), input);
    return Footprint(first, end, center, width);
}

fn triangle(shape: Footprint, at: u32) -> f32 {
    return max(1.0 - abs((f32(at) + 0.5 - shape.center) / shape.width), 0.0);
}

fn total(shape: Footprint) -> f32 {
    var sum = 0.0;
    for (var at = shape.first; at < shape.end; at++) {
        sum += triangle(shape, at);
    }
    return sum;
}

/// A weight as an integer with `bits` behind the point.
fn fixed(weight: f32, bits: u32) -> i32 {
    return i32(floor(weight * f32(1u << bits) + 0.5));
}

fn narrow(sum: vec3<i32>, bits: u32) -> vec3<i32> {
    return clamp((sum + (1i << (bits - 1u))) >> vec3(bits), vec3(0i), vec3(255i));
}

fn resized(at: vec2<u32>) -> vec3<f32> {
    let columns = footprint(at.x, geometry.picture.x, geometry.resized.x);
    let rows = footprint(at.y, geometry.picture.y, geometry.resized.y);
    let column_factor = 1.0 / total(columns);
    let row_factor = 1.0 / total(rows);
    var sum = vec3(0i);
    for (var x = columns.first; x < columns.end; x++) {
        let weight = fixed(triangle(columns, x) * column_factor, geometry.bits.x);
        if weight == 0 {
            continue;
        }
        var column = vec3(0i);
        for (var y = rows.first; y < rows.end; y++) {
            column += fixed(triangle(rows, y) * row_factor, geometry.bits.y) * vec3<i32>(round(pixel(x, y)));
        }
        sum += weight * narrow(column, geometry.bits.y);
    }
    return vec3<f32>(narrow(sum, geometry.bits.x));
}

/// One pixel of the network's input.
fn fill(at: vec2<u32>) {
    if at.x >= geometry.network.x || at.y >= geometry.network.y {
        return;
    }
    var value = vec3(geometry.grey);
    let inside = at - geometry.offset;
    if at.x >= geometry.offset.x && at.y >= geometry.offset.y
        && inside.x < geometry.resized.x && inside.y < geometry.resized.y {
        value = resized(inside) * (1.0 / 255.0);
    }
    let position = geometry.image * dispatch.image_stride + geometry.input + at.y * geometry.network.x + at.x;
    store(position, value.x);
    store(position + geometry.plane, value.y);
    store(position + 2u * geometry.plane, value.z);
}
