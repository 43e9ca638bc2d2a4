"""The two recipes with the real engines on this machine: a worker is killed in the middle, and the rows are those of one process.

usage: check.py [FOLDER]     2,000 photographs: of FOLDER, or made from the samples
"""
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import pyarrow.parquet
from PIL import Image

import yolo_lat

HERE = Path(__file__).resolve().parent
SAMPLES = HERE.parents[1] / "assets"
IMAGES = 2000
# Only this machine takes part.
LOCAL = {
    "SPARK_LOCAL_IP": "127.0.0.1", "SPARK_LOCAL_HOSTNAME": "localhost", "PYSPARK_PYTHON": sys.executable,
    "PYSPARK_SUBMIT_ARGS": "--master local-cluster[2,1,1024] --conf spark.ui.enabled=false pyspark-shell",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_USAGE_STATS_ENABLED": "0", "PYTHONWARNINGS": "ignore",
}


def photographs(folder):
    """Pieces of the samples in many sizes, always the same; one of them is cut off."""
    folder.mkdir()
    samples = [Image.open(path).convert("RGB") for path in sorted(SAMPLES.glob("*.jpg"))]
    chance = random.Random(37)
    for number in range(IMAGES):
        sample = chance.choice(samples)
        width, height = (round(side * chance.uniform(0.5, 1)) for side in sample.size)
        left, top = chance.randint(0, sample.width - width), chance.randint(0, sample.height - height)
        scale = chance.uniform(0.8, 1.6)
        piece = sample.crop((left, top, left + width, top + height)).resize((round(scale * width), round(scale * height)))
        piece.save(folder / f"{number:06}.jpg", quality=90)
    cut = folder / f"{IMAGES // 2:06}.jpg"
    cut.write_bytes(cut.read_bytes()[:-500])


def links(source, folder):
    """The first photographs of a folder."""
    folder.mkdir()
    for path in yolo_lat.images_in(source, recursive=True)[:IMAGES]:
        (folder / "-".join(path.parts).strip("/-")).symlink_to(path.resolve())


def of_one_process(folder):
    paths = yolo_lat.images_in(folder)
    rows = {}
    for path, found in zip(paths, yolo_lat.Detector("n", engine="cpu")(paths, return_exceptions=True)):
        if isinstance(found, Exception):
            # Who is given bytes knows no path.
            rows[str(path)] = (None, None, None, None, None, str(found).split(": ", 1)[1])
        else:
            boxes = (found.class_names.tolist(), found.confidence.tolist(), found.xyxy.tolist())
            rows[str(path)] = (found.width, found.height, *boxes, None)
    return rows


def of_parquet(folder):
    rows = []
    for row in pyarrow.parquet.read_table(folder).to_pylist():
        path = row.pop("path").removeprefix("file:")
        row["error"] = row["error"] and row["error"].split(": ", 1)[1]
        rows.append((path, tuple(row[name] for name in ("width", "height", "name", "confidence", "xyxy", "error"))))
    return rows


def named(process, name):
    """The youngest process below one whose command line has a name, and which started no other of that name."""
    parents, commands = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
            commands[int(folder.name)] = (folder / "cmdline").read_text().replace("\0", " ")
        except OSError:
            continue
    below, left = set(), {process}
    while left:
        left = {child for child, parent in parents.items() if parent in left}
        below |= left
    found = {pid for pid in below if re.search(name, commands.get(pid, ""))}
    return max(found - {parents[pid] for pid in found}, default=None)


def run(recipe, folder, out, victims=(), model="n"):
    """Runs a recipe. When so many of its output files are there, kills a process that is named so, each victim in its turn, until the
    engine says that it has lost one at work. Gives exit code, messages and seconds."""
    log = out.with_name(out.name + ".log")
    start = time.monotonic()
    with log.open("w") as messages:
        process = subprocess.Popen(
            [sys.executable, HERE / recipe, folder, out, model], stdout=messages, stderr=messages, env={**os.environ, **LOCAL}
        )
        for files, name, noticed in victims:
            killed = 0
            while process.poll() is None and noticed not in log.read_text():
                victim = named(process.pid, name) if len(list(out.rglob("*.parquet"))) >= files else None
                # A process between two tasks is replaced without a word: after some seconds another has to go.
                if victim is not None and time.monotonic() > killed + 12:
                    os.kill(victim, signal.SIGKILL)
                    killed = time.monotonic()
                time.sleep(0.05)
        code = process.wait()
    return code, log.read_text(), time.monotonic() - start


def same_rows(name, expected, out):
    rows = of_parquet(out)
    count = Counter(path for path, _ in rows)
    lost, twice = sorted(expected.keys() - count.keys()), sorted(path for path, times in count.items() if times > 1)
    other = [path for path, row in rows if expected.get(path) != row]
    assert not (lost or twice or other), f"{name}: {len(lost)} lost {lost[:3]}, {len(twice)} twice {twice[:3]}, {len(other)} other {other[:3]}"


def main():
    scratch = Path(tempfile.mkdtemp(prefix="yolo-lat-cluster-"))
    folder = scratch / "photographs"
    links(sys.argv[1], folder) if len(sys.argv) > 1 else photographs(folder)
    start = time.monotonic()
    expected = of_one_process(folder)
    objects = sum(len(row[2] or []) for row in expected.values())
    print(f"one process: {len(expected)} photographs, {objects} objects, {time.monotonic() - start:.1f} s", flush=True)
    # Who is killed when, and what the engine says then: a Python worker, then an executor with the one that it has; an actor.
    recipes = {
        "spark.py": [
            (6, r"pyspark[./]daemon", "worker exited unexpectedly"),
            (14, "CoarseGrainedExecutorBackend", "Lost executor"),
        ],
        "ray_data.py": [(4, r"ray::MapWorker", "A worker died or was killed")],
    }
    for recipe, victims in recipes.items():
        out = scratch / Path(recipe).stem
        code, log, seconds = run(recipe, folder, out, victims)
        assert code == 0, f"{recipe}: exit code {code}\n{log[-4000:]}"
        for _, name, noticed in victims:
            assert noticed in log, f"{recipe}: it ended before {name} was killed at work\n{log[-4000:]}"
        same_rows(recipe, expected, out)
        names = " and ".join(name for _, name, _ in victims)
        print(f"{recipe}: the same rows, none lost, none twice, with {names} killed, {seconds:.1f} s", flush=True)
        code, log, _ = run(recipe, folder, out.with_suffix(".none"), model="gone/model.toml")
        told = log.strip().splitlines()[-1]
        expected_line = f"{recipe}: on a worker: FileNotFoundError: gone/model.toml: there is no such model file on this machine"
        assert (code, told) == (1, expected_line), log
        print(f"{recipe}, no model: {told}", flush=True)


if __name__ == "__main__":
    main()
