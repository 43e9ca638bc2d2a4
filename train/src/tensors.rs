//! Order in memory and shapes of tensors.

use tch::{Device, Tensor};

/// Whether maps have their channels innermost there: libtorch's convolutions are three times as fast so on the processor. On a GPU its
/// depthwise ones take seconds a step so (H100, 2026-11-27).
pub(crate) fn channels_innermost(device: Device) -> bool {
    device == Device::Cpu
}

/// The same values in the order in memory that suits their device.
pub(crate) fn in_order(x: &Tensor) -> Tensor {
    if channels_innermost(x.device()) {
        x.permute([0, 2, 3, 1]).contiguous().permute([0, 3, 1, 2])
    } else {
        x.contiguous()
    }
}

/// The numbers of a parameter in the order in which they lie in memory.
pub(crate) fn flattened(parameter: &Tensor) -> Tensor {
    let parameter = parameter.detach();
    let innermost = parameter.dim() == 4 && channels_innermost(parameter.device());
    if innermost { parameter.permute([0, 2, 3, 1]).reshape([-1]) } else { parameter.reshape([-1]) }
}

/// A part of a vector of such numbers as a parameter of the given shape.
pub(crate) fn shaped(numbers: &Tensor, shape: &[i64]) -> Tensor {
    match *shape {
        [outputs, inputs, rows, columns] if channels_innermost(numbers.device()) => {
            numbers.view([outputs, rows, columns, inputs]).permute([0, 3, 1, 2])
        }
        _ => numbers.view(shape),
    }
}

/// Makes chance begin anew for a tensor of that name, the same in all networks of a seed that have one.
pub(crate) fn seed_for(name: &str, seed: u64) {
    let hash = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    tch::manual_seed(name.bytes().fold(0xcbf2_9ce4_8422_2325 ^ seed, hash) as i64);
}

/// Images, channels, rows, columns.
pub(crate) fn size4(x: &Tensor) -> (i64, i64, i64, i64) {
    let size = x.size();
    (size[0], size[1], size[2], size[3])
}

/// 1 where a score is among the `active` largest along a dimension, the first of equal ones, else 0.
pub(crate) fn choose(scores: &Tensor, active: usize, dimension: i64) -> Tensor {
    let mut left = scores.detach().copy();
    let mut chosen = left.zeros_like();
    for _ in 0..active {
        let best = left.argmax(dimension, true);
        chosen = chosen.scatter_value(dimension, &best, 1.0);
        left = left.scatter_value(dimension, &best, f64::NEG_INFINITY);
    }
    chosen
}
