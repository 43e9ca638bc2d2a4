// Antialiased bilinear resize into the letterbox: each output pixel is the mean of the input pixels under a triangle
// as wide as two output pixels, rows first, then columns, rounded to whole steps after each as the CPU does. Weights are
// integers from a table that the CPU made: results are the CPU's to the last bit.
// The importer gives `pixel`: RGB in 0..255.

struct Geometry {
    size: vec2<u32>, // width, height
    resized: vec2<u32>, // of the image in the network's input
    offset: vec2<u32>, // of its left upper corner
    network: vec2<u32>, // size of the input
    input: u32, // first float of the input's planes in the arena
    plane: u32, // floats from one plane to the next
    image: u32, // which image of the batch
    grey: f32, // of the border
    bits: vec2<u32>, // behind the point of a weight, for columns and rows
    rows: u32, // where the rows' weights begin in `taps`
}

@group(1) @binding(0) var<uniform> geometry: Geometry;

/// For each column and then for each row of the resized image: the first input pixel, and where its weights begin and
/// end, counted from the columns' or rows' beginning; the weights follow.
@group(1) @binding(2) var<storage, read> taps: array<i32>;

fn narrow(sum: vec3<i32>, bits: u32) -> vec3<i32> {
    return clamp((sum + (1i << (bits - 1u))) >> vec3(bits), vec3(0i), vec3(255i));
}

fn resized(at: vec2<u32>) -> vec3<f32> {
    let column = 3u * at.x;
    let row = geometry.rows + 3u * at.y;
    let first = vec2(u32(taps[column]), u32(taps[row]));
    let columns = vec2(u32(taps[column + 1u]), u32(taps[column + 2u]));
    let rows = geometry.rows + vec2(u32(taps[row + 1u]), u32(taps[row + 2u]));
    var sum = vec3(0i);
    for (var x = columns.x; x < columns.y; x++) {
        var of_column = vec3(0i);
        for (var y = rows.x; y < rows.y; y++) {
            of_column += taps[y] * vec3<i32>(round(pixel(first.x + x - columns.x, first.y + y - rows.x)));
        }
        sum += taps[x] * narrow(of_column, geometry.bits.y);
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
