// What the features of the keys are measured from: the largest value of every channel for exponentials, the mean of some
// keys for distances. Parts of the keys a thread, joined through workgroup memory; the variant of the same name with
// _subgroup reads whole rows.

struct Team {
    @builtin(local_invocation_index) thread: u32,
}

/// Keys whose mean is the centre of distances.
const SAMPLE = 256u;

/// Of parts of the keys, then of channels.
var<workgroup> partial: array<f32, 64>;
var<workgroup> statistic: array<f32, 32>;

/// Fills `statistic` from the keys first..end, or for distances from some of all; every thread must come here.
fn gather_statistic(job: u32, head: u32, first: u32, end: u32, image: u32, team: Team) {
    let thread = team.thread;
    let parts = THREADS / HEAD;
    let channel = thread % HEAD;
    let part = thread / HEAD;
    var step = 1u;
    var begin = first;
    var to = end;
    if SIMILARITY != 0u {
        to = jobs[job].out_width * jobs[job].out_height;
        begin = 0u;
        step = max(to / SAMPLE, 1u);
    }
    if part < parts {
        var value = channel_at(job, 1u, head, channel, begin, image);
        if SIMILARITY != 0u {
            value = 0.0;
        }
        for (var position = begin + part * step; position < to; position += parts * step) {
            let key = channel_at(job, 1u, head, channel, position, image);
            value = select(value + key, max(value, key), SIMILARITY == 0u);
        }
        partial[thread] = value;
    }
    workgroupBarrier();
    if thread < HEAD {
        var value = partial[thread];
        for (var other = 1u; other < parts; other++) {
            let next = partial[other * HEAD + thread];
            value = select(value + next, max(value, next), SIMILARITY == 0u);
        }
        if SIMILARITY != 0u {
            value /= f32((to - begin + step - 1u) / step);
        }
        statistic[thread] = value * jobs[job].scale;
    }
    workgroupBarrier();
}
