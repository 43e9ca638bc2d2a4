// Gates of experts: of the softmax over the channels of a position the ACTIVE largest, the first of equal ones; of several the sum is 1.
// Where EQUAL is 1 those are all 1 instead.
// #import shared/network.wgsl
// #import shared/elementwise.wgsl

override ACTIVE: u32 = 1u;
override EQUAL: u32 = 0u;

fn score(job: u32, channel: u32, quad: u32, image: u32) -> vec4<f32> {
    return arena[plane_of(jobs[job].inputs, channel, image) / 4u + quad];
}

// 1 where at most ACTIVE - 1 channels come before this one.
fn chosen(job: u32, channel: u32, quad: u32, image: u32) -> vec4<f32> {
    let own = score(job, channel, quad, image);
    var before = vec4<f32>(0.0);
    for (var other = 0u; other < jobs[job].in_channels; other += 1u) {
        let value = score(job, other, quad, image);
        let is_before = (value > own) | ((value == own) & vec4<bool>(other < channel));
        before += select(vec4<f32>(0.0), vec4<f32>(1.0), is_before);
    }
    return select(vec4<f32>(0.0), vec4<f32>(1.0), before < vec4<f32>(f32(ACTIVE)));
}

fn output_quad(job: u32, channel: u32, quad: u32, image: u32) -> vec4<f32> {
    let is_chosen = chosen(job, channel, quad, image);
    if EQUAL == 1u {
        return is_chosen;
    }
    var peak = score(job, 0u, quad, image);
    for (var other = 1u; other < jobs[job].in_channels; other += 1u) {
        peak = max(peak, score(job, other, quad, image));
    }
    var whole = vec4<f32>(0.0);
    for (var other = 0u; other < jobs[job].in_channels; other += 1u) {
        var share = exp(score(job, other, quad, image) - peak);
        if ACTIVE > 1u {
            share *= chosen(job, other, quad, image);
        }
        whole += share;
    }
    return is_chosen * exp(score(job, channel, quad, image) - peak) / whole;
}

@compute @workgroup_size(64)
fn route(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) count: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    each_quad(id, count, thread);
}
