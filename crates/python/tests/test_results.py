"""What is found, in whatever form an image comes, is what the program finds."""

import json
import subprocess

import numpy as np
import pytest
from conftest import ASSETS, ROOT, same
from PIL import Image

import yolo_lat
from yolo_lat import Detector

PHOTOGRAPHS = sorted(ASSETS.glob("*.jpg"))


def of_program(program, images, *options):
    command = [program, "detect", *images, "-f", "json", "--no-timing", "--quiet", *options]
    return json.loads(subprocess.run(command, check=True, capture_output=True).stdout)


@pytest.mark.parametrize(
    ("options", "flags"),
    [
        ({}, []),
        ({"model": "s", "confidence": 0.4}, ["-m", "s", "--conf", "0.4"]),
        ({"size": 416, "square": True, "iou": 0.1, "max_det": 2}, ["--size", "416", "--square", "--iou", "0.1", "--max-det", "2"]),
        ({"size": (416, 256), "nms": "greedy", "agnostic_nms": True}, ["--size", "416x256", "--nms", "greedy", "--agnostic-nms"]),
        ({"slice": "200:0.3", "classes": ["cat", "sofa", 14]}, ["--slice", "200:0.3", "--classes", "cat,sofa,14"]),
        ({"classes": "cat,people", "threads": 1, "batch": 3}, ["--classes", "cat,people"]),
        ({"engine": "reference", "size": 128}, ["--engine", "reference", "--size", "128"]),
    ],
)
def test_detections_are_those_of_the_program(program, options, flags):
    found = Detector(**{"confidence": 0.05, **options})(PHOTOGRAPHS)
    expected = of_program(program, PHOTOGRAPHS, *([] if "confidence" in options else ["--conf", "0.05"]), *flags)
    assert sum(map(len, found)) > 0
    for one, record in zip(found, expected, strict=True):
        assert (one.width, one.height) == (record["width"], record["height"])
        assert [(name, index) for name, index in zip(one.class_names, one.class_id)] == [
            (it["name"], it["class"]) for it in record["detections"]
        ]
        confidence = np.float32([it["confidence"] for it in record["detections"]])
        boxes = np.float32([[it["box"][side] for side in ("x1", "y1", "x2", "y2")] for it in record["detections"]]).reshape(-1, 4)
        assert (one.confidence == confidence).all() and (one.xyxy == boxes).all()


def test_shapes_and_types(detector):
    found = detector(ASSETS / "chelsea.jpg")
    count = len(found)
    assert count > 0
    assert (found.xyxy.shape, found.xyxy.dtype) == ((count, 4), np.float32)
    assert (found.confidence.shape, found.confidence.dtype) == ((count,), np.float32)
    assert (found.class_id.shape, found.class_id.dtype) == ((count,), np.int64)
    assert found.names == detector.names and len(detector.names) == 20
    assert found.class_names[0] == "cat" and "cat 0." in repr(found) and "451x300" in repr(found)
    assert "cpu" in detector.description or "gpu" in detector.description


def test_nothing_found_is_empty_arrays(detector):
    found = detector(np.zeros((48, 64, 3), np.uint8))
    assert (len(found), found.xyxy.shape, found.class_names.shape) == (0, (0, 4), (0,))
    assert repr(found) == "<Detections in 64x48: nothing>"


def test_every_form_of_a_image_is_the_same(detector, cat):
    path, image = cat
    expected = detector(path)
    array = np.asarray(image)
    for form in (str(path), path.read_bytes(), image, array, array.copy(order="F"), array[:, ::-1][:, ::-1], [path], [[array]][0]):
        found = detector(form)
        assert same(found[0] if isinstance(form, list) else found, expected), type(form)
    blue_first = array[:, :, ::-1].copy()
    assert same(detector(blue_first[:, :, ::-1]), expected)
    assert not same(detector(blue_first), expected)


def test_a_batch_is_the_same_as_one_by_one(detector, cat):
    path, image = cat
    array = np.asarray(image)
    batch = np.stack([array, array[::-1], np.zeros_like(array)])
    mixed = [*batch, path, ASSETS / "rocket.jpg", image, path.read_bytes()] * 7
    assert len(mixed) == 49
    alone = [detector(one) for one in mixed[:7]] * 7
    assert all(same(one, other) for one, other in zip(detector(mixed), alone, strict=True))
    assert all(same(one, other) for one, other in zip(detector(batch), alone[:3], strict=True))
    assert all(same(one, other) for one, other in zip(detector(tuple(batch)), alone[:3], strict=True))
    assert detector([]) == []


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "1", "RGB"])
def test_pillow_images_are_seen_as_their_files_are(detector, cat, tmp_path, mode):
    image = cat[1]
    if mode in ("LA", "RGBA"):
        alpha = Image.linear_gradient("L").resize(image.size)
        image = image.convert(mode[:-1])
        image.putalpha(alpha)
    image = image.convert(mode)
    path = tmp_path / "converted.png"
    image.save(path)
    low = Detector("n", confidence=0.02)
    found = low(path)
    assert len(found) > 0
    assert same(low(image), found) and same(low(Image.open(path)), found)


def test_a_photograph_is_seen_upright(detector, cat, tmp_path):
    image, path = cat[1].rotate(90, expand=True), tmp_path / "turned.png"
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(path, exif=exif)
    for form in (path, Image.open(path), path.read_bytes()):
        assert same(detector(form), detector(cat[0])), type(form)
    found = detector(ROOT / "tests/data/rot.jpg")
    assert (found.width, found.height) == tuple(reversed(Image.open(ROOT / "tests/data/rot.jpg").size))


def test_images_of_a_folder_are_those_of_the_program(program):
    found = yolo_lat.images_in(ASSETS)
    assert found == PHOTOGRAPHS
    assert [record["image"] for record in of_program(program, [ASSETS])] == [str(path) for path in found]
    assert yolo_lat.images_in(ROOT / "crates") == []
    assert ROOT / "docs/detections.jpg" in yolo_lat.images_in(ROOT / "docs", recursive=True)


def test_results_are_kept_when_the_array_changes(detector, cat):
    array = np.array(cat[1])
    found = detector(array)
    before = found.xyxy.copy()
    array[:] = 0
    assert len(found) and (found.xyxy == before).all()
