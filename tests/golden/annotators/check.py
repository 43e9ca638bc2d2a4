"""Reads cvat.xml and label-studio.json with the packages of the tools that they are for, and compares with records.json.

    pip install datumaro label-studio-sdk pillow && python3 tests/golden/annotators/check.py

Seen with datumaro 1.13.12 and label-studio-sdk 2.1.2. The files themselves are written by the test of eval/round_trip.rs
(UPDATE_GOLDEN=1).
"""

import json
import shutil
import tempfile
from pathlib import Path
from urllib.parse import unquote

here = Path(__file__).parent
records = json.loads((here / "records.json").read_text())
expected = {
    Path(record["image"]).with_suffix("").as_posix(): sorted(
        (found["name"], *(found["box"][side] for side in ("x1", "y1", "x2", "y2"))) for found in record["detections"]
    )
    for record in records
}


def compare(tool, found):
    assert set(found) <= set(expected), (tool, found)
    for name, boxes in expected.items():
        ours = sorted(found.get(name, []))
        assert len(ours) == len(boxes), (tool, name, ours)
        for a, b in zip(ours, boxes):
            assert a[0] == b[0] and all(abs(x - y) < 0.01 for x, y in zip(a[1:], b[1:])), (tool, name, a, b)
    print(f"{tool}: {sum(map(len, expected.values()))} boxes of {len(expected)} images are equal")


def cvat():
    from datumaro.components.annotation import AnnotationType
    from datumaro.components.dataset import Dataset
    from PIL import Image

    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(here / "cvat.xml", folder)
        # datumaro wants to see the images, as CVAT's own export has them.
        for record in records:
            path = Path(folder, "images", record["image"])
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (record["width"], record["height"])).save(path)
        dataset = Dataset.import_from(folder, "cvat")
        labels = [label.name for label in dataset.categories()[AnnotationType.label]]
        found = {}
        for item in dataset:
            boxes = found.setdefault(item.id, [])
            for box in item.annotations:
                boxes.append((labels[box.label], box.x, box.y, box.x + box.w, box.y + box.h))
        compare("datumaro", found)


def label_studio():
    from label_studio_sdk._extensions.label_studio_tools.core.label_config import parse_config
    from label_studio_sdk.label_interface import LabelInterface

    interface = LabelInterface((here / "label-studio.xml").read_text())
    assert parse_config((here / "label-studio.xml").read_text())["label"]["labels"] == ["person", "cat", "potted plant"]
    tasks = json.loads((here / "label-studio.json").read_text())
    found = {}
    assert len(tasks) == len(records)
    for task in tasks:
        name = Path(unquote(task["data"]["image"]).split("?d=images/")[1]).with_suffix("").as_posix()
        boxes = found.setdefault(name, [])
        for prediction in task["predictions"]:
            errors = interface.validate_prediction(prediction, return_errors=True)
            assert not errors, errors
            for region in prediction["result"]:
                value, width, height = region["value"], region["original_width"], region["original_height"]
                x, y = value["x"] * width / 100, value["y"] * height / 100
                w, h = value["width"] * width / 100, value["height"] * height / 100
                boxes.append((value["rectanglelabels"][0], x, y, x + w, y + h))
    compare("label-studio-sdk", found)


cvat()
label_studio()
