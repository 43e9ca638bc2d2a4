"""What the tests share: `make test-wheel` runs them against the installed wheel."""

import sys
from pathlib import Path

import pytest
from PIL import Image

from yolo_lat import Detector

ROOT = Path(__file__).resolve().parents[3]
ASSETS = ROOT / "assets"


@pytest.fixture(scope="session")
def detector():
    return Detector("n", threads=2)


@pytest.fixture(scope="session")
def program():
    """The program of the wheel, as pip installs it."""
    return Path(sys.executable).parent / "yolo-lat"


@pytest.fixture
def cat(tmp_path):
    """A photograph without losses, so that every reader sees the same: the file and its Pillow image."""
    path = tmp_path / "cat.png"
    Image.open(ASSETS / "chelsea.jpg").convert("RGB").save(path)
    return path, Image.open(path)


def same(one, other):
    """Whether two Detections are equal bit for bit."""
    return (one.width, one.height, one.names) == (other.width, other.height, other.names) and all(
        (getattr(one, name) == getattr(other, name)).all() and len(one) == len(other) for name in ("xyxy", "confidence", "class_id")
    )
