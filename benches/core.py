"""What a core does with the photographs of a folder, by the processor's time: decoding, and all the rest.

usage: core.py FOLDER [MODEL] [ROUNDS]. One thread; the best of all rounds.
"""
import sys
import time
from io import BytesIO

import numpy as np
from PIL import Image

import yolo_lat


def spent(action):
    start = time.process_time()
    action()
    return time.process_time() - start


def main():
    folder, model, rounds = sys.argv[1], (sys.argv[2:3] or ["n"])[0], int((sys.argv[3:4] or [5])[0])
    files = [open(path, "rb").read() for path in yolo_lat.images_in(folder, recursive=True)]
    arrays = [np.asarray(Image.open(BytesIO(file)).convert("RGB")) for file in files]
    detector = yolo_lat.Detector(model, engine="cpu", threads=1)
    times = [[spent(lambda given=given: detector(given)) for given in (files, arrays)] for _ in range(rounds)]
    whole, decoded = (min(column) / len(files) for column in zip(*times))
    size = sum(map(len, files)) / len(files)
    pixels = sum(array.shape[0] * array.shape[1] for array in arrays) / len(files)
    print(f"{len(files)} photographs of {size / 1e3:.0f} kB and {pixels / 1e6:.2f} megapixels, {model}, {detector.description}")
    print(f"{1 / whole:.1f} photographs/s a core, {size / whole / 1e6:.1f} MB/s read")
    print(f"decoding {(whole - decoded) * 1e3:.2f} ms ({1 - decoded / whole:.0%}), resizing and network {decoded * 1e3:.2f} ms")


if __name__ == "__main__":
    main()
