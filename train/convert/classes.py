#!/usr/bin/env python3
"""Weights for a network with other classes: python3 train/convert/classes.py FROM.toml TO.toml OUTPUT.safetensors

Both configurations differ in their classes alone. A class that both have (COCO's and PASCAL VOC's names for one are the same class) keeps its
output; the others begin at zero with a bias of -4.6, a probability of 0.01. Training takes it on.
`scripts/setup --gpu` installs what it needs."""
import sys

import torch

from nanodet_plus import write
from smaller import read

COCO_OF_VOC = {"aeroplane": "airplane", "motorbike": "motorcycle", "pottedplant": "potted plant", "sofa": "couch", "tvmonitor": "tv",
               "diningtable": "dining table"}
UNSURE = -4.6


def main(source, target, output):
    (before, weights), (after, _) = read(source), read(target)
    names = lambda config: [COCO_OF_VOC.get(name, name) for name in config["classes"]]
    if any(before[part] != after[part] for part in ("activation", "backbone", "neck", "head")):
        sys.exit(f"classes.py: {source} and {target} differ in more than their classes")
    old = {name: row for row, name in enumerate(names(before))}
    kept = [(row, old[name]) for row, name in enumerate(names(after)) if name in old]
    result = {}
    for name, values in weights.items():
        if name.endswith((".step", ".zero", ".shift")):
            continue  # of integers, which follow the weights
        if ".class.out." in name:
            rows = torch.full((len(after["classes"]), *values.shape[1:]), UNSURE if name.endswith("bias") else 0.0)
            for row, from_row in kept:
                rows[row] = values[from_row]
            values = rows
        result[name] = values
    write(output, result)
    print(f"{output}: {len(kept)} of {len(after['classes'])} classes kept their outputs")


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__.splitlines()[0])
    main(*sys.argv[1:])
