"""What is Rust: crates/python/src."""

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, Union, final

import numpy as np
from numpy.typing import NDArray

_Found = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64], int, int]

__all__ = ["Detector", "images_in", "main"]

@final
class Detector:
    names: tuple[str, ...]
    description: str

    def __new__(cls, model: str, options: Mapping[str, Any]) -> Detector: ...
    def detect(
        self, images: Sequence[Union[NDArray[np.uint8], bytes, str]], return_exceptions: bool
    ) -> list[Union[_Found, Exception]]: ...

def images_in(folder: Union[str, PathLike[str]], recursive: bool = False) -> list[Path]: ...
def main(arguments: Sequence[str]) -> int: ...
