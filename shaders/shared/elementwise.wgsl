// Kernels that compute each value of the output by itself, four neighbouring positions a thread of 64. The importer gives
// `output_quad`: those of one channel of one image.

fn each_quad(id: vec3<u32>, count: vec3<u32>, thread: u32) {
    let group = group_index(id, count);
    let job = find_job(group);
    let quads = quads_of(jobs[job].out_width, jobs[job].out_height);
    let item = (group - jobs[job].first_group) * 64u + thread;
    if item >= quads * jobs[job].out_channels {
        return;
    }
    let channel = item / quads;
    let quad = item % quads;
    arena[plane_of(jobs[job].outputs, channel, id.z) / 4u + quad] = output_quad(job, channel, quad, id.z);
}
