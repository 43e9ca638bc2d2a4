"""What a detector takes, as what Rust takes: an array of pixels in one piece, the bytes of a file, or a path."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Union

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL import Image

ImageLike = Union[NDArray[np.uint8], "Image.Image", str, "os.PathLike[str]", bytes]


def prepared(image: ImageLike, name: str = "") -> NDArray[np.uint8] | bytes | str:
    """Raises TypeError or ValueError, which begin with the image's name and say what was expected and what was found."""
    if isinstance(image, (str, os.PathLike)):
        return os.fspath(image)
    if isinstance(image, bytes):
        return image
    if isinstance(image, np.ndarray):
        return _of_array(image, name)
    # Where nobody has imported Pillow, this is none of its images.
    pillow = sys.modules.get("PIL.Image")
    if pillow is not None and isinstance(image, pillow.Image):
        return _of_pillow(image, name)
    expected = "an array, a Pillow image, a path, the bytes of an image's file, or a list of these"
    raise TypeError(f"{name}expected {expected}, found {type(image).__name__}")


def _of_array(array: NDArray[np.uint8], name: str) -> NDArray[np.uint8]:
    expected = f"{name}expected RGB pixels as uint8 (height, width, 3)"
    if array.dtype != np.uint8:
        hint = "; (array * 255).astype(numpy.uint8) makes them of 0..1" if array.dtype.kind == "f" else ""
        raise ValueError(f"{expected}, found {array.dtype}{hint}")
    if array.ndim != 3 or array.shape[2] != 3:
        raise ValueError(f"{expected}, found {array.shape}")
    return np.ascontiguousarray(array)


def _of_pillow(image: Image.Image, name: str) -> NDArray[np.uint8]:
    """Upright, 8-bit RGB, what is transparent over white: as images are read from files."""
    from PIL import ImageOps

    if image.mode == "F" or image.mode.startswith("I"):
        raise ValueError(f"{name}a Pillow image of mode {image.mode} has no usual range: convert it to RGB or L")
    image = ImageOps.exif_transpose(image)
    if not (image.mode.endswith(("A", "a")) or "transparency" in image.info):
        return np.asarray(image.convert("RGB"))
    rgba = np.asarray(image.convert("RGBA"), np.uint32)
    alpha = rgba[..., 3:]
    return ((rgba[..., :3] * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)
