// Feature maps of the kernels of exact linear attention: k(q, k) = phi(q) . psi(k), for every finite input.

/// 0: sum_d exp(a_d) exp(b_d); 1: |a + b|^2; 2: |a - b|^2; 3: (cos(a, b) + 1) (|a|^2 + 1) (|b|^2 + 1).
override SIMILARITY: u32 = 0u;
/// Channels of a head, at most MOST_HEAD.
override HEAD: u32 = 16u;

const MOST_HEAD = 32u;
const MOST_FEATURES = 34u;
/// Threads of a workgroup.
const THREADS = 64u;

fn feature_count() -> u32 {
    return select(HEAD + 2u, HEAD, SIMILARITY == 0u);
}

/// Floats that one chunk of keys leaves: a statistic of each channel, then (features, HEAD + 1) sums of psi times the
/// values and, in the last column, of psi alone.
fn state_size() -> u32 {
    return MOST_HEAD + feature_count() * (HEAD + 1u);
}

/// Where the state of a chunk lies in the arena.
fn state_of(job: u32, head: u32, chunk: u32, image: u32) -> u32 {
    let index = head * jobs[job].chunks + chunk;
    return index * state_size() + image * dispatch.image_stride;
}

fn channel_at(job: u32, part: u32, head: u32, channel: u32, position: u32, image: u32) -> f32 {
    let index = (part * jobs[job].parts + head) * HEAD + channel;
    return value_at(plane_of(jobs[job].inputs, index, image) + position);
}
