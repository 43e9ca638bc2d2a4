#!/usr/bin/env python3
"""One TorchScript teacher of published detectors: python3 train/convert/teachers.py OUTPUT.pt PUBLISHED.onnx [PUBLISHED.onnx ...]

The detectors are NanoDet-Plus-m and PicoDet-S (ONNX, Apache-2.0): all COCO classes, distances of 8 bins, cells of strides 8, 16 and 32. The
trainer gives the result pictures, RGB (n, 3, height, width) in 0..1 with any sides that are multiples of 32, and gets
scores (n, cells, 80) and corners (n, cells, 4) in pixels. Each detector sees the pictures as it was trained to. Several answer as one: their
scores are averaged, their boxes too, weighted by how sure each one is of the cell. Only the network is taken from the files; shapes that
they hold are not, so that rectangles can be asked about on any device. `scripts/setup --onnx` and `scripts/setup --train` install what it needs.
"""
import sys

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from torch.nn import functional as F

CLASSES, BINS, STRIDES = 80, 8, (8, 16, 32)


def shuffle(x):
    """Channels of two groups in turn."""
    n, c, h, w = x.shape
    return x.reshape(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


class Published(torch.nn.Module):
    """The network of an ONNX file, up to the maps that scores and distances are read off."""

    def __init__(self, path):
        super().__init__()
        graph = onnx.load(path).graph
        # NanoDet-Plus: BGR in 0..255, a cell's place is its corner. PicoDet: RGB in 0..1, its middle.
        self.is_nanodet = graph.input[0].name == "data"
        if self.is_nanodet:
            mean, deviation, self.centre = [103.53, 116.28, 123.675], [57.375, 57.12, 58.395], 0.0
            mean, deviation = np.array(mean)[::-1] / 255, np.array(deviation)[::-1] / 255
        else:
            mean, deviation, self.centre = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225], 0.5
        self.constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
        for node in graph.node:
            if node.op_type == "Constant":
                self.constants[node.output[0]] = numpy_helper.to_array(helper.get_attribute_value(node.attribute[0]))
        self.source, self.steps, self.maps = graph.input[0].name, [], []
        makers = {output: node for node in graph.node for output in node.output}
        readers = {}
        for node in graph.node:
            for name in node.input:
                readers.setdefault(name, []).append(node)
        wanted = [node.input[0] for node in graph.node if node.op_type == "Split" and self.channels(node) == [CLASSES, 4 * BINS]]
        self.maps = wanted[: len(STRIDES)]
        if len(self.maps) < len(STRIDES):
            sys.exit(f"{path}: neither NanoDet-Plus nor PicoDet")
        self.collect(graph, makers, readers)
        first = next(arguments[0] for kind, _, _, arguments in self.steps if kind == "Conv")
        self.first = self.key(first)
        weight = getattr(self, self.first)
        # The channels' order and scale go into the first convolution; its border is padded by the mean colour, so the mean stays outside.
        weight = weight.flip(1) if self.is_nanodet else weight
        setattr(self, self.first, torch.nn.Parameter(weight / torch.tensor(deviation.copy() if self.is_nanodet else deviation, dtype=torch.float32)[None, :, None, None]))
        self.mean = torch.nn.Parameter(torch.tensor(np.array(mean), dtype=torch.float32)[:, None, None])

    @staticmethod
    def key(name):
        return "w_" + "".join(c if c.isalnum() else "_" for c in name)

    def channels(self, node):
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        sizes = attributes.get("split", self.constants.get(node.input[1]) if len(node.input) > 1 else None)
        return [int(size) for size in sizes]

    def constant(self, name):
        return self.constants.get(name)

    def collect(self, graph, makers, readers):
        """The steps that the maps need: (kind, inputs, outputs, what else)."""
        needed, order = set(), []
        pending = list(self.maps)
        skipped = {}
        for node in graph.node:
            # x * clip(x + 3, 0, 6) / 6
            if node.op_type == "Div" and makers.get(node.input[0]) is not None and makers[node.input[0]].op_type == "Mul":
                product = makers[node.input[0]]
                clip = next((makers[i] for i in product.input if i in makers and makers[i].op_type == "Clip"), None)
                if clip is not None and makers[clip.input[0]].op_type == "Add":
                    x = next(i for i in product.input if i != clip.output[0])
                    if x in makers[clip.input[0]].input:
                        skipped[node.output[0]] = ("hardswish", [x], [])
            if node.op_type == "Transpose" and list(helper.get_attribute_value(node.attribute[0])) == [0, 2, 1, 3, 4]:
                skipped[readers[node.output[0]][0].output[0]] = ("shuffle", [makers[node.input[0]].input[0]], [])
        while pending:
            name = pending.pop()
            if name in needed or name == self.source or name in self.constants:
                continue
            needed.add(name)
            kind, inputs, rest = skipped.get(name) or self.step(makers[name], name)
            order.append((kind, inputs, name, rest))
            pending += inputs
        place = {output: index for index, node in enumerate(graph.node) for output in node.output}
        self.steps = sorted(order, key=lambda step: place[step[2]])

    def keep(self, name):
        value = torch.from_numpy(np.array(self.constants[name], dtype=np.float32))
        setattr(self, self.key(name), torch.nn.Parameter(value, requires_grad=False))
        return name

    def step(self, node, output):
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        kind, inputs = node.op_type, list(node.input)
        if kind == "Conv":
            bias = self.keep(inputs[2]) if len(inputs) > 2 else None
            return kind, inputs[:1], [self.keep(inputs[1]), bias, attributes.get("strides", [1, 1]), attributes.get("pads", [0] * 4)[:2], attributes.get("group", 1)]
        if kind == "LeakyRelu":
            return kind, inputs, [attributes.get("alpha", 0.01)]
        if kind == "HardSigmoid":
            return kind, inputs, [attributes.get("alpha", 0.2), attributes.get("beta", 0.5)]
        if kind == "Split":
            sizes = self.channels(node)
            index = list(node.output).index(output)
            return "Part", inputs[:1], [sum(sizes[:index]), sizes[index]]
        if kind == "Slice":
            start, end, axis = (int(self.constants[name][0]) for name in inputs[1:4])
            assert axis == 1
            return "Slice", inputs[:1], [start, end]
        if kind == "Resize":
            return kind, inputs[:1], [{b"linear": "bilinear", b"nearest": "nearest"}[attributes["mode"]]]
        if kind == "MaxPool":
            assert attributes["kernel_shape"] == [3, 3] and attributes["strides"] == [2, 2], attributes
            return kind, inputs, []
        if kind in ("Add", "Mul") and any(name in self.constants or self.is_constant_reshape(name) for name in inputs):
            variable = next(name for name in inputs if name not in self.constants)
            constant = next(name for name in inputs if name in self.constants)
            return kind + "Constant", [variable], [self.keep(constant)]
        if kind in ("Add", "Mul", "Concat", "Relu", "Identity", "GlobalAveragePool"):
            return kind, inputs, []
        if kind == "Reshape" and inputs[0] in self.constants:
            raise AssertionError
        raise SystemExit(f"{self.source}: no rule for {kind}")

    def is_constant_reshape(self, name):
        return False

    def forward(self, pictures):
        values = {self.source: (pictures - self.mean).type_as(getattr(self, self.first))}
        weight = lambda name: None if name is None else getattr(self, self.key(name))
        for kind, inputs, output, rest in self.steps:
            x = [values[name] for name in inputs]
            values[output] = {
                "Conv": lambda: F.conv2d(x[0], weight(rest[0]), weight(rest[1]), rest[2], rest[3], 1, rest[4]),
                "LeakyRelu": lambda: F.leaky_relu(x[0], rest[0]),
                "Relu": lambda: F.relu(x[0]),
                "hardswish": lambda: F.hardswish(x[0]),
                "HardSigmoid": lambda: (x[0] * rest[0] + rest[1]).clamp(0, 1),
                "GlobalAveragePool": lambda: x[0].mean((2, 3), keepdim=True),
                "MaxPool": lambda: F.max_pool2d(x[0], 3, 2, 1),
                "Add": lambda: x[0] + x[1],
                "Mul": lambda: x[0] * x[1],
                "AddConstant": lambda: x[0] + weight(rest[0]),
                "MulConstant": lambda: x[0] * weight(rest[0]),
                "Concat": lambda: torch.cat(x, 1),
                "Identity": lambda: x[0],
                "Part": lambda: x[0].narrow(1, rest[0], rest[1]),
                "Slice": lambda: x[0][:, rest[0] : rest[1]],
                "Resize": lambda: F.interpolate(x[0], scale_factor=2.0, mode=rest[0]),
                "shuffle": lambda: shuffle(x[0]),
            }[kind]()
        scores, boxes = [], []
        for name, stride in zip(self.maps, STRIDES):
            answer = values[name].float()
            scores.append(answer[:, :CLASSES].sigmoid().flatten(2).transpose(1, 2))
            height, width = answer.shape[2], answer.shape[3]
            bins = answer[:, CLASSES:].reshape(answer.shape[0], 4, BINS, height, width).softmax(2)
            index = torch.arange(BINS, device=answer.device, dtype=torch.float32)
            distance = (bins * index[:, None, None]).sum(2) * stride
            y = ((torch.arange(height, device=answer.device, dtype=torch.float32) + self.centre) * stride)[:, None].expand(height, width)
            x = ((torch.arange(width, device=answer.device, dtype=torch.float32) + self.centre) * stride)[None].expand(height, width)
            corners = torch.stack((x - distance[:, 0], y - distance[:, 1], x + distance[:, 2], y + distance[:, 3]), 1)
            boxes.append(corners.flatten(2).transpose(1, 2))
        return torch.cat(scores, 1), torch.cat(boxes, 1)


class Together(torch.nn.Module):
    """Detectors that answer as one."""

    def __init__(self, detectors):
        super().__init__()
        self.detectors = torch.nn.ModuleList(detectors)

    def forward(self, pictures):
        answers = [detector(pictures) for detector in self.detectors]
        if len(answers) == 1:
            return answers[0]
        weights = [scores.amax(-1, keepdim=True) + 1e-6 for scores, _ in answers]
        scores = sum(scores for scores, _ in answers) / len(answers)
        return scores, sum(weight * boxes for weight, (_, boxes) in zip(weights, answers)) / sum(weights)


@torch.no_grad()
def main(output, paths):
    module = Together([Published(path) for path in paths]).eval()
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    traced = torch.jit.trace(module, torch.rand(2, 3, 224, 160), check_trace=False)
    for shape in ((1, 3, 320, 320), (3, 3, 256, 416)):
        pictures = torch.rand(shape)
        for found, wanted in zip(traced(pictures), module(pictures)):
            assert found.shape == wanted.shape and (found - wanted).abs().max() < 1e-3, "the trace holds shapes"
    traced.save(output)
    print(f"{output}: {sum(p.numel() for p in module.parameters())} numbers")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__.splitlines()[0])
    main(sys.argv[1], sys.argv[2:])
