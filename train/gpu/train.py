#!/usr/bin/env python3
"""Trains a model of this project on one GPU within a given time: train/gpu/train.py MODEL.toml START.toml DATA OUTPUT --seconds 540

The network, the losses and the augmentation are those of the trainer (train/src, which has the tests), in eager PyTorch with all photographs
in the GPU's memory: a lent GPU without Rust or network needs nothing but PyTorch, Pillow and, for published teachers, onnx. The learning
rate follows the time that has passed. `--teacher FILE.onnx` (NanoDet-Plus-m, PicoDet-S; several answer as one), `--own-teacher MODEL.toml`.
"""
import argparse
import concurrent.futures
import json
import math
import pathlib
import sys
import time
import tomllib

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "convert"))
from classes import COCO_OF_VOC  # noqa: E402
from nanodet_plus import write  # noqa: E402
from smaller import linear_attention, read  # noqa: E402

STRIDES, SIDE, MOST, GREY = (8, 16, 32), 416, 80, 114.0
BOX_WEIGHT, DISTRIBUTION_WEIGHT, LEAST_CERTAINTY, CANDIDATES = 2.0, 0.5, 0.05, 10
VOC = ["airplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "dining table", "dog", "horse", "motorcycle",
       "person", "potted plant", "sheep", "couch", "train", "tv"]
FEATURES = ["stage3.7.shuffle", "stage4.3.shuffle", "topdown8.shortcut.pointwise", "bottomup16.shortcut.pointwise", "bottomup32.shortcut.pointwise"]
SETS = [("voc2007/train", "annotations.json", 1), ("voc2012-part", "annotations.json", 1),
        ("coco2017-part", "annotations_coco80_train.json", 2), ("coco128-train2017", "annotations.json", 2)]


