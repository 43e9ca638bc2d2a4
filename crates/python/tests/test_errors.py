"""What is wrong is told by the exception that Python has for it, in one sentence."""

import os
import re
import subprocess
import sys

import numpy as np
import pytest
from conftest import ASSETS
from PIL import Image

import yolo_lat
from yolo_lat import Detector

PIXELS = np.zeros((32, 32, 3), np.uint8)


@pytest.mark.parametrize(
    ("image", "error", "said"),
    [
        (PIXELS / 255, ValueError, "expected RGB pixels as uint8 (height, width, 3), found float64; (array * 255)"),
        (PIXELS.astype(np.int8), ValueError, "found int8"),
        (PIXELS[..., 0], ValueError, "expected RGB pixels as uint8 (height, width, 3), found (32, 32)"),
        (np.zeros((3, 32, 32), np.uint8), ValueError, "found (3, 32, 32)"),
        (np.zeros((32, 32, 4), np.uint8), ValueError, "found (32, 32, 4)"),
        (np.zeros((0, 32, 3), np.uint8), ValueError, "the image has no pixels (32x0)"),
        (np.zeros((2, 3, 32, 32), np.uint8), ValueError, "image 0: expected RGB pixels as uint8 (height, width, 3), found (3, 32, 32)"),
        ([PIXELS, PIXELS / 255], ValueError, "image 1: expected RGB pixels as uint8 (height, width, 3), found float64"),
        (Image.new("F", (9, 9)), ValueError, "a Pillow image of mode F has no usual range: convert it to RGB or L"),
        (Image.new("I;16", (9, 9)), ValueError, "mode I;16"),
        (None, TypeError, "expected an array, a Pillow image, a path"),
        ({"a": 1}, TypeError, "found dict"),
        ([PIXELS, 7], TypeError, "image 1: expected an array"),
        ("missing.jpg", FileNotFoundError, "missing.jpg: No such file"),
        (["a.jpg", "b.jpg"], FileNotFoundError, "a.jpg: No such file"),
        (ASSETS, IsADirectoryError, "assets: not a file; yolo_lat.images_in lists the images of a folder"),
        (ASSETS / "README.md", ValueError, "README.md: not an image in a known format"),
        (b"", ValueError, "image 0: the file is empty"),
        ((ASSETS / "chelsea.jpg").read_bytes()[:9000], ValueError, "image 0: cannot be decoded: the JPEG is truncated"),
        ("a\0b.jpg", OSError, "NUL byte"),
    ],
)
def test_images(detector, image, error, said):
    check(lambda: detector(image), error, said)
    assert len(detector(ASSETS / "chelsea.jpg")) == 1, "a detector is good after an error"


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        ({"model": "q"}, ValueError, 'no model "q": give n or s'),
        ({"model": "gone/model.toml"}, FileNotFoundError, "gone/model.toml: there is no such model file on this machine"),
        ({"model": "gone/model.onnx"}, FileNotFoundError, "gone/model.onnx: No such file"),
        ({"model": 7}, TypeError, "expected str, bytes or os.PathLike object, not int"),
        ({"confidence": 1.5}, ValueError, "confidence: expected a number from 0 to 1, found 1.5"),
        ({"confidence": -0.1}, ValueError, "confidence: expected a number from 0 to 1, found -0.1"),
        ({"confidence": float("nan")}, ValueError, "confidence: expected a number from 0 to 1, found NaN"),
        ({"confidence": "high"}, TypeError, "confidence: must be real number, not str"),
        ({"iou": 2}, ValueError, "iou: expected a number from 0 to 1, found 2"),
        ({"size": 100}, ValueError, "size: expected a multiple of 32 from 32 to 4096, found 100"),
        ({"size": -32}, ValueError, "size: expected a multiple of 32 from 32 to 4096, found -32"),
        ({"size": (320, 320, 320)}, ValueError, "size: expected one side, or width and height and not square"),
        ({"size": (320, 320), "square": True}, ValueError, "size: expected one side"),
        ({"threads": 5000}, ValueError, "threads: expected a number from 0 to 1024, found 5000"),
        ({"threads": "two"}, TypeError, "threads: 'str' object cannot be interpreted as an integer"),
        ({"batch": 0}, ValueError, "batch: expected a number from 1 to 1024, found 0"),
        ({"max_det": -1}, ValueError, "max_det: expected a number from 0"),
        ({"engine": "tpu"}, ValueError, 'engine: expected auto, cpu, gpu, ort or reference, found "tpu"'),
        ({"slice": "8"}, ValueError, "slice: expected auto, off or the size of a slice in pixels"),
        ({"classes": ["cat", "persn"]}, ValueError, 'classes: the model knows no "persn"; did you mean "person"?'),
        ({"onnx": {"fit": "stretch"}}, ValueError, "onnx: fit is for ONNX files; yolo-lat-n is a model of ours"),
        ({"nms": "soft"}, ValueError, 'nms: expected greedy or box-voting, found "soft"'),
        ({"precision": "int4"}, ValueError, 'precision: expected auto, f32 or int8, found "int4"'),
        ({"ort_provider": "tpu"}, ValueError, 'ort_provider: expected cpu or cuda, found "tpu"'),
        ({"engine": "ort", "ort_lib": "gone.so"}, RuntimeError, "engine ort is not available: gone.so: no such file"),
        ({"adapter": "no such GPU"}, RuntimeError, "engine gpu is not available"),
        ({"conf": 0.5}, TypeError, "unexpected keyword argument 'conf'"),
    ],
)
def test_options(arguments, error, said):
    check(lambda: Detector(**arguments), error, said)


def check(action, error, said):
    with pytest.raises(error, match=re.escape(said)) as raised:
        action()
    assert "\n" not in str(raised.value)


def test_exceptions_take_the_place_of_images_that_cannot_be_read(detector):
    good, bad = ASSETS / "chelsea.jpg", ASSETS / "README.md"
    found = detector([good, bad, "gone.jpg", good], return_exceptions=True)
    assert [type(it).__name__ for it in found] == ["Detections", "ValueError", "FileNotFoundError", "Detections"]
    assert str(found[1]).startswith(str(bad))
    with pytest.raises(FileNotFoundError):
        detector([good, "gone.jpg", bad])
    with pytest.raises(ValueError, match="float"):
        detector([PIXELS / 255], return_exceptions=True)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root can become somebody who may not read")
def test_permissions(tmp_path):
    """As somebody who may not look into a folder."""
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o700)
    (folder / "a.jpg").write_bytes((ASSETS / "chelsea.jpg").read_bytes())
    (folder / "model.toml").write_text("")
    script = f"""
import os, yolo_lat
detector = yolo_lat.Detector("n", threads=1)
os.setuid(65534)
for action in (lambda: detector({str(folder / "a.jpg")!r}), lambda: yolo_lat.images_in({str(folder)!r}),
               lambda: yolo_lat.Detector({str(folder / "model.onnx")!r})):
    try:
        print(action())
    except PermissionError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, cwd="/")
    lines = done.stdout.splitlines()
    assert [line.removesuffix(" (os error 13)") for line in lines] == [
        f"{folder / 'a.jpg'}: Permission denied",
        f"{folder}: Permission denied",
        f"{folder / 'model.onnx'}: Permission denied",
    ]


def test_a_folder_that_is_not_there(tmp_path):
    check(lambda: yolo_lat.images_in(tmp_path / "gone"), FileNotFoundError, f"{tmp_path / 'gone'}: No such file")
