#!/usr/bin/env python3
"""Weights for a smaller ghost network from a larger one's: python3 train/convert/smaller.py LARGE.toml SMALL.toml PHOTOGRAPHS OUTPUT

Layer by layer, on the photographs: the channels that explain the layer's result best are chosen greedily, then the layer's
weights are fitted by least squares so that it computes those channels from what the smaller network has (He et al. 2017,
"Channel pruning for accelerating very deep neural networks", here for every layer). Depthwise filters of chosen channels
are kept. Both configurations have split = "halves", fusion = "ghost", shared heads, the same stem, widths of the second and third stage, bins and classes.
`scripts/setup --gpu` installs what it needs. The result is a start: training takes it on (train/gpu/n.toml).
"""
import json
import pathlib
import struct
import sys
import tomllib

import torch
from torch.nn import functional as F

from nanodet_plus import convolve, eliminate, least_squares, pictures, shuffle, write

HEAD = 16  # channels of an attention head


def read(path):
    """Configuration and weights of a model."""
    path = pathlib.Path(path)
    config = tomllib.loads(path.read_text())
    data = path.with_suffix(".safetensors")
    if not data.exists():
        return config, {}
    data = data.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    weights = {}
    for name, entry in json.loads(data[8 : 8 + length]).items():
        if name != "__metadata__":
            start, end = (8 + length + offset for offset in entry["data_offsets"])
            weights[name] = torch.frombuffer(bytearray(data[start:end]), dtype=torch.float32).reshape(entry["shape"])
    return config, weights


def rows(x):
    return x.permute(0, 2, 3, 1).flatten(0, 2)


def maps(x, like):
    return x.reshape(like.shape[0], like.shape[2], like.shape[3], -1).permute(0, 3, 1, 2).contiguous()


def activate(x):
    return F.leaky_relu(x, 0.1)


def choose(x, count, groups=None):
    """Indices of the `count` columns of x (or groups of columns) that explain all columns best, chosen one by one."""
    groups = groups or [[index] for index in range(x.shape[1])]
    x = (x - x.mean(0)).double()
    covariance = x.T @ x
    covariance += 1e-6 * covariance.diagonal().mean() * torch.eye(len(covariance), dtype=torch.double)
    chosen = []
    while len(chosen) < count:
        best, gain = None, -1.0
        for index, group in enumerate(groups):
            if index in chosen:
                continue
            block = covariance[group][:, group]
            block = block + 1e-9 * covariance.diagonal().max() * torch.eye(len(group), dtype=torch.double)
            explained = (covariance[:, group] @ torch.linalg.inv(block) * covariance[:, group]).sum().item()
            if explained > gain:
                best, gain = index, explained
        chosen.append(best)
        block = covariance[groups[best]][:, groups[best]]
        block = block + 1e-9 * covariance.diagonal().max() * torch.eye(len(block), dtype=torch.double)
        columns = covariance[:, groups[best]]
        covariance = covariance - columns @ torch.linalg.inv(block) @ columns.T
    return sorted(chosen)