class Network(torch.nn.Module):
    """yolo_lat.rs with a batch norm behind every convolution that has a bias."""

    def __init__(self, config):
        super().__init__()
        self.config, self.values, self.norms = config, torch.nn.ParameterDict(), torch.nn.ModuleDict()
        self.restoring, self.fresh, self.taps = False, set(), {}
        self.building = True
        self.eval()  # so that this pass leaves the statistics as they are
        with torch.no_grad():
            self.forward(torch.zeros(1, 3, 64, 64))
        self.building = False

    @staticmethod
    def key(name):
        return name.replace(".", "/")

    def conv(self, name, x, outputs, kernel=1, stride=1, groups=1, active=False, norm=True, bias=True):
        key = self.key(name)
        if self.building:
            shape = (outputs, x.shape[1] // groups, kernel, kernel)
            self.values[key] = torch.nn.Parameter(torch.randn(shape) * math.sqrt(2 / (shape[1] * kernel * kernel)))
            if norm:
                self.norms[key] = torch.nn.BatchNorm2d(outputs).eval()
                if name.endswith(".down"):
                    torch.nn.init.zeros_(self.norms[key].weight)
            elif bias:
                self.values[key + "/bias"] = torch.nn.Parameter(torch.full((outputs,), -4.6 if "class" in name else 0.0))
            self.fresh.add(key)
        x = F.conv2d(x, self.values[key], self.values[key + "/bias"] if bias and not norm else None, stride, kernel // 2, 1, groups)
        if norm:
            layer = self.norms[key]
            if self.restoring:
                mean, variance = x.float().mean((0, 2, 3)), x.float().var((0, 2, 3), unbiased=False)
                layer.running_mean.copy_(mean)
                layer.running_var.copy_(variance)
                if key not in self.fresh:
                    layer.bias.copy_(layer.bias + mean)
                    layer.weight.copy_((variance + layer.eps).sqrt())
            x = layer(x)
        return F.leaky_relu(x, self.config["activation"]["leaky_relu"], inplace=not self.building) if active else x

    def depthwise(self, name, x, kernel, stride=1, active=False, **more):
        return self.conv(name, x, x.shape[1], kernel, stride, x.shape[1], active, **more)

    def separable(self, name, x, stride=1):
        return self.conv(f"{name}.pointwise", self.depthwise(f"{name}.depthwise", x, 5, stride, True), x.shape[1], active=True)

    def shuffle(self, name, left, right):
        x = torch.stack((left, right), 2).flatten(1, 2)
        return self.tap(f"{name}.shuffle", x)

    def tap(self, name, x):
        if name in FEATURES:
            self.taps[name] = x
        return x

    def down_unit(self, name, x, width, hidden):
        left = self.conv(f"{name}.left.pointwise", self.depthwise(f"{name}.left.depthwise", x, 3, 2), width // 2, active=True)
        right = self.conv(f"{name}.right.pointwise1", x, hidden, active=True)
        right = self.depthwise(f"{name}.right.depthwise", right, 3, 2)
        return self.shuffle(name, left, self.conv(f"{name}.right.pointwise2", right, width // 2, active=True))

    def unit(self, name, x, hidden):
        left, right = x.chunk(2, 1)
        half = right.shape[1]
        right = self.conv(f"{name}.right.pointwise1", right, hidden, active=True)
        right = self.depthwise(f"{name}.right.depthwise", right, 3)
        return self.shuffle(name, left, self.conv(f"{name}.right.pointwise2", right, half, active=True))

    def ghost(self, name, x, width, active):
        primary = self.conv(f"{name}.primary", x, width // 2, active=active)
        return torch.cat((primary, self.depthwise(f"{name}.cheap", primary, 3, active=active)), 1)

    def fuse(self, name, other, own, width):
        x = torch.cat((other, own), 1)
        ghosts = self.ghost(f"{name}.ghost2", self.ghost(f"{name}.ghost1", x, width, True), width, False)
        shortcut = self.depthwise(f"{name}.shortcut.depthwise", x, 5)
        return self.tap(f"{name}.shortcut.pointwise", self.conv(f"{name}.shortcut.pointwise", shortcut, width) + ghosts)

    def attention(self, name, x, neck):
        inner, hidden = neck.get("attention_width", neck["width"]), neck["hidden"]
        qkv = self.conv(f"{name}.qkv", x, 3 * inner)
        with torch.autocast(x.device.type, enabled=False):
            mixed = linear_attention(qkv.float(), neck["heads"]).type_as(qkv)
        mixed = mixed + self.depthwise(f"{name}.position", qkv[:, 2 * inner :], 3, norm=False, bias=False)
        mixed = self.conv(f"{name}.proj", mixed, neck["width"])
        u, g = self.conv(f"{name}.up", mixed, 2 * hidden).chunk(2, 1)
        return self.conv(f"{name}.down", u * F.silu(g), neck["width"]) + x

    def forward(self, x):
        backbone, neck, head = (self.config[part] for part in ("backbone", "neck", "head"))
        self.taps = {}
        x = F.max_pool2d(self.conv("stem", x, backbone["stem"], 3, 2, active=True), 3, 2, 1)
        features = []
        halves = [width // 2 for width in backbone["widths"]]
        for stage, width in enumerate(backbone["widths"]):
            x = self.down_unit(f"stage{stage + 2}.0", x, width, backbone.get("first_hidden", halves)[stage])
            for index in range(1, backbone["repeats"][stage]):
                x = self.unit(f"stage{stage + 2}.{index}", x, backbone.get("hidden", halves)[stage])
            features.append(x)
        width = neck["width"]
        l8, l16, l32 = (self.conv(f"lateral{s}", f, width, active=True) for s, f in zip(STRIDES, features))
        up = lambda x: F.interpolate(x, scale_factor=2.0, mode="nearest")
        p5 = self.attention("ela32", l32, neck)
        p4 = self.attention("ela16", self.fuse("topdown16", up(p5), l16, width), neck)
        p3 = self.fuse("topdown8", up(p4), l8, width)
        n4 = self.fuse("bottomup16", self.separable("down16", p3, 2), p4, width)
        n5 = self.fuse("bottomup32", self.separable("down32", n4, 2), p5, width)
        outputs = []
        for stride, x in zip(STRIDES, (p3, n4, n5)):
            for layer in range(head["shared"]):
                x = self.separable(f"head{stride}.{layer}", x)
            for part, count in (("class", len(self.config["classes"])), ("box", 4 * head["bins"])):
                outputs.append(self.conv(f"head{stride}.{part}.out", x, count, norm=False).float())
        return outputs

    @torch.no_grad()
    def init(self, weights):
        """Folded weights where they fit; what is missing."""
        missing = []
        for key in [key for key in self.values if not key.endswith("/bias")]:
            name = key.replace("/", ".")
            weight, bias = weights.get(f"{name}.weight"), weights.get(f"{name}.bias")
            if weight is None or weight.shape != self.values[key].shape:
                missing.append(name)
                continue
            self.fresh.discard(key)
            self.values[key].copy_(weight)
            if key in self.norms:
                self.norms[key].bias.copy_(bias)
                self.norms[key].weight.fill_(math.sqrt(1 + self.norms[key].eps))
            elif bias is not None:
                self.values[key + "/bias"].copy_(bias)
        return missing

    @torch.no_grad()
    def restore(self, pictures):
        """Batch norms that undo themselves on these pictures, so that the network computes what its folded weights do."""
        self.eval()
        self.restoring = True
        self(pictures)
        self.restoring = False
        self.fresh = set()

    @torch.no_grad()
    def fold(self):
        folded = {}
        for key in [key for key in self.values if not key.endswith("/bias")]:
            name, weight = key.replace("/", "."), self.values[key].float()
            if key in self.norms:
                layer = self.norms[key]
                scale = layer.weight / (layer.running_var + layer.eps).sqrt()
                folded[f"{name}.bias"] = (layer.bias - layer.running_mean * scale).cpu()
                weight = weight * scale[:, None, None, None]
            elif key + "/bias" in self.values:
                folded[f"{name}.bias"] = self.values[key + "/bias"].cpu()
            folded[f"{name}.weight"] = weight.cpu().contiguous()
        return {name: value.detach().float().contiguous() for name, value in folded.items()}


class Predictions:
    """All cells of a batch: finest scale first."""

    def __init__(self, outputs, bins, furthest):
        rows = lambda x: x.flatten(2).transpose(1, 2)
        self.logits = torch.cat([rows(x) for x in outputs[::2]], 1)
        self.box_logits = torch.cat([rows(x) for x in outputs[1::2]], 1).unflatten(-1, (4, bins))
        device = self.logits.device
        centers, strides = [], []
        for x, stride in zip(outputs[::2], STRIDES):
            y, x = torch.meshgrid(*(torch.arange(n, device=device) + 0.5 for n in x.shape[2:]), indexing="ij")
            centers.append(torch.stack((x, y), -1).reshape(-1, 2) * stride)
            strides.append(torch.full((y.numel(),), float(stride), device=device))
        self.centers, self.strides = torch.cat(centers), torch.cat(strides)
        projection = torch.linspace(0, furthest, bins, device=device)
        distances = self.box_logits.softmax(-1) @ projection * self.strides[:, None]
        self.boxes = torch.cat((self.centers - distances[..., :2], self.centers + distances[..., 2:]), -1)
        self.bins, self.furthest = bins, furthest


def overlap(a, b, complete=False):
    wh = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp_min(0)
    shared = wh[..., 0] * wh[..., 1]
    awh, bwh = a[..., 2:] - a[..., :2], b[..., 2:] - b[..., :2]
    iou = shared / (awh[..., 0] * awh[..., 1] + bwh[..., 0] * bwh[..., 1] - shared).clamp_min(1e-7)
    if not complete:
        return iou
    hull = torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])
    diagonal = hull.square().sum(-1) + 1e-7
    distance = (a[..., :2] + a[..., 2:] - b[..., :2] - b[..., 2:]).square().sum(-1) / 4
    angle = lambda wh: (wh[..., 0] / wh[..., 1].clamp_min(1e-7)).atan()
    aspect = (angle(bwh) - angle(awh)).square() * (4 / math.pi**2)
    weight = (aspect / (aspect - iou + (1 + 1e-7))).detach()
    return iou - distance / diagonal - weight * aspect


@torch.no_grad()
def assign(p, boxes, classes, mask):
    """Task-aligned assignment: each cell's object and quality."""
    cells = p.logits.shape[1]
    score = p.logits.detach().sigmoid().transpose(1, 2).gather(1, classes[..., None].expand(-1, -1, cells))
    iou = overlap(p.boxes.detach()[:, None], boxes[:, :, None]).clamp(0, 1)
    reach, middle = p.strides[None, None, :, None] * 0.5, ((boxes[..., :2] + boxes[..., 2:]) / 2)[:, :, None]
    low, high = torch.minimum(boxes[:, :, None, :2], middle - reach), torch.maximum(boxes[:, :, None, 2:], middle + reach)
    inside = torch.minimum(p.centers - low, high - p.centers).amin(-1) > 0
    allowed = (inside & mask[..., None]).float()
    alignment = score.sqrt() * iou.pow(6) * allowed
    best = (alignment + allowed * 1e-9).topk(min(CANDIDATES, cells), -1).indices
    chosen = torch.zeros_like(alignment).scatter_(-1, best, 1.0) * allowed
    claim, object_ = (chosen * (iou + 1e-9)).max(1)
    owned = torch.zeros_like(alignment).scatter_(1, object_[:, None], 1.0) * chosen * (claim > 0).float()[:, None]
    peak_alignment, peak_iou = (alignment * owned).amax(-1, True), (iou * owned).amax(-1, True)
    return object_, (alignment * owned / (peak_alignment + 1e-9) * peak_iou).amax(1)


def distribution(p, wanted, image_cell, weight):
    cell = image_cell % p.centers.shape[0]
    centers, strides = p.centers[cell], p.strides[cell][:, None]
    distances = torch.cat((centers - wanted[:, :2], wanted[:, 2:] - centers), -1)
    position = (distances / strides / (p.furthest / (p.bins - 1))).clamp(0, p.bins - 1 - 1e-3)
    lower = position.floor()
    share = position - lower
    logits = p.box_logits.flatten(0, 1)[image_cell].log_softmax(-1)
    at = lambda index: logits.gather(-1, index[..., None].long())[..., 0]
    return -((at(lower) * (1 - share) + at(lower + 1) * share).mean(-1) * weight).sum()


def label_loss(p, boxes, classes, mask, unknown):
    object_, quality = assign(p, boxes, classes, mask)
    normalizer = quality.sum().clamp_min(1)
    wanted = torch.zeros_like(p.logits).scatter_(2, classes.gather(1, object_)[..., None], quality[..., None])
    with torch.no_grad():
        weight = torch.where(wanted > 0, wanted, p.logits.sigmoid().square() * 0.75 * (1 - unknown))
    class_ = F.binary_cross_entropy_with_logits(p.logits, wanted, weight, reduction="sum") / normalizer
    positive = quality.flatten().nonzero()[:, 0]
    weight = quality.flatten()[positive]
    wanted = boxes.gather(1, object_[..., None].expand(-1, -1, 4)).flatten(0, 1)[positive]
    box = ((1 - overlap(p.boxes.flatten(0, 1)[positive], wanted, True)) * weight).sum() / normalizer
    return class_, box, distribution(p, wanted, positive, weight) / normalizer


def teacher_loss(p, scores, boxes, class_weight, box_weight):
    certainty = scores.amax(-1).flatten()
    certainty = torch.where(certainty > LEAST_CERTAINTY, certainty, torch.zeros_like(certainty))
    normalizer = certainty.sum().clamp_min(1)
    clamped = scores.clamp(1e-6, 1 - 1e-6)
    entropy = (clamped * clamped.log() + (1 - clamped) * (1 - clamped).log()).sum()
    class_ = (F.binary_cross_entropy_with_logits(p.logits, scores, reduction="sum") + entropy) / normalizer
    positive = certainty.nonzero()[:, 0]
    weight, wanted = certainty[positive], boxes.flatten(0, 1)[positive]
    box = ((1 - overlap(p.boxes.flatten(0, 1)[positive], wanted, True)) * weight).sum() * BOX_WEIGHT
    box = box + distribution(p, wanted, positive, weight) * DISTRIBUTION_WEIGHT
    return class_ * class_weight + box / normalizer * box_weight


def of_area(side, aspect):
    """As mix.rs."""
    best = (0.0, 32, 32)
    for width in range(32, 4 * side, 32):
        for height in range(32, int(1.125 * side * side / width) + 1, 32):
            scale = min(width / aspect, height)
            if scale > best[0] * 1.01 or scale > best[0] * 0.99 and width * height < best[1] * best[2]:
                best = (scale, width, height)
    return best[1:]


def decode(path):
    image = Image.open(path).convert("RGB")
    if max(image.size) > SIDE:
        raise ValueError(path)
    canvas = np.zeros((SIDE, SIDE, 3), np.uint8)
    canvas[: image.height, : image.width] = np.asarray(image)
    return canvas, image.size


class Photographs:
    """All photographs with their labels, on the device."""

    def __init__(self, data, classes, limit, device):
        paths, boxes, labels, unknown, crowds, sets = [], [], [], [], [], []
        index_of = {name: index for index, name in enumerate(classes)}
        for number, (folder, file, _) in enumerate(SETS):
            content = json.loads((data / folder / file).read_text())
            names = {category["id"]: COCO_OF_VOC.get(category["name"], category["name"]) for category in content["categories"]}
            known = content.get("info", {}).get("labelled_classes") or [names[category["id"]] for category in content["categories"]]
            missing = torch.tensor([0.0 if name in known else 1.0 for name in classes])
            of_image = {}
            for annotation in content["annotations"]:
                of_image.setdefault(annotation["image_id"], []).append(annotation)
            for image in content["images"][:limit]:
                own = sorted(of_image.get(image["id"], []), key=lambda a: -a["bbox"][2] * a["bbox"][3])
                plain = [a for a in own if not a.get("iscrowd")][:MOST]
                paths.append(data / folder / "images" / image["file_name"])
                boxes.append([[x, y, x + w, y + h] for x, y, w, h in (a["bbox"] for a in plain)])
                labels.append([index_of[names[a["category_id"]]] for a in plain])
                unknown.append(missing)
                sets.append(number)
        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            decoded = list(pool.map(decode, paths))
        count = len(paths)
        self.pixels = torch.from_numpy(np.stack([pixels for pixels, _ in decoded])).to(device).view(-1, 3)
        self.sizes = torch.tensor([size for _, size in decoded], device=device, dtype=torch.float32)
        self.boxes, self.labels = torch.zeros(count, MOST, 4), torch.full((count, MOST), -1)
        for index, (own, classes_) in enumerate(zip(boxes, labels)):
            if own:
                self.boxes[index, : len(own)], self.labels[index, : len(own)] = torch.tensor(own), torch.tensor(classes_)
        self.boxes, self.labels, self.unknown = self.boxes.to(device), self.labels.to(device), torch.stack(unknown).to(device)
        weights = torch.tensor([float(SETS[number][2]) for number in sets])
        aspects = [size[0] / size[1] for _, size in decoded]
        shapes = [of_area(320, aspect) for aspect in aspects]
        common = {shape for shape in set(shapes) if sum(s == shape for s in shapes) >= 0.02 * count}
        fits = lambda shape, aspect: min(shape[0] / aspect, shape[1])
        groups = {}
        for index, (shape, aspect) in enumerate(zip(shapes, aspects)):
            shape = shape if shape in common or not common else max(common, key=lambda s: fits(s, aspect))
            groups.setdefault(shape, []).append(index)
        self.groups = [(shape, torch.tensor(members, device=device), weights[members].to(device)) for shape, members in groups.items()]
        self.group_weights = torch.tensor([float(weights[members].sum()) for members in groups.values()])
        self.all_weights, self.device = weights.to(device), device

    def draw(self, batch, side, gentle, generator):
        """Pictures (n, 3, h, w) in 0..1 with boxes, classes, mask and the regions without labels."""
        device = self.device
        chosen = int(torch.multinomial(self.group_weights, 1, generator=generator))
        shape, members, weights = self.groups[chosen]
        aspect = shape[0] / shape[1]
        if torch.rand(1, generator=generator) < 0.12:  # webcams, and squares
            aspect = [16 / 9, 9 / 16, 1.0][int(torch.randint(3, (1,), generator=generator))]
        width, height = of_area(side, aspect)
        uniform = lambda low, high, *size: torch.rand(size or (batch, 4), device=device) * (high - low) + low
        index = torch.multinomial(self.all_weights, batch * 4, True).view(batch, 4)
        index[:, 0] = members[torch.multinomial(weights, batch, True)]
        mosaic = torch.rand(batch, 1, device=device) < (0.0 if gentle else 0.5)
        cx = torch.where(mosaic, uniform(0.3, 0.7, batch, 1) * width, torch.full((batch, 1), float(width), device=device))
        cy = torch.where(mosaic, uniform(0.3, 0.7, batch, 1) * height, torch.full((batch, 1), float(height), device=device))
        right, low = (torch.arange(4, device=device) % 2 == 1)[None], (torch.arange(4, device=device) // 2 == 1)[None]
        zero = torch.zeros(batch, 4, device=device)
        x1, y1 = torch.where(right, cx, zero), torch.where(low, cy, zero)
        x2, y2 = torch.where(right, zero + width, cx), torch.where(low, zero + height, cy)
        w, h = self.sizes[index].unbind(-1)
        zoom = torch.where(mosaic, 0.7, 1.0)
        scale = torch.minimum(width / w, height / h) * zoom
        if gentle:
            scale_x = scale_y = scale
            left, top = ((x2 - x1) - w * scale) / 2 + x1, ((y2 - y1) - h * scale) / 2 + y1
        else:
            scale = scale * uniform(0.5, 1.5)
            stretch = (1 + uniform(-0.2, 0.2)).sqrt()
            scale_x, scale_y = scale * stretch, scale / stretch
            room_x, room_y = (x2 - x1) - w * scale_x, (y2 - y1) - h * scale_y
            left = x1 + torch.where(mosaic, torch.where(right, zero, zero + 1), uniform(0, 1)) * room_x
            top = y1 + torch.where(mosaic, torch.where(low, zero, zero + 1), uniform(0, 1)) * room_y
        flip = torch.rand(batch, 4, device=device) < 0.5
        py, px = torch.meshgrid(torch.arange(height, device=device) + 0.5, torch.arange(width, device=device) + 0.5, indexing="ij")
        part = (px >= cx[:, :, None]).long() + 2 * (py >= cy[:, :, None]).long()
        pick = lambda values: values.gather(1, part.flatten(1)).view(batch, height, width)
        sx, sy = (px - pick(left)) / pick(scale_x), (py - pick(top)) / pick(scale_y)
        pw, ph = pick(w), pick(h)
        seen = (sx >= 0) & (sx < pw) & (sy >= 0) & (sy < ph)
        sx = torch.where(pick(flip), pw - sx, sx)
        sx, sy = (sx - 0.5).clamp_min(0).minimum(pw - 1), (sy - 0.5).clamp_min(0).minimum(ph - 1)
        ax, ay = sx.floor(), sy.floor()
        fx, fy = (sx - ax)[..., None], (sy - ay)[..., None]
        bx, by = torch.minimum(ax + 1, pw - 1), torch.minimum(ay + 1, ph - 1)
        start = pick(index) * (SIDE * SIDE)
        at = lambda x, y: self.pixels[(start + y.long() * SIDE + x.long()).flatten()].view(batch, height, width, 3).float()
        upper = at(ax, ay) * (1 - fx) + at(bx, ay) * fx
        lower = at(ax, by) * (1 - fx) + at(bx, by) * fx
        pictures = torch.where(seen[..., None], upper * (1 - fy) + lower * fy, torch.full((), GREY, device=device))
        pictures = (pictures / 255).permute(0, 3, 1, 2).contiguous()
        corners = lambda values: values[:, :, None]
        bx1, by1, bx2, by2 = self.boxes[index].unbind(-1)
        bx1, bx2 = torch.where(corners(flip), corners(w) - bx2, bx1), torch.where(corners(flip), corners(w) - bx1, bx2)
        whole = [corners(left) + bx1 * corners(scale_x), corners(top) + by1 * corners(scale_y),
                 corners(left) + bx2 * corners(scale_x), corners(top) + by2 * corners(scale_y)]
        clamp = lambda v, a, b: torch.maximum(torch.minimum(v, corners(b)), corners(a))
        cut = [clamp(whole[0], x1, x2), clamp(whole[1], y1, y2), clamp(whole[2], x1, x2), clamp(whole[3], y1, y2)]
        area = lambda b: (b[2] - b[0]) * (b[3] - b[1])
        labels = self.labels[index]
        kept = (labels >= 0) & (cut[2] - cut[0] > 2) & (cut[3] - cut[1] > 2) & (area(cut) > 0.2 * area(whole))
        boxes, labels, kept = torch.stack(cut, -1).flatten(1, 2), labels.flatten(1).clamp_min(0), kept.flatten(1)
        regions, unknown = torch.stack((x1, y1, x2, y2), -1), self.unknown[index]
        if not gentle:
            pictures = self.recolor(pictures)
            mixed = torch.rand(batch, device=device) < 0.1
            other = torch.roll(torch.arange(batch, device=device), 1)
            share = torch.where(mixed, uniform(0.4, 0.6, batch), torch.zeros(batch, device=device))[:, None, None, None]
            pictures = pictures + (pictures[other] - pictures) * share
            boxes, labels = torch.cat((boxes, boxes[other]), 1), torch.cat((labels, labels[other]), 1)
            kept = torch.cat((kept, kept[other] & mixed[:, None]), 1)
            regions = torch.cat((regions, regions[other]), 1)
            unknown = torch.cat((unknown, unknown[other] * mixed[:, None, None]), 1)
        most = min(max(int(kept.sum(1).max()), 1), 100)
        order = kept.float().topk(most, 1).indices
        boxes = boxes.gather(1, order[..., None].expand(-1, -1, 4))
        return pictures, boxes, labels.gather(1, order), kept.gather(1, order), regions, unknown

    def recolor(self, pictures):
        change = lambda most: (torch.rand(len(pictures), 1, 1, device=self.device) * 2 - 1) * most
        turn, saturate, brighten = change(0.015) * 2 * math.pi, 1 + change(0.6), 1 + change(0.4)
        r, g, b = pictures.unbind(1)
        y = 0.299 * r + 0.587 * g + 0.114 * b
        i = (0.596 * r - 0.274 * g - 0.322 * b) * saturate
        q = (0.211 * r - 0.523 * g + 0.312 * b) * saturate
        i, q = i * turn.cos() - q * turn.sin(), i * turn.sin() + q * turn.cos()
        rgb = (y + 0.956 * i + 0.621 * q, y - 0.272 * i - 0.647 * q, y - 1.106 * i + 1.703 * q)
        return (torch.stack(rgb, 1) * brighten[:, None]).clamp(0, 1)


def unknown_of(p, regions, unknown):
    inside = torch.minimum(p.centers - regions[:, :, None, :2], regions[:, :, None, 2:] - p.centers).amin(-1) > 0
    return (inside.float().transpose(1, 2) @ unknown).clamp_max(1)


def normalized(x):
    x = x.float()
    variance, mean = torch.var_mean(x, (0, 2, 3), keepdim=True)
    return (x - mean) / (variance + 1e-6).sqrt()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("model", "start", "data", "output"):
        parser.add_argument(name, type=pathlib.Path)
    parser.add_argument("--seconds", type=float, default=540)
    parser.add_argument("--batch", type=int, default=192)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--teacher", action="append", default=[])
    parser.add_argument("--own-teacher")
    parser.add_argument("--teacher-class", type=float, default=1.0)
    parser.add_argument("--teacher-boxes", type=float, default=1.0)
    parser.add_argument("--early", type=float, default=0.2, help="share of the rate for stem and stage 2")
    parser.add_argument("--gentle", type=float, default=0.15)
    parser.add_argument("--decay", type=float, default=0.9995)
    parser.add_argument("--layout", choices=("planar", "interleaved"), default="planar")
    parser.add_argument("--float", action="store_true", help="32 bits throughout")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--sides", type=int, nargs="+", default=[256, 288, 320, 320, 352, 384])
    parser.add_argument("--seed", type=int, default=801)
    a = parser.parse_args()
    begin = time.monotonic()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(a.seed)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    generator = torch.Generator().manual_seed(a.seed)
    a.output.mkdir(parents=True, exist_ok=True)
    config = tomllib.loads(a.model.read_text())
    head = config["head"]
    photographs = Photographs(a.data, config["classes"], a.limit, device)
    print(f"{len(photographs.sizes)} photographs after {time.monotonic() - begin:.0f} s; shapes "
          + ", ".join(f"{s[0]}x{s[1]}: {len(m)}" for s, m, _ in photographs.groups), flush=True)
    network = Network(config)
    start = read(a.start)[1]
    print("missing:", " ".join(network.init(start)) or "none", flush=True)
    memory = torch.channels_last if a.layout == "interleaved" else torch.contiguous_format
    network = network.to(device, memory_format=memory)
    network.restore(photographs.draw(64 if device.type == "cuda" else 8, 320, True, generator)[0])
    half = lambda: torch.autocast(device.type, dtype=torch.bfloat16, enabled=not a.float)
    teachers, own, distillation = None, None, None
    if a.teacher:
        from teachers import Published, Together
        teachers = Together([Published(path) for path in a.teacher]).eval().to(device, None if a.float else torch.bfloat16)
        teachers.requires_grad_(False)
    if a.own_teacher:
        own_config, own_weights = read(a.own_teacher)
        own = Network(own_config)
        assert not own.init(own_weights), "the teacher is another network"
        own = own.to(device, memory_format=memory).eval().requires_grad_(False)
        distillation = torch.nn.ModuleDict()
        with torch.no_grad():
            pictures = photographs.draw(64 if device.type == "cuda" else 8, 320, True, generator)[0]
            network.eval()
            network(pictures), own(pictures)
            for name in FEATURES:  # linear maps by least squares
                rows = lambda x: x.float().permute(0, 2, 3, 1).flatten(0, 2).double()
                x, y = rows(network.taps[name]), rows(normalized(own.taps[name]))
                x = torch.cat((x, torch.ones_like(x[:, :1])), 1)
                square = x.T @ x
                square += 1e-4 * square.diagonal().mean() * torch.eye(len(square), device=device, dtype=torch.double)
                solution = torch.linalg.solve(square, x.T @ y).float()
                layer = torch.nn.Conv2d(x.shape[1] - 1, y.shape[1], 1).to(device)
                layer.weight.copy_(solution[:-1].T[:, :, None, None])
                layer.bias.copy_(solution[-1])
                distillation[name.replace(".", "/")] = layer
    groups = {}
    modules = [("", network)] + ([("distillation/", distillation)] if distillation else [])
    for prefix, module in modules:
        for name, parameter in module.named_parameters():
            early = any(part in name for part in ("values.stem", "values.stage2", "norms.stem", "norms.stage2"))
            decays = parameter.dim() == 4
            groups.setdefault((early, decays), []).append(parameter)
    optimizer = torch.optim.AdamW([{"params": p, "share": a.early if early else 1.0, "weight_decay": 0.05 if decays else 0.0}
                                   for (early, decays), p in groups.items()], lr=a.rate, fused=device.type == "cuda")
    parameters = [p for group in groups.values() for p in group]
    tracked = list(network.parameters()) + [b for b in network.buffers() if b.dtype.is_floating_point]
    average = [value.detach().clone() for value in tracked]
    log = (a.output / "metrics.jsonl").open("a")
    network.train()
    step, images, sums, trained, last = 0, 0, torch.zeros(5, device=device), time.monotonic(), time.monotonic()

    def save(name):
        current = [value.detach().clone() for value in tracked]
        with torch.no_grad():
            torch._foreach_copy_([t.data for t in tracked], average)
            write(a.output / f"{config['name']}.safetensors", network.fold())
            torch._foreach_copy_([t.data for t in tracked], current)
        (a.output / f"{config['name']}.toml").write_text(a.model.read_text())

    while (progress := (time.monotonic() - trained) / a.seconds) < 1:
        gentle = progress > 1 - a.gentle
        side = 320 if gentle else a.sides[int(torch.randint(len(a.sides), (1,), generator=generator))]
        pictures, boxes, classes, mask, regions, unknown = photographs.draw(a.batch, side, gentle, generator)
        pictures = pictures.contiguous(memory_format=memory)
        with half():
            outputs = network(pictures)
        taps = network.taps
        p = Predictions(outputs, head["bins"], head["max_distance"])
        class_, box, distances = label_loss(p, boxes, classes, mask, unknown_of(p, regions, unknown))
        taught, told = torch.zeros((), device=device), torch.zeros((), device=device)
        if teachers is not None:
            with torch.no_grad():
                scores, corners = teachers(pictures)
            taught = taught + teacher_loss(p, scores, corners, a.teacher_class, a.teacher_boxes)
        if own is not None:
            with torch.no_grad(), half():
                answers = Predictions(own(pictures), own_config["head"]["bins"], own_config["head"]["max_distance"])
            taught = taught + teacher_loss(p, answers.logits.sigmoid(), answers.boxes, a.teacher_class, a.teacher_boxes)
            for name in FEATURES:
                with half():
                    found = distillation[name.replace(".", "/")](taps[name])
                told = told + (found.float() - normalized(own.taps[name])).square().mean()
        loss = class_ + box * BOX_WEIGHT + distances * DISTRIBUTION_WEIGHT + taught + told
        loss.backward()
        warm = min(1.0, (step + 1) / 150)
        rate = a.rate * warm * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(progress, 1))))
        for group in optimizer.param_groups:
            group["lr"] = rate * group["share"]
        norm = torch.nn.utils.clip_grad_norm_(parameters, 10.0, foreach=True)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        torch._foreach_lerp_(average, [t.detach() for t in tracked], 1 - min(a.decay, (1 + step) / (10 + step)))
        sums += torch.stack((class_.detach(), box.detach(), distances.detach(), taught.detach(), told.detach()))
        step, images = step + 1, images + a.batch
        if step % 50 == 0:
            means = (sums / 50).tolist()
            now = time.monotonic()
            line = dict(zip(("class", "box", "distribution", "teacher", "distillation"), (round(m, 4) for m in means)), step=step, epoch=round(images / 13036, 2),
                        images_per_second=round(50 * a.batch / (now - last)), rate=round(rate, 6), seconds_left=round(a.seconds - (now - trained)), norm=round(float(norm), 2))
            print(json.dumps(line), file=log, flush=True)
            if step % 200 == 0 or step <= 100:
                print(json.dumps(line), flush=True)
            if not all(map(math.isfinite, means)):
                sys.exit("train.py: the loss is no number")
            sums.zero_()
            last = now
        if step % 1000 == 0:
            save(step)
    save("end")
    memory_used = torch.cuda.max_memory_allocated() / 2**30 if device.type == "cuda" else 0
    print(f"{step} steps, {images / 13036:.1f} epochs, {images / (time.monotonic() - trained):.0f} images/s, {memory_used:.1f} GiB", flush=True)


if __name__ == "__main__":
    main()
