#!/usr/bin/env python3
"""Stage outputs of the published FastestDet: python3 train/golden/make.py FastestDet.onnx

Writes stages.json: every 97th value of the outputs of the three backbone stages (48x44x44, 96x22x22, 192x11x11) for the
picture ((7 c + 3 y + 5 x) mod 256) / 255 of 352 x 352 pixels, as ONNX Runtime computes them (it takes BGR). The trainer's test
gives the same picture to the network it restored from backbone.safetensors (the published weights, BSD-3-Clause,
train/start/LICENSE-FastestDet.txt).
"""
import json
import pathlib
import sys

import numpy as np
import onnx
import onnxruntime

STAGES = ["input.136", "input.376", "input.504"]
model = onnx.load(sys.argv[1])
del model.graph.output[:]
model.graph.output.extend(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in STAGES)
session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
c, y, x = np.ogrid[:3, :352, :352]
picture = (((7 * c + 3 * y + 5 * x) % 256) / 255).astype(np.float32)
outputs = session.run(STAGES, {session.get_inputs()[0].name: np.ascontiguousarray(picture[None, ::-1])})
values = {name: [float(f"{value:.6g}") for value in output.ravel()[::97]] for name, output in zip(("stage2", "stage3", "stage4"), outputs)}
(pathlib.Path(__file__).parent / "stages.json").write_text(json.dumps(values) + "\n")
