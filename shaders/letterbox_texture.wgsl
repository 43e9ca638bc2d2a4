// An image in a texture, as a window shows it, into the network's input.
// #import shared/network.wgsl
// #import shared/resize.wgsl

@group(1) @binding(1) var source: texture_2d<f32>;

fn pixel(x: u32, y: u32) -> vec3<f32> {
    return round(textureLoad(source, vec2(x, y), 0).rgb * 255.0);
}

@compute @workgroup_size(8, 8)
fn letterbox_texture(@builtin(global_invocation_id) id: vec3<u32>) {
    fill(id.xy);
}
