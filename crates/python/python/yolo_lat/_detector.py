"""The detector."""

from __future__ import annotations

import functools
import importlib.util
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np

from yolo_lat import _native
from yolo_lat._detections import Detections
from yolo_lat._images import ImageLike, prepared

class Detector:
    """Finds objects in images.

    >>> detector = Detector("n")
    >>> detector("photo.jpg")                    # one image: its Detections
    >>> detector(["a.jpg", "b.jpg"])             # several: a list of them, faster than one by one
    >>> detector(yolo_lat.images_in("photos"))   # a folder

    Options are those of the program ``yolo-lat detect``, whose ``--help`` says more.

    Args:
        model: ``"n"``, ``"s"``, or the path of a .toml, .safetensors or .onnx file.
        engine: ``"auto"``, ``"cpu"``, ``"gpu"``, ``"ort"`` (ONNX Runtime, where it is installed) or ``"reference"``.
        precision: what the network's 1x1 convolutions are computed in: ``"f32"``, ``"int8"`` (CPU engine), ``"auto"``: on the CPU engine
            as the model's file says, on others f32.
        size: side of the input in pixels, a multiple of 32 from 32 to 4096: 320 means as many pixels as 320 x 320 in the shape of
            each image; (416, 256), width and height, is the same for all; ``None`` is the model's own.
        square: a square input for every image, the rest of it grey.
        slice: looks at large images in slices too: ``"auto"``, ``"off"``, ``"320"``, ``"640x480:0.3"``.
        threads: 0 to 1024; ``None`` or 0 is one a core.
        batch: images taken together, 1 to 1024; ``None`` is four for each thread.
        confidence: least confidence of a detection, 0 to 1; ``None`` is the model's.
        iou: of two boxes of a class that overlap more than this, 0 to 1, the less confident goes.
        max_det: most detections in an image.
        classes: only these, by name, another word for it or number; ``None`` is all.
        agnostic_nms: boxes of different classes suppress each other too.
        nms: what becomes of suppressed boxes: ``"greedy"`` throws them away, ``"box-voting"`` lets them vote for the box that stays;
            ``None``: the latter with our own models.
        adapter: the GPU by a part of its name.
        ort_lib: the shared library of ONNX Runtime; ``None`` is ``ORT_DYLIB_PATH``, then the package onnxruntime.
        ort_provider: what ONNX Runtime computes on, ``"cpu"`` or ``"cuda"``.
        onnx: how somebody's ONNX file is read: texts of the options layout, fit, border, order, scale, mean, std, names.

    Raises:
        ValueError: no such model, or a value out of its range.
        FileNotFoundError: no such model file, or none with its weights.
        PermissionError: a model file that may not be read.
        RuntimeError: the engine is not to be had on this machine.

    Threads may share one: it detects for one after the other, without the GIL. It can be pickled, and is made anew where it is
    unpickled. A process that is forked needs its own.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] = "n",
        *,
        engine: Literal["auto", "cpu", "gpu", "ort", "reference"] = "auto",
        precision: Literal["auto", "f32", "int8"] = "auto",
        size: int | tuple[int, int] | None = None,
        square: bool = False,
        slice: str = "off",
        threads: int | None = None,
        batch: int | None = None,
        confidence: float | None = None,
        iou: float = 0.45,
        max_det: int = 300,
        classes: str | Iterable[str | int] | None = None,
        agnostic_nms: bool = False,
        nms: Literal["greedy", "box-voting"] | None = None,
        adapter: str | None = None,
        ort_lib: str | os.PathLike[str] | None = None,
        ort_provider: Literal["cpu", "cuda"] = "cpu",
        onnx: Mapping[str, str] | None = None,
    ) -> None:
        if classes is not None:
            classes = [str(name) for name in (classes.split(",") if isinstance(classes, str) else classes)]
        options: dict[str, Any] = {name: value for name, value in locals().items() if name not in ("self", "model")}
        self._arguments = (os.fspath(model), options)
        filled = {
            "size": size if size is None or isinstance(size, Sequence) else [size],
            "threads": threads or 0,
            "ort_lib": ort_lib or _onnx_runtime(),
            "onnx": onnx or {},
        }
        self._native = _native.Detector(os.fspath(model), {**options, **filled})

    # A str is a sequence of str, and yet one image.
    @overload
    def __call__(self, images: ImageLike) -> Detections: ...  # type: ignore[overload-overlap]
    @overload
    def __call__(self, images: Iterable[ImageLike], *, return_exceptions: Literal[False] = False) -> list[Detections]: ...
    @overload
    def __call__(self, images: Iterable[ImageLike], *, return_exceptions: bool) -> list[Detections | Exception]: ...

    def __call__(self, images: Any, *, return_exceptions: bool = False) -> Any:
        """Detects in one image, or in several at once.

        Args:
            images: each an array of RGB pixels, uint8 (height, width, 3), of any strides; a Pillow image, seen upright as its EXIF
                orientation says, what is transparent over white; a path; or the bytes of an image's file. Several: any
                series of these, or an array (n, height, width, 3).
            return_exceptions: of several, the exception of a file that cannot be read takes the place of its Detections; otherwise
                the first one is raised.

        Returns:
            Detections of one image; of several, a list in their order.

        Raises:
            TypeError: not an image.
            ValueError: an array of another type or shape, or a file that is no image, or a damaged one.
            FileNotFoundError, PermissionError, IsADirectoryError: of a path.
            RuntimeError: the engine failed, or the process was forked.
        """
        several = isinstance(images, Iterable) and not isinstance(images, (str, bytes, Mapping))
        if isinstance(images, np.ndarray):
            several = images.ndim == 4
        if several:
            given = [prepared(image, f"image {index}: ") for index, image in enumerate(images)]
        else:
            given = [prepared(images)]
        found = self._native.detect(given, return_exceptions and several)
        detections = [it if isinstance(it, Exception) else Detections(*it[:3], self.names, *it[3:]) for it in found]
        return detections if several else detections[0]

    @property
    def names(self) -> tuple[str, ...]:
        """What the model's classes are called; the index is the class."""
        return self._native.names

    @property
    def description(self) -> str:
        """What runs, for people."""
        return self._native.description

    def __repr__(self) -> str:
        return f"<Detector {self._arguments[0]} on {self.description}>"

    def __reduce__(self) -> tuple[Any, ...]:
        model, options = self._arguments
        return functools.partial(Detector, model, **options), ()


@functools.cache
def shared_detector(model: str | os.PathLike[str] = "n", **options: Any) -> Detector:
    """The one ``Detector(model, **options)`` of this process: made by the first call, given by all others.

    For functions that Spark, Ray and the like send to their workers, which call them many times. Options must be hashable.
    """
    return Detector(model, **options)


def _onnx_runtime() -> str | None:
    """The library in the package onnxruntime of this Python, which is not imported for it."""
    package = importlib.util.find_spec("onnxruntime")
    if "ORT_DYLIB_PATH" in os.environ or package is None or package.origin is None:
        return None
    found = [*Path(package.origin).parent.glob("capi/*onnxruntime.*")]
    return str(max(found)) if found else None
