#!/usr/bin/env python3
"""Weights for yolo-lat-s from NanoDet-Plus-m's: python3 train/convert/nanodet_plus.py PUBLISHED.onnx PHOTOGRAPHS OUTPUT

Backbone, neck and heads are those of the published network (Apache-2.0, Copyright 2020-2021 RangiLyu), with four changes:
* its normalisation of the picture (BGR, means and deviations of ImageNet) is folded into the first convolution;
* the units of the last stage keep HIDDEN of their 232 inner channels, chosen one by one and compensated by least
  squares on the photographs (He et al. 2017, "Channel pruning for accelerating very deep neural networks");
* the scale of stride 64 is left out;
* box logits are fitted again: its cells have their centres at index * stride, ours at (index + 0.5) * stride.
`scripts/setup --onnx` and `scripts/setup --gpu` install what it needs. The attention blocks, which it does not have, are missing: the trainer starts them so that they change nothing.
"""
import json
import pathlib
import struct
import sys

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from PIL import Image
from torch.nn import functional as F

HIDDEN, SIZE, COUNT, BINS, GREY = 160, 320, 192, 8, 114 / 255
CLASSES = 80
MEAN = torch.tensor([103.53, 116.28, 123.675])
DEVIATION = torch.tensor([57.375, 57.12, 58.395])


def names():
    """Ours, in the published network's order of convolutions."""
    yield "stem"
    for stage, units in ((2, 4), (3, 8), (4, 4)):
        for unit in range(units):
            if unit == 0:
                yield from (f"stage{stage}.0.left.{part}" for part in ("depthwise", "pointwise"))
            yield from (f"stage{stage}.{unit}.right.{part}" for part in ("pointwise1", "depthwise", "pointwise2"))
    yield from ("lateral8", "lateral16", "lateral32")
    for name in ("topdown16", "topdown8", "bottomup16", "bottomup32"):
        if name.startswith("bottomup"):
            yield from (f"down{name[8:]}.{part}" for part in ("depthwise", "pointwise"))
        yield from (f"{name}.{part}" for part in (
            "ghost1.primary", "ghost1.cheap", "ghost2.primary", "ghost2.cheap", "shortcut.depthwise", "shortcut.pointwise"))
    yield from ("extra_in.depthwise", "extra_in.pointwise", "extra_out.depthwise", "extra_out.pointwise")
    for stride in (8, 16, 32, 64):
        for layer in range(2):
            yield from (f"head{stride}.{layer}.{part}" for part in ("depthwise", "pointwise"))
        yield f"head{stride}.out"


def published(path):
    graph = onnx.load(path).graph
    values = {tensor.name: torch.from_numpy(numpy_helper.to_array(tensor).copy()) for tensor in graph.initializer}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    ours = list(names())
    assert len(ours) == len(convolutions), (len(ours), len(convolutions))
    weights = {}
    for name, node in zip(ours, convolutions):
        weights[f"{name}.weight"] = values[node.input[1]].float()
        weights[f"{name}.bias"] = values[node.input[2]].float()
    return weights


