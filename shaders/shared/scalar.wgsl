// What tiles in workgroup memory hold: 32-bit floats. The variant of the same name with _f16 halves them.

alias tile_scalar = f32;
alias tile_quad = vec4<f32>;

fn into_tile(value: f32) -> tile_scalar {
    return value;
}

fn quad_into_tile(value: vec4<f32>) -> tile_quad {
    return value;
}
