// What a product adds to its result.

fn residual_quad(job: u32, output: u32, quad: u32, image: u32) -> vec4<f32> {
    return arena[plane_of(jobs[job].residual, output, image) / 4u + quad];
}
