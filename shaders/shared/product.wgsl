// Matrix product of weights (out_channels, DEPTH of the importer) and inputs (depth, positions), 64 outputs by 32
// positions for each workgroup of 8 x 16 threads; a thread has 4 outputs of 4 positions. The importer gives
// `input_quad` and `residual_quad`: 4 neighbouring positions of one row of the inputs, and of what is added to one of the outputs;
// and imports scalar.wgsl.

const COLUMNS = 8u;
const ROWS = 16u;
const SLICE = 16u;

/// (slice, columns)
var<workgroup> input_tile: array<tile_quad, 128>;
/// (slice, rows): four outputs each
var<workgroup> weight_tile: array<tile_quad, 256>;

fn weight_at(job: u32, row: u32, depth: u32, k: u32) -> f32 {
    if row >= jobs[job].out_channels || k >= depth {
        return 0.0;
    }
    return weights[jobs[job].weight + row * depth + k];
}

fn product(job: u32, group: u32, image: u32, thread: u32, depth: u32) {
    let quads = quads_of(jobs[job].out_width, jobs[job].out_height);
    let tiles = (quads + COLUMNS - 1u) / COLUMNS;
    let first_quad = group % tiles * COLUMNS;
    let first_row = group / tiles * ROWS * 4u;
    let column = thread % COLUMNS;
    let row = thread / COLUMNS;
    let quad = first_quad + column;
    var sums: array<vec4<f32>, 4>;
    for (var start = 0u; start < depth; start += SLICE) {
        let k = start + row;
        if k < depth && quad < quads {
            input_tile[thread] = quad_into_tile(input_quad(job, k, quad, image));
        } else {
            input_tile[thread] = tile_quad();
        }
        for (var part = 0u; part < 2u; part++) {
            // Neighbouring threads read neighbouring weights.
            let at = thread + part * 128u;
            let output = first_row + at / SLICE * 4u;
            let k = start + at % SLICE;
            weight_tile[at % SLICE * ROWS + at / SLICE] = quad_into_tile(vec4(
                weight_at(job, output, depth, k), weight_at(job, output + 1u, depth, k),
                weight_at(job, output + 2u, depth, k), weight_at(job, output + 3u, depth, k),
            ));
        }
        workgroupBarrier();
        for (var k = 0u; k < SLICE; k++) {
            let x = vec4<f32>(input_tile[k * COLUMNS + column]);
            let w = vec4<f32>(weight_tile[k * ROWS + row]);
            sums[0] += w.x * x;
            sums[1] += w.y * x;
            sums[2] += w.z * x;
            sums[3] += w.w * x;
        }
        workgroupBarrier();
    }
    if quad >= quads {
        return;
    }
    for (var part = 0u; part < 4u; part++) {
        let output = first_row + row * 4u + part;
        if output < jobs[job].out_channels {
            var value = leaky(sums[part] + bias_at(jobs[job].bias, output), jobs[job].slope);
            if jobs[job].residual != NONE {
                value += residual_quad(job, output, quad, image);
            }
            arena[plane_of(jobs[job].outputs, output, image) / 4u + quad] = value;
        }
    }
}
