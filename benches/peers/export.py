"""Exports YOLO26n, YOLO11n and YOLOv8n with random weights, for latency only: nothing is downloaded.

usage: export.py FOLDER. Needs the package ultralytics. Writes NAME-320.onnx and NAME-640.onnx.
"""
import os, shutil, sys

os.environ["YOLO_AUTOINSTALL"] = "false"
from ultralytics import YOLO  # noqa: E402

folder = sys.argv[1]
os.makedirs(folder, exist_ok=True)
os.chdir(folder)
for name in ["yolo26n", "yolo11n", "yolov8n"]:
    for size in [320, 640]:
        target = f"{name}-{size}.onnx"
        if os.path.exists(target):
            continue
        # A YAML name builds the network without weights.
        file = YOLO(f"{name}.yaml").export(format="onnx", imgsz=size, opset=17, simplify=False)
        shutil.move(file, target)
        print(target)