def convolve(w, name, x, stride=1, activate=True):
    weight = w[f"{name}.weight"]
    groups = x.shape[1] if weight.shape[1] == 1 else 1
    x = F.conv2d(x, weight, w[f"{name}.bias"], stride, weight.shape[-1] // 2, groups=groups)
    return F.leaky_relu(x, 0.1) if activate else x


def separable(w, name, x, stride=1):
    return convolve(w, f"{name}.pointwise", convolve(w, f"{name}.depthwise", x, stride))


def shuffle(left, right):
    return torch.stack((left, right), 2).flatten(1, 2)


def unit_inner(w, name, x):
    """What the last convolution of a unit's right branch reads."""
    return convolve(w, f"{name}.depthwise", convolve(w, f"{name}.pointwise1", x), activate=False)


def unit(w, name, x):
    left, right = x.chunk(2, 1)
    return shuffle(left, convolve(w, f"{name}.right.pointwise2", unit_inner(w, f"{name}.right", right)))


def down_unit(w, name, x):
    left = convolve(w, f"{name}.left.pointwise", convolve(w, f"{name}.left.depthwise", x, 2, False))
    right = convolve(w, f"{name}.right.pointwise1", x)
    right = convolve(w, f"{name}.right.pointwise2", convolve(w, f"{name}.right.depthwise", right, 2, False))
    return shuffle(left, right)


def backbone(w, x, last_units=4):
    x = F.max_pool2d(convolve(w, "stem", x, 2), 3, 2, 1)
    features = []
    for stage, units in ((2, 4), (3, 8), (4, last_units)):
        for index in range(units):
            x = (down_unit if index == 0 else unit)(w, f"stage{stage}.{index}", x)
        features.append(x)
    return features


def ghost(w, name, x, activate):
    primary = convolve(w, f"{name}.primary", x, activate=activate)
    return torch.cat((primary, convolve(w, f"{name}.cheap", primary, activate=activate)), 1)


def fuse(w, name, other, own):
    x = torch.cat((other, own), 1)
    ghosts = ghost(w, f"{name}.ghost2", ghost(w, f"{name}.ghost1", x, True), False)
    shortcut = convolve(w, f"{name}.shortcut.depthwise", x, activate=False)
    return ghosts + convolve(w, f"{name}.shortcut.pointwise", shortcut, activate=False)


def neck(w, features, mode):
    up = (lambda x: F.interpolate(x, scale_factor=2, mode="bilinear")) if mode == "bilinear" else (
        lambda x: F.interpolate(x, scale_factor=2, mode="nearest"))
    l8, l16, l32 = (convolve(w, f"lateral{stride}", x) for stride, x in zip((8, 16, 32), features))
    p4 = fuse(w, "topdown16", up(l32), l16)
    p3 = fuse(w, "topdown8", up(p4), l8)
    n4 = fuse(w, "bottomup16", separable(w, "down16", p3, 2), p4)
    return p3, n4, fuse(w, "bottomup32", separable(w, "down32", n4, 2), l32)


def head_features(w, maps):
    return {s: separable(w, f"head{s}.1", separable(w, f"head{s}.0", x)) for s, x in zip((8, 16, 32), maps)}


def pictures(folder):
    paths = sorted(path for path in pathlib.Path(folder).rglob("*") if path.suffix in (".jpg", ".webp"))
    for path in paths[:: max(1, len(paths) // COUNT)][:COUNT]:
        image = Image.open(path).convert("RGB")
        scale = SIZE / max(image.size)
        image = image.resize([max(1, round(side * scale)) for side in image.size], Image.BILINEAR)
        canvas = np.full((SIZE, SIZE, 3), GREY, np.float32)
        x, y = (SIZE - image.width) // 2, (SIZE - image.height) // 2
        canvas[y : y + image.height, x : x + image.width] = np.asarray(image, np.float32) / 255
        yield torch.from_numpy(canvas).permute(2, 0, 1)


def least_squares(x, y, weight=None, ridge=1e-4):
    """A and b of y = x A + b, where errors of a row count by its weight."""
    x = torch.cat((x, torch.ones_like(x[:, :1])), 1).double()
    weighted = x if weight is None else x * weight.double().unsqueeze(1)
    square = weighted.T @ x
    square += ridge * square.diagonal().mean() * torch.eye(len(square), dtype=torch.double)
    solution = torch.linalg.solve(square, weighted.T @ y.double()).float()
    return solution[:-1], solution[-1]


def eliminate(inputs, wanted, count, groups=None, at_once=1):
    """Indices of the `count` inputs (or groups of them) from which `wanted` follows best. Those whose loss raises the squared error
    least go, `at_once` of them before the rest is looked at again (optimal brain surgeon)."""
    groups = groups or [[index] for index in range(inputs.shape[1])]
    x, y = (inputs - inputs.mean(0)).double(), (wanted - wanted.mean(0)).double()
    gram, cross = x.T @ x, x.T @ y
    gram += 1e-5 * gram.diagonal().mean() * torch.eye(len(gram), dtype=torch.double)
    left = list(range(len(groups)))
    while len(left) > count:
        columns = [column for index in left for column in groups[index]]
        inverse = torch.linalg.inv(gram[columns][:, columns])
        solution = inverse @ cross[columns]
        size = len(groups[0])
        parts = [slice(start, start + size) for start in range(0, len(columns), size)]
        harm = torch.stack([(solution[p] * torch.linalg.solve(inverse[p, p], solution[p])).sum() for p in parts])
        for position in sorted(harm.argsort()[: min(at_once, len(left) - count)].tolist(), reverse=True):
            del left[position]
    return left


def prune(w, teacher_inner, name, x):
    """Keeps HIDDEN inner channels of the unit that reads `x` so that its result stays near the published one's."""
    rows = lambda x: x.permute(0, 2, 3, 1).flatten(0, 2)
    weight = w[f"{name}.pointwise2.weight"][:, :, 0, 0]
    wanted = rows(teacher_inner) @ weight.T
    inner = rows(unit_inner(w, name, x))
    left = eliminate(inner, wanted, HIDDEN, at_once=8)
    solution, bias = least_squares(inner[:, left], wanted)
    error = (inner[:, left] @ solution + bias - wanted).square().mean() / wanted.var()
    print(f"{name}: {inner.shape[1]} -> {len(left)} channels, {100 * error:.2f} % of the variance lost")
    for part in ("pointwise1.weight", "pointwise1.bias", "depthwise.weight", "depthwise.bias"):
        w[f"{name}.{part}"] = w[f"{name}.{part}"][left]
    w[f"{name}.pointwise2.weight"] = solution.T[:, :, None, None].contiguous()
    w[f"{name}.pointwise2.bias"] = w[f"{name}.pointwise2.bias"] + bias


def refit_boxes(w, stride, features, wanted_features, published_out):
    rows = lambda x: x.permute(0, 2, 3, 1).flatten(0, 2)
    weight, bias = published_out[0][:, :, 0, 0], published_out[1]
    wanted = rows(wanted_features) @ weight.T + bias
    sure = wanted[:, :CLASSES].amax(1).sigmoid() > 0.05
    p = wanted[sure][:, CLASSES:].reshape(-1, 4, BINS).softmax(-1)
    back, forth = torch.zeros_like(p), torch.zeros_like(p)
    back[..., 1:] = p[..., :-1]
    back[..., -1] += p[..., -1]
    forth[..., :-1] = p[..., 1:]
    forth[..., 0] += p[..., 0]
    # Left and top distances grow by half a cell, right and bottom ones shrink.
    shifted = torch.cat((0.5 * (p + back)[:, :2], 0.5 * (p + forth)[:, 2:]), 1)
    logits = shifted.clamp_min(1e-4).log()
    logits = logits - logits.mean(-1, keepdim=True)
    solution, offset = least_squares(rows(features)[sure], logits.flatten(1))
    found = (rows(features)[sure] @ solution + offset).reshape(-1, 4, BINS).softmax(-1)
    bins = torch.arange(BINS)
    error = ((found * bins).sum(-1) - (shifted * bins).sum(-1)).abs().mean()
    print(f"stride {stride}: {int(sure.sum())} cells, mean difference {error:.3f} strides")
    w[f"head{stride}.box.out.weight"] = solution.T[:, :, None, None].contiguous()
    w[f"head{stride}.box.out.bias"] = offset
    w[f"head{stride}.class.out.weight"] = published_out[0][:CLASSES].contiguous()
    w[f"head{stride}.class.out.bias"] = published_out[1][:CLASSES].contiguous()


def write(path, weights):
    header, offset, order = {}, 0, sorted(weights)
    for name in order:
        size = weights[name].numel() * 4
        header[name] = {"dtype": "F32", "shape": list(weights[name].shape), "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name in order:
            file.write(weights[name].contiguous().numpy().tobytes())


@torch.no_grad()
def main(source, folder, output):
    whole = published(source)
    stem = whole["stem.weight"]
    scaled = stem * 255 / DEVIATION[None, :, None, None]
    whole["stem.bias"] = whole["stem.bias"] - (stem * (MEAN / DEVIATION)[None, :, None, None]).sum((1, 2, 3))
    whole["stem.weight"] = scaled.flip(1).contiguous()  # RGB
    w = dict(whole)
    x = torch.stack(list(pictures(folder)))
    features, kept = backbone(whole, x), backbone(w, x, last_units=1)
    full = kept[2]
    for index in (1, 2, 3):
        name = f"stage4.{index}"
        prune(w, unit_inner(whole, f"{name}.right", full.chunk(2, 1)[1]), f"{name}.right", kept[2].chunk(2, 1)[1])
        full, kept[2] = unit(whole, name, full), unit(w, name, kept[2])
    found = head_features(w, neck(w, kept, "nearest"))
    wanted = head_features(whole, neck(whole, features, "bilinear"))
    for stride in (8, 16, 32):
        out = (w.pop(f"head{stride}.out.weight"), w.pop(f"head{stride}.out.bias"))
        refit_boxes(w, stride, found[stride], wanted[stride], out)
    write(output, {name: value for name, value in w.items() if not name.startswith(("extra", "head64"))})


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__.splitlines()[0])
    main(*sys.argv[1:])
