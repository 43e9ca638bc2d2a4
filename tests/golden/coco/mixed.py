"""Makes 30 small sets of labels by chance, with crowds and difficult objects mixed, and measures them with pycocotools 2.0
(pip install pycocotools).

pycocotools ignores crowds alone. An object that is difficult is made one that it ignores without being a crowd: it counts neither
way, it overlaps as any object does, and it can be found once.

Run: python3 tests/golden/coco/mixed.py   (writes mixed.json beside itself)
"""
import contextlib, io, json, os, random
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

here = os.path.dirname(os.path.abspath(__file__))
random.seed(34)


class Eval(COCOeval):
    def _prepare(self):
        super()._prepare()
        for objects in self._gts.values():
            for thing in objects:
                thing["ignore"] = thing["iscrowd"] or thing["difficult"]


sets = []
for _ in range(30):
    categories = [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}]
    images, annotations, detections = [], [], []
    for image in range(1, random.randint(3, 7)):
        images.append({"id": image, "file_name": f"{image}.jpg"})
        for _ in range(random.randint(0, 5)):
            w, h = random.choice([14, 30, 110]) + random.randrange(30), random.choice([14, 60]) + random.randrange(20)
            x, y = random.randrange(320 - w), random.randrange(240 - h)
            crowd, difficult = int(random.random() < 0.2), int(random.random() < 0.3)
            annotations.append({"id": len(annotations) + 1, "image_id": image, "category_id": random.choice([3, 3, 7]), "bbox": [x, y, w, h],
                                "area": w * h, "iscrowd": crowd, "difficult": difficult})
            for _ in range(random.choice([0, 1, 1, 2, 4])):
                box = [x + random.randint(-4, 4), y + random.randint(-4, 4), max(2, w + random.randint(-5, 5)), max(2, h + random.randint(-5, 5))]
                detections.append({"image_id": image, "category_id": annotations[-1]["category_id"] if random.random() < 0.9 else 7, "bbox": box,
                                   "score": round(random.random(), 5)})
    labels = {"images": images, "annotations": annotations, "categories": categories}
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = json.loads(json.dumps(labels))
        truth.createIndex()
        run = Eval(truth, truth.loadRes(json.loads(json.dumps(detections))), "bbox")
        run.evaluate(); run.accumulate(); run.summarize()
    keys = ["ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large"]
    # Nothing to find is -1 in pycocotools.
    figures = {key: None if value < 0 else float(value) for key, value in [*zip(keys, run.stats[:6]), ("ar100", run.stats[8])]}
    sets.append({"labels": labels, "detections": detections, "expected": figures})
with open(f"{here}/mixed.json", "w") as file:
    json.dump(sets, file, separators=(",", ":"))
