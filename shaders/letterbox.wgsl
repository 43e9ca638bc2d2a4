// An image in a buffer, of any size, into the network's input.
// #import shared/network.wgsl
// #import shared/resize.wgsl

/// 0: RGB, 1: RGBA, 2: NV12, 3: YUYV; 8 bits a sample, rows without padding. YUV is BT.601, 16..235.
override FORMAT: u32 = 0u;

/// Bytes of the image.
@group(1) @binding(1) var<storage, read> source: array<u32>;

fn byte_at(index: u32) -> f32 {
    return f32((source[index / 4u] >> (index % 4u * 8u)) & 0xffu);
}

fn rgb_from_yuv(y: f32, u: f32, v: f32) -> vec3<f32> {
    let luma = 1.164384 * (y - 16.0);
    let blue = u - 128.0;
    let red = v - 128.0;
    return clamp(
        vec3(luma + 1.596027 * red, luma - 0.391762 * blue - 0.812968 * red, luma + 2.017232 * blue),
        vec3(0.0), vec3(255.0),
    );
}

fn pixel(x: u32, y: u32) -> vec3<f32> {
    let width = geometry.size.x;
    let position = y * width + x;
    switch FORMAT {
        case 0u: {
            return vec3(byte_at(3u * position), byte_at(3u * position + 1u), byte_at(3u * position + 2u));
        }
        case 1u: {
            return vec3(byte_at(4u * position), byte_at(4u * position + 1u), byte_at(4u * position + 2u));
        }
        case 2u: {
            // A plane of luma, then one of colour pairs at half the resolution.
            let pairs = width * geometry.size.y + y / 2u * ((width + 1u) / 2u * 2u) + x / 2u * 2u;
            return rgb_from_yuv(byte_at(position), byte_at(pairs), byte_at(pairs + 1u));
        }
        default: {
            // Y0 U Y1 V: two pixels share a colour.
            let pair = y * ((width + 1u) / 2u * 4u) + x / 2u * 4u;
            return rgb_from_yuv(byte_at(pair + x % 2u * 2u), byte_at(pair + 1u), byte_at(pair + 3u));
        }
    }
}

@compute @workgroup_size(8, 8)
fn letterbox(@builtin(global_invocation_id) id: vec3<u32>) {
    fill(id.xy);
}
