// Exact linear attention, query side, where its result is needed by itself: a head and 64 positions a workgroup.
// #import shared/network.wgsl
// #import shared/features.wgsl
// #import shared/query.wgsl

@compute @workgroup_size(64)
fn attention_query(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) count: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let group = group_index(id, count);
    let job = find_job(group);
    let image = id.z;
    let tokens = jobs[job].out_width * jobs[job].out_height;
    let blocks = (tokens + THREADS - 1u) / THREADS;
    let index = group - jobs[job].first_group;
    if index >= blocks * jobs[job].parts {
        return;
    }
    let head = index / blocks;
    let position = index % blocks * THREADS + thread;
    gather_state(job, head, image, thread);
    if position >= tokens {
        return;
    }
    let result = attend(job, head, position, image);
    for (var channel = 0u; channel < HEAD; channel++) {
        store(plane_of(jobs[job].outputs, head * HEAD + channel, image) + position, result[channel]);
    }
}
