enable f16;
// What tiles in workgroup memory hold: 16-bit floats, where the adapter has them. Sums stay in 32 bits. What 16 bits cannot
// hold is brought to the largest number they can, so that nothing becomes infinite.

alias tile_scalar = f16;
alias tile_quad = vec4<f16>;

const LARGEST = 65504.0;

fn into_tile(value: f32) -> tile_scalar {
    return f16(clamp(value, -LARGEST, LARGEST));
}

fn quad_into_tile(value: vec4<f32>) -> tile_quad {
    return vec4<f16>(clamp(value, vec4(-LARGEST), vec4(LARGEST)));
}