class Pair:
    """The large network and the small one that is made from it. A feature is (large map, small map, channels): the small
    map stands for those channels of the large one."""

    def __init__(self, large):
        self.large, self.small = large, {}

    def pointwise(self, name, feature, channels=None, count=None, active=True, add=None):
        """A fitted 1x1 convolution with `count` of the large one's channels, or with `channels`."""
        old, new, _ = feature
        weight, bias = self.large[f"{name}.weight"][:, :, 0, 0], self.large[f"{name}.bias"]
        wanted = rows(old) @ weight.T + bias
        if channels is None:
            channels = choose(activate(wanted) if active else wanted, count)
        inputs = rows(new)
        solution, offset = least_squares(inputs, wanted[:, channels])
        found = inputs @ solution + offset
        self.say(name, found, wanted[:, channels])
        self.small[f"{name}.weight"] = solution.T[:, :, None, None].contiguous()
        self.small[f"{name}.bias"] = offset
        wanted, found = maps(wanted, old), maps(found, new)
        if active:
            wanted, found = activate(wanted), activate(found)
        if add is not None:
            wanted, found = wanted + add[0], found + add[1]
        return wanted, found, channels

    def say(self, name, found, wanted):
        lost = (found - wanted).square().mean() / (wanted - wanted.mean(0)).square().mean()
        print(f"{name}: {wanted.shape[1]} channels, {100 * lost:.1f} % of the variance lost", flush=True)

    def depthwise(self, name, feature, stride=1, active=False):
        """The filters of the feature's channels."""
        old, new, channels = feature
        weight, bias = self.large[f"{name}.weight"], self.large.get(f"{name}.bias")
        self.small[f"{name}.weight"] = weight[channels].contiguous()
        if bias is not None:
            self.small[f"{name}.bias"] = bias[channels].contiguous()
        convolve = lambda x, w, b: F.conv2d(x, w, b, stride, weight.shape[-1] // 2, groups=x.shape[1])
        wanted = convolve(old, weight, bias)
        found = convolve(new, weight[channels], None if bias is None else bias[channels])
        if active:
            wanted, found = activate(wanted), activate(found)
        return wanted, found, channels

    def separable(self, name, feature, count, stride=1):
        return self.pointwise(f"{name}.pointwise", self.depthwise(f"{name}.depthwise", feature, stride, True), count=count)

    def inner(self, name, feature, count, stride, outputs):
        """The right branch of a unit: the inner channels that the result needs most."""
        old, _, _ = feature
        weight, bias = (self.large[f"{name}.pointwise1.{part}"] for part in ("weight", "bias"))
        hidden = activate(F.conv2d(old, weight, bias))
        depthwise = (self.large[f"{name}.depthwise.{part}"] for part in ("weight", "bias"))
        hidden = rows(F.conv2d(hidden, *depthwise, stride, 1, groups=hidden.shape[1]))
        last = self.large[f"{name}.pointwise2.weight"][outputs][:, :, 0, 0]
        channels = eliminate(hidden, hidden @ last.T, count)
        inner = self.pointwise(f"{name}.pointwise1", feature, channels=channels)
        inner = self.depthwise(f"{name}.depthwise", inner, stride)
        return self.pointwise(f"{name}.pointwise2", inner, channels=outputs)

    def down_unit(self, name, feature, half, hidden):
        """First unit of a stage. Channels come in equal parts from both halves of each branch, so that the next units'
        halves are parts of the large ones'."""
        left = self.depthwise(f"{name}.left.depthwise", feature, 2)
        weight, bias = self.large[f"{name}.left.pointwise.weight"][:, :, 0, 0], self.large[f"{name}.left.pointwise.bias"]
        channels = spread(activate(rows(left[0]) @ weight.T + bias), half)
        left = self.pointwise(f"{name}.left.pointwise", left, channels=channels)
        outputs = self.outputs(f"{name}.right", feature[0], 2, half)
        right = self.inner(f"{name}.right", feature, hidden, 2, outputs)
        return shuffle(left[0], right[0]), shuffle(left[1], right[1]), None

    def outputs(self, name, x, stride, half):
        """The channels of a right branch's result that the small network keeps."""
        x = convolve(self.large, f"{name}.pointwise1", x)
        x = convolve(self.large, f"{name}.depthwise", x, stride, activate=False)
        x = convolve(self.large, f"{name}.pointwise2", x)
        return list(range(x.shape[1])) if half == x.shape[1] else spread(rows(x), half)

    def unit(self, name, feature, hidden):
        (old_left, old_right), (left, right) = feature[0].chunk(2, 1), feature[1].chunk(2, 1)
        half = right.shape[1]
        outputs = self.outputs(f"{name}.right", old_right, 1, half)
        found = self.inner(f"{name}.right", (old_right, right, None), hidden, 1, outputs)
        return shuffle(old_left, found[0]), shuffle(left, found[1]), None

    def ghost(self, name, feature, half, active):
        weight, bias = self.large[f"{name}.primary.weight"][:, :, 0, 0], self.large[f"{name}.primary.bias"]
        primary = rows(feature[0]) @ weight.T + bias
        chosen = choose(activate(primary) if active else primary, half)
        primary = self.pointwise(f"{name}.primary", feature, channels=chosen, active=active)
        cheap = self.depthwise(f"{name}.cheap", primary, active=active)
        width = weight.shape[0]
        channels = chosen + [width + channel for channel in chosen]
        return torch.cat((primary[0], cheap[0]), 1), torch.cat((primary[1], cheap[1]), 1), channels

    def fuse(self, name, other, own, width):
        joined = tuple(torch.cat((other[k], own[k]), 1) for k in (0, 1))
        channels = other[2] + [other[0].shape[1] + channel for channel in own[2]]
        joined = (*joined, channels)
        ghosts = self.ghost(f"{name}.ghost1", joined, width // 2, True)
        ghosts = self.ghost(f"{name}.ghost2", ghosts, width // 2, False)
        shortcut = self.depthwise(f"{name}.shortcut.depthwise", joined)
        old, new, _ = shortcut
        # The shortcut also makes good what the ghosts lost.
        weight, bias = self.large[f"{name}.shortcut.pointwise.weight"], self.large[f"{name}.shortcut.pointwise.bias"]
        wanted = F.conv2d(old, weight, bias) + ghosts[0]
        rest = rows(wanted)[:, ghosts[2]] - rows(ghosts[1])
        solution, offset = least_squares(rows(new), rest)
        found = rows(new) @ solution + offset + rows(ghosts[1])
        self.say(name, found, rows(wanted)[:, ghosts[2]])
        self.small[f"{name}.shortcut.pointwise.weight"] = solution.T[:, :, None, None].contiguous()
        self.small[f"{name}.shortcut.pointwise.bias"] = offset
        return wanted, maps(found, new), ghosts[2]

    def attention(self, name, feature, inner, hidden):
        """Keeps the heads and gated channels that the block's result needs most."""
        qkv = self.large[f"{name}.qkv.weight"].shape[0] // 3
        heads = qkv // HEAD
        projection = self.large[f"{name}.proj.weight"][:, :, 0, 0]
        large = F.conv2d(feature[0], self.large[f"{name}.qkv.weight"], self.large[f"{name}.qkv.bias"])
        mixed = linear_attention(large, heads) + F.conv2d(
            large[:, 2 * qkv :], self.large[f"{name}.position.weight"], None, 1, 1, groups=qkv)
        groups = [list(range(head * HEAD, (head + 1) * HEAD)) for head in range(heads)]
        kept = eliminate(rows(mixed), rows(mixed) @ projection.T, inner // HEAD, groups)
        channels = [channel for head in kept for channel in groups[head]]
        all_channels = [part * qkv + channel for part in range(3) for channel in channels]
        found = self.pointwise(f"{name}.qkv", feature, channels=all_channels, active=False)
        value = (large[:, 2 * qkv :], found[1][:, 2 * inner :], channels)
        position = self.depthwise(f"{name}.position", value)
        small = linear_attention(found[1], inner // HEAD) + position[1]
        projected = self.pointwise(f"{name}.proj", (mixed, small, channels), count=feature[1].shape[1], active=False)
        up = self.large[f"{name}.up.weight"].shape[0] // 2
        raised = F.conv2d(projected[0], self.large[f"{name}.up.weight"], self.large[f"{name}.up.bias"])
        gated = raised[:, :up] * F.silu(raised[:, up:])
        down = self.large[f"{name}.down.weight"][:, :, 0, 0]
        kept = eliminate(rows(gated), rows(gated) @ down.T, hidden)
        found = self.pointwise(f"{name}.up", projected, channels=kept + [up + channel for channel in kept], active=False)
        small = found[1][:, :hidden] * F.silu(found[1][:, hidden:])
        return self.pointwise(f"{name}.down", (gated, small, None), channels=feature[2], active=False, add=feature)

    def head(self, stride, feature, width, shared):
        for layer in range(shared):
            feature = self.separable(f"head{stride}.{layer}", feature, width)
        old, new, _ = feature
        classes, boxes = (rows(convolve(self.large, f"head{stride}.{part}.out", old, activate=False)) for part in ("class", "box"))
        certainty = classes.sigmoid().amax(1)
        sure = certainty > 0.05
        for part, wanted, weight in (("class", classes, certainty.clamp_min(0.02)), ("box", boxes, certainty * sure)):
            inputs = rows(new)
            solution, offset = least_squares(inputs, wanted, weight)
            found = inputs @ solution + offset
            self.say(f"head{stride}.{part}", found[sure], wanted[sure])
            self.small[f"head{stride}.{part}.out.weight"] = solution.T[:, :, None, None].contiguous()
            self.small[f"head{stride}.{part}.out.bias"] = offset


def linear_attention(x, heads):
    """Exact linear attention with the kernel sum exp(a) exp(b), as the project's."""
    n, channels, height, width = x.shape
    q, k, v = x.reshape(n, 3, heads, channels // 3 // heads, height * width).unbind(1)
    scale = q.shape[2] ** -0.25
    q, k = q * scale, k * scale
    peak = k.amax(-1, keepdim=True)
    query = q + peak
    phi, psi = (query - query.amax(-2, keepdim=True)).exp(), (k - peak).exp()
    sums = psi @ v.transpose(-1, -2)
    numerator = sums.transpose(-1, -2) @ phi
    denominator = (phi * psi.sum(-1, keepdim=True)).sum(-2, keepdim=True)
    return (numerator / denominator.clamp_min(1e-12)).reshape(n, channels // 3, height, width)


def spread(x, count):
    """As `choose`, the same number from each quarter of the channels where they divide so."""
    parts = next(parts for parts in (4, 2, 1) if x.shape[1] % parts == 0 and count % parts == 0)
    size = x.shape[1] // parts
    chosen = (choose(x[:, part * size : (part + 1) * size], count // parts) for part in range(parts))
    return [part * size + channel for part, channels in enumerate(chosen) for channel in channels]


@torch.no_grad()
def main(large, small, folder, output):
    _, weights = read(large)
    config, _ = read(small)
    backbone, neck, head = config["backbone"], config["neck"], config["head"]
    x = torch.stack(list(pictures(folder)))
    pair = Pair(weights)
    pair.small.update((name, value) for name, value in weights.items() if name.startswith("stem"))
    x = F.max_pool2d(convolve(weights, "stem", x, 2), 3, 2, 1)
    feature = (x, x, list(range(x.shape[1])))
    features = []
    for stage in (0, 1, 2):
        half = backbone["widths"][stage] // 2
        feature = pair.down_unit(f"stage{stage + 2}.0", feature, half, backbone["first_hidden"][stage])
        for index in range(1, backbone["repeats"][stage]):
            feature = pair.unit(f"stage{stage + 2}.{index}", feature, backbone["hidden"][stage])
        if stage < 2: # as wide as the large one's
            feature = (feature[0], feature[1], list(range(feature[0].shape[1])))
        features.append(feature)
    width, inner, hidden = neck["width"], neck.get("attention_width", neck["width"]), neck["hidden"]
    lateral8, lateral16, lateral32 = (
        pair.pointwise(f"lateral{stride}", feature, count=width) for stride, feature in zip((8, 16, 32), features))
    up = lambda f: tuple(F.interpolate(part, scale_factor=2, mode="nearest") for part in f[:2]) + (f[2],)
    p5 = pair.attention("ela32", lateral32, inner, hidden)
    p4 = pair.attention("ela16", pair.fuse("topdown16", up(p5), lateral16, width), inner, hidden)
    p3 = pair.fuse("topdown8", up(p4), lateral8, width)
    n4 = pair.fuse("bottomup16", pair.separable("down16", p3, width, 2), p4, width)
    n5 = pair.fuse("bottomup32", pair.separable("down32", n4, width, 2), p5, width)
    for stride, feature in zip((8, 16, 32), (p3, n4, n5)):
        pair.head(stride, feature, width, head["shared"])
    write(output, pair.small)
    print(sum(value.numel() for value in pair.small.values()), "parameters")


if __name__ == "__main__":
    if len(sys.argv) != 5:
        sys.exit(__doc__.splitlines()[0])
    main(*sys.argv[1:])
