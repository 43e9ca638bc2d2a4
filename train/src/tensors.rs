//! Order in memory and shapes of tensors.

use tch::{Device, Tensor};

/// Whether maps have their channels innermost there: libtorch's convolutions are three times as fast so on the processor. On a GPU its
/// depthwise ones take seconds a step so (H100, 2026-11-27; docs/ABLATIONS.md).
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

/// Images, channels, rows, columns.
pub(crate) fn size4(x: &Tensor) -> (i64, i64, i64, i64) {
    let size = x.size();
    (size[0], size[1], size[2], size[3])
}
