"""Type checkers see the module as it is."""

import subprocess
import sys

import pytest
from conftest import ROOT

USE = """
from pathlib import Path
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from yolo_lat import Detections, Detector, images_in

detector = Detector(Path("n"), size=(416, 256), classes=["cat", 3], engine="cpu")
one: Detections = detector("a.jpg")
boxes: NDArray[np.float32] = detector(np.zeros((9, 9, 3), np.uint8)).xyxy
several: list[Detections] = detector([Path("a.jpg"), Image.new("RGB", (9, 9)), b""])
folder: list[Detections] = detector(images_in("photos", recursive=True))
careful: list[Detections | Exception] = detector(["a.jpg"], return_exceptions=True)
names: tuple[str, ...] = one.names
"""
WRONG = ['Detector("n", engine="tpu")', 'Detector(threads="two")', "detector(7)", 'one.xywh', "boxes: int = one.xyxy"]


@pytest.fixture
def mypy(tmp_path):
    pytest.importorskip("mypy")

    def check(*arguments):
        done = subprocess.run([sys.executable, "-m", *arguments], capture_output=True, text=True, cwd=tmp_path)
        return done.returncode, done.stdout + done.stderr

    return check


def test_users_are_checked(mypy, tmp_path):
    use = tmp_path / "use.py"
    use.write_text(USE)
    code, said = mypy("mypy", "--strict", str(use))
    assert code == 0, said
    for line in WRONG:
        use.write_text(USE + line + "\n")
        code, said = mypy("mypy", "--strict", str(use))
        assert code == 1 and f"use.py:{len(USE.splitlines()) + 1}:" in said, (line, said)


def test_the_package_is_checked(mypy):
    code, said = mypy("mypy", "--strict", str(ROOT / "crates/python/python/yolo_lat"))
    assert code == 0, said


def test_the_stub_is_what_is_there(mypy):
    code, said = mypy("mypy.stubtest", "yolo_lat._native")
    assert code == 0, said
