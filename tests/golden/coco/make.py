"""Makes labels and detections by formula and measures them with pycocotools 2.0 (pip install pycocotools).

Run: python3 tests/golden/coco/make.py   (writes labels.json, detections.json, expected.json beside itself)
"""
import json, os, random
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

here = os.path.dirname(os.path.abspath(__file__))
random.seed(5)
categories = [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}, {"id": 9, "name": "absent"}]
images, annotations, detections = [], [], []
for image in range(1, 41):
    images.append({"id": image, "file_name": f"{image:06}.jpg", "width": 320, "height": 240})
    for _ in range(random.randint(0, 6)):
        w, h = random.choice([12, 25, 60, 130]) + random.random() * 30, random.choice([12, 40, 110]) + random.random() * 20
        x, y = random.random() * (320 - w), random.random() * max(1, 240 - h)
        box = [round(v, 2) for v in (x, y, w, h)]
        category = random.choice([3, 3, 7])
        crowd = int(random.random() < 0.08)
        annotations.append({"id": len(annotations) + 1, "image_id": image, "category_id": category, "bbox": box,
                            "area": round(box[2] * box[3] * random.uniform(0.5, 1.0), 2), "iscrowd": crowd})
        for _ in range(random.choice([0, 1, 1, 2])):
            jitter = [round(v + random.gauss(0, 0.09) * s, 2) for v, s in zip(box, (box[2], box[3], box[2], box[3]))]
            jitter[2:] = [max(1.0, v) for v in jitter[2:]]
            wrong = random.random() < 0.1
            detections.append({"image_id": image, "category_id": (10 - category) if wrong else category,
                               "bbox": jitter, "score": round(random.random(), 5)})
labels = {"images": images, "annotations": annotations, "categories": categories}
json.dump(labels, open(f"{here}/labels.json", "w"))
json.dump(detections, open(f"{here}/detections.json", "w"))
truth = COCO(f"{here}/labels.json")
run = COCOeval(truth, truth.loadRes(f"{here}/detections.json"), "bbox")
run.evaluate(); run.accumulate(); run.summarize()
keys = ["ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large"]
expected = dict(zip(keys, map(float, run.stats[:6])), ar100=float(run.stats[8]))
json.dump(expected, open(f"{here}/expected.json", "w"), indent=1)
