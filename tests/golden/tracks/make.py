"""Makes two sequences of tracks by chance, with classes and marks as MOTChallenge has them, measures results full of errors with trackeval
1.3.0, and lets supervision 0.25.1's ByteTrack follow their boxes, and its Kalman filter one box (pip install trackeval==1.3.0
supervision==0.25.1).

Run: python3 tests/golden/tracks/make.py   (writes truth/, found/, expected.json, bytetrack.json and kalman.json beside itself)
"""
import json, os, random, shutil, tempfile
import numpy as np
from supervision.tracker.byte_tracker.kalman_filter import KalmanFilter
import supervision
import trackeval

here = os.path.dirname(os.path.abspath(__file__))
random.seed(11)


def sequence(name, frames, objects, classes):
    """Objects that wander; results that miss, invent, wobble and change their minds about who is who."""
    truth, found, invented = [], [], 1000
    walks = []
    for number in range(1, objects + 1):
        size = random.uniform(20, 60)
        walks.append(dict(id=number, x=random.uniform(0, 500), y=random.uniform(0, 300), w=size, h=2 * size,
                          vx=random.uniform(-4, 4), vy=random.uniform(-2, 2), first=random.randint(1, frames // 3),
                          last=random.randint(2 * frames // 3, frames), track=number + 50,
                          kind=random.choice([1, 1, 1, 1, 7, 8, 3]) if classes else 1))
    for frame in range(1, frames + 1):
        for walk in walks:
            if random.random() < 0.03:
                invented += 1
                walk["track"] = invented
            if random.random() < 0.02:
                other = random.choice(walks)
                walk["track"], other["track"] = other["track"], walk["track"]
        for walk in walks:
            if not walk["first"] <= frame <= walk["last"]:
                continue
            walk["x"] += walk["vx"] + random.gauss(0, 1)
            walk["y"] += walk["vy"] + random.gauss(0, 1)
            box = [walk[side] for side in "xywh"]
            mark = int(random.random() > 0.05) if walk["kind"] == 1 else 0
            tail = f",{mark},{walk['kind']},1" if classes else ",1,-1,-1,-1"
            truth.append(f"{frame},{walk['id']}," + ",".join(f"{v:.2f}" for v in box) + tail)
            if random.random() < 0.85:
                wobble = random.choice([0.02, 0.05, 0.12])
                seen = [v + random.gauss(0, wobble) * s for v, s in zip(box, (walk["w"], walk["h"]) * 2)]
                found.append(f"{frame},{walk['track']}," + ",".join(f"{v:.2f}" for v in seen) + f",{random.random():.3f},-1,-1,-1")
        if random.random() < 0.3:
            invented += 1
            seen = [random.uniform(0, 500), random.uniform(0, 300), 30, 60]
            found.append(f"{frame},{invented}," + ",".join(f"{v:.2f}" for v in seen) + ",0.5,-1,-1,-1")
    os.makedirs(f"{here}/truth/{name}/gt", exist_ok=True)
    os.makedirs(f"{here}/found", exist_ok=True)
    open(f"{here}/truth/{name}/gt/gt.txt", "w").write("\n".join(truth) + "\n")
    open(f"{here}/found/{name}.txt", "w").write("\n".join(found) + "\n")
    return frames


lengths = {"crowd": sequence("crowd", 60, 9, True), "walk": sequence("walk", 40, 4, False)}

# trackeval wants a tracker's files in a folder of its own, and classes of MOTChallenge alone.
work = tempfile.mkdtemp()
shutil.copytree(f"{here}/found", f"{work}/trackers/ours/data")
shutil.copytree(f"{here}/truth", f"{work}/truth")
plain = f"{work}/truth/walk/gt/gt.txt"
rows = [line.split(",")[:6] + ["1", "1", "1"] for line in open(plain).read().split()]
open(plain, "w").write("\n".join(",".join(row) for row in rows) + "\n")
dataset = lambda: trackeval.datasets.MotChallenge2DBox(dict(
    GT_FOLDER=f"{work}/truth", TRACKERS_FOLDER=f"{work}/trackers", SKIP_SPLIT_FOL=True, SEQ_INFO=lengths, PRINT_CONFIG=False))
metrics = [trackeval.metrics.HOTA(), trackeval.metrics.CLEAR({"PRINT_CONFIG": False}), trackeval.metrics.Identity({"PRINT_CONFIG": False})]
run = trackeval.Evaluator(dict(PRINT_RESULTS=False, PRINT_CONFIG=False, TIME_PROGRESS=False, OUTPUT_SUMMARY=False,
                               OUTPUT_DETAILED=False, PLOT_CURVES=False, BREAK_ON_ERROR=True))


def bytetrack(path, frames):
    """The boxes of a file with the numbers that ByteTrack gives them."""
    rows = [[float(field) for field in line.split(",")] for line in open(path)]
    tracker = supervision.ByteTrack()
    for frame in range(1, frames + 1):
        found = [row for row in rows if row[0] == frame]
        boxes = np.array([[x, y, x + w, y + h] for _, _, x, y, w, h, *_ in found]).reshape(-1, 4)
        scores = np.array([row[6] for row in found])
        tracked = tracker.update_with_detections(supervision.Detections(
            xyxy=boxes, confidence=scores, class_id=np.zeros(len(found), int)))
        for (x1, y1, x2, y2), number in zip(tracked.xyxy, tracked.tracker_id):
            yield f"{frame},{number},{x1:.2f},{y1:.2f},{x2 - x1:.2f},{y2 - y1:.2f},1,-1,-1,-1"


os.makedirs(f"{work}/trackers/bytetrack/data")
for name, frames in lengths.items():
    open(f"{work}/trackers/bytetrack/data/{name}.txt", "w").write("\n".join(bytetrack(f"{here}/found/{name}.txt", frames)) + "\n")

results, _ = run.evaluate([dataset()], metrics)


def measures(tracker):
    expected = {}
    for name, by_class in results["MotChallenge2DBox"][tracker].items():
        of = by_class["pedestrian"]
        mean = lambda key: float(np.mean(of["HOTA"][key]))
        expected[name] = dict(
            hota=mean("HOTA"), deta=mean("DetA"), assa=mean("AssA"), loca=mean("LocA"), mota=float(of["CLEAR"]["MOTA"]),
            motp=float(of["CLEAR"]["MOTP"]), idf1=float(of["Identity"]["IDF1"]), idp=float(of["Identity"]["IDP"]),
            idr=float(of["Identity"]["IDR"]), switches=int(of["CLEAR"]["IDSW"]), false_alarms=int(of["CLEAR"]["CLR_FP"]),
            missed=int(of["CLEAR"]["CLR_FN"]), objects=int(of["Count"]["GT_IDs"]), tracks=int(of["Count"]["IDs"]))
    return expected


json.dump(measures("ours"), open(f"{here}/expected.json", "w"), indent=1)
json.dump(measures("bytetrack")["COMBINED_SEQ"], open(f"{here}/bytetrack.json", "w"), indent=1)
shutil.rmtree(work)

# A box is seen in most frames: what the filter makes of each, as centre, aspect, height and their velocities a frame.
kalman, steps, state = KalmanFilter(), [], None
for frame in range(40):
    x, y, h = 100 + 3 * frame + random.gauss(0, 2), 80 + frame + random.gauss(0, 2), 90 + random.gauss(0, 2)
    seen = None if frame % 9 == 8 else [x, y, 0.5 + random.gauss(0, 0.02), h]
    if state is None:
        state = kalman.initiate(np.array(seen))
    else:
        state = kalman.predict(*state)
        if seen:
            state = kalman.update(*state, np.array(seen))
    steps.append(dict(seen=seen, state=[float(value) for value in state[0]]))
json.dump(steps, open(f"{here}/kalman.json", "w"), indent=0)
