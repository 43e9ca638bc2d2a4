"""Writes the same boxes as COCO, YOLO and PASCAL VOC with supervision 0.31 (pip install supervision opencv-python-headless).

Run: python3 tests/golden/labels/make.py   (writes coco/, voc/ and yolo/ beside itself; images are empty and small)
"""
import os, random, shutil
import numpy as np
import supervision as sv

here = os.path.dirname(os.path.abspath(__file__))
random.seed(34)
sizes = {"a.png": (64, 48), "b.png": (48, 80), "c.png": (40, 40)}
paths, annotations = [], {}
for folder in ("coco", "voc", "yolo"):
    shutil.rmtree(f"{here}/{folder}", ignore_errors=True)
os.makedirs(f"{here}/coco")
for name, (width, height) in sizes.items():
    path = f"{here}/coco/{name}"
    import cv2
    cv2.imwrite(path, np.zeros((height, width, 3), np.uint8))
    boxes = []
    for _ in range({"a.png": 3, "b.png": 1, "c.png": 0}[name]):
        x, y = random.randrange(width // 2), random.randrange(height // 2)
        boxes.append([x, y, x + random.randrange(8, width // 2), y + random.randrange(8, height // 2)])
    classes = [random.randrange(2) for _ in boxes]
    annotations[path] = sv.Detections(xyxy=np.array(boxes, np.float32).reshape(-1, 4), class_id=np.array(classes, int))
    paths.append(path)
annotations[paths[0]].class_id[:2] = [0, 1]
data = sv.DetectionDataset(classes=["bolt", "nut"], images=paths, annotations=annotations)
data.as_coco(annotations_path=f"{here}/coco/annotations.json")
data.as_yolo(images_directory_path=f"{here}/yolo/images", annotations_directory_path=f"{here}/yolo/labels", data_yaml_path=f"{here}/yolo/data.yaml")
data.as_pascal_voc(images_directory_path=f"{here}/voc/images", annotations_directory_path=f"{here}/voc/annotations")
