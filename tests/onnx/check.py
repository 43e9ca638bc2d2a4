"""Every form of the export through ONNX's own checker, its shape inference, and ONNX Runtime.

usage: check.py PROGRAM. Needs onnx, onnxruntime, numpy. That the numbers are those of the reference engine is tested in Rust
(tests/export.rs); here the forms must agree with each other. fixture.json holds outputs of yolo-lat-n for a formula input.
"""
import itertools, json, os, subprocess, sys, tempfile
import numpy as np, onnx, onnxruntime

SIZE = 96
FIXTURE = os.path.join(os.path.dirname(__file__), "fixture.json")


def picture(batch, height, width):
    at = np.arange(3 * height * width, dtype=np.float64).reshape(1, 3, height, width)
    return np.repeat((0.5 + 0.5 * np.sin(0.37 * at)).astype(np.float32), batch, axis=0)


def run(path, images):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, ["CPUExecutionProvider"])
    return session.run(None, {"images": images})


def main():
    program, checked = sys.argv[1], 0
    folder = tempfile.mkdtemp()
    first = {}
    for model, opset, half, dynamic, output in itertools.product(
        ["n", "s"], [17, 18, 20, 23], [False, True], [False, True], ["raw", "predictions", "nms"]
    ):
        path = os.path.join(folder, "model.onnx")
        flags = ["--half"] * half + ["--dynamic"] * dynamic + [f"--{output}"] * (output != "predictions")
        flags += ["--conf", "0.05"] * (output == "nms")
        name = " ".join([model, f"opset {opset}", *flags])
        subprocess.run(
            [program, "export", model, "-o", path, "--size", str(SIZE), "--opset", str(opset), *flags],
            check=True, stdout=subprocess.DEVNULL,
        )
        loaded = onnx.load(path)
        onnx.checker.check_model(loaded, full_check=True)
        inferred = onnx.shape_inference.infer_shapes(loaded, check_type=True, strict_mode=True, data_prop=True)
        assert {entry.key for entry in inferred.metadata_props} >= {"names", "stride", "imgsz", "task", "license", "author"}, name
        outputs = run(path, picture(1, SIZE, SIZE))
        for value, found in zip(inferred.graph.output, outputs):
            dims = value.type.tensor_type.shape.dim
            assert len(dims) == found.ndim, name
            assert all(not d.dim_value or d.dim_value == side for d, side in zip(dims, found.shape)), f"{name}: {found.shape}"
            assert np.isfinite(found).all(), name
        if dynamic:
            other = run(path, picture(2, SIZE, 2 * SIZE))
            assert all(found.shape[0] == 2 for found in other), name
        # All forms of one output agree with the first; suppression may fall to either side of its threshold in 16 bits.
        expected = first.setdefault((model, output), outputs)
        if output != "nms" or not half:
            worst = max(np.abs(a - b).max() for a, b in zip(expected, outputs))
            limit = (0.5 if half else 2e-3) if output == "raw" else (2.0 if half else 0.02)
            assert worst <= limit, f"{name}: {worst}"
        checked += 1
    rows = first[("n", "raw")][0][0, :, 0, :4].tolist()
    if "--write" in sys.argv:
        with open(FIXTURE, "w") as file:
            json.dump({"what": "class8 of yolo-lat-n for 0.5 + 0.5 sin(0.37 i), 96x96: all classes, first row, four columns", "class8": rows}, file)
    with open(FIXTURE) as file:
        assert np.abs(np.array(json.load(file)["class8"]) - rows).max() <= 2e-3, "other numbers than the fixture's"
    print(f"{checked} passed, 0 failed")


main()
