"""Which form of an operation ONNX Runtime runs fastest: rewrites an export and times the variants in turns.

usage: forms.py MODEL.onnx [SECONDS]. Needs onnx, onnxruntime, numpy. Prints a Markdown table.
"""
import sys, time
import numpy as np, onnx, onnxruntime
from onnx import helper, numpy_helper


def constants(graph):
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}


def rewrite(model, replace):
    """A copy in which `replace(node, constants, shapes, new)` gives the nodes that take a node's place, or None to keep it."""
    model = onnx.shape_inference.infer_shapes(onnx.ModelProto.FromString(model.SerializeToString()))
    graph, count = model.graph, [0]
    shapes = {value.name: [d.dim_value for d in value.type.tensor_type.shape.dim]
              for value in [*graph.value_info, *graph.input, *graph.output]}
    values = constants(graph)

    def new(array):
        count[0] += 1
        name = f"form{count[0]}"
        graph.initializer.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    nodes = []
    for node in graph.node:
        nodes += replace(node, values, shapes, new) or [node]
    del graph.node[:]
    graph.node.extend(nodes)
    return model


def step_slice(node, values):
    """Start and step of a slice of every second channel."""
    if node.op_type != "Slice" or len(node.input) < 5:
        return None
    start, _, axis, step = (values[name] for name in node.input[1:5])
    return (int(start[0]), int(step[0])) if axis[0] == 1 and step[0] > 1 else None


def gather(node, values, shapes, new):
    found = step_slice(node, values)
    if not found:
        return None
    index = np.arange(found[0], shapes[node.input[0]][1], found[1], dtype=np.int64)
    return [helper.make_node("Gather", [node.input[0], new(index)], node.output, axis=1)]


def reshape_gather(node, values, shapes, new):
    found = step_slice(node, values)
    if not found:
        return None
    n, c, h, w = shapes[node.input[0]]
    split, picked = node.output[0] + "_split", node.output[0] + "_picked"
    return [
        helper.make_node("Reshape", [node.input[0], new(np.array([n, c // 2, 2, h * w], np.int64))], [split]),
        helper.make_node("Gather", [split, new(np.array(found[0], np.int64))], [picked], axis=2),
        helper.make_node("Reshape", [picked, new(np.array([n, c // 2, h, w], np.int64))], node.output),
    ]


def folded_slice(model):
    """The slice before a 1x1 convolution becomes zeros in its weights: more arithmetic, no copy."""
    values = constants(model.graph)
    slices = {node.output[0]: node for node in model.graph.node if step_slice(node, values)}

    def replace(node, values, shapes, new):
        if node.op_type != "Conv" or node.input[0] not in slices or values[node.input[1]].shape[2:] != (1, 1):
            return None
        source = slices[node.input[0]]
        start, step = step_slice(source, values)
        weights = values[node.input[1]]
        wide = np.zeros((weights.shape[0], shapes[source.input[0]][1], 1, 1), weights.dtype)
        wide[:, start::step] = weights
        copy = onnx.NodeProto.FromString(node.SerializeToString())
        copy.input[0], copy.input[1] = source.input[0], new(wide)
        return [copy]

    return rewrite(model, replace)


def padded_units(model, multiple=16):
    """Zeros fill up the channels between a 1x1, a depthwise and a 1x1 convolution: a fast layout wants whole blocks of them."""
    made = {name: node for node in model.graph.node for name in node.output}
    users = {}
    for node in model.graph.node:
        for name in node.input:
            users.setdefault(name, []).append(node)
    values, wider = constants(model.graph), {}

    def pad(name, axis, new):
        width = [(0, 0)] * values[name].ndim
        width[axis] = (0, -values[name].shape[axis] % multiple)
        return new(np.pad(values[name], width))

    def pointwise(node):
        return node is not None and node.op_type == "Conv" and values[node.input[1]].shape[2:] == (1, 1)

    for node in model.graph.node:
        channels = values[node.input[1]].shape[0] if node.op_type == "Conv" else 0
        if channels % multiple == 0 or values[node.input[1]].shape[1] != 1:
            continue
        before, links = made.get(node.input[0]), [node.input[0], node.output[0]]
        if before is not None and before.op_type in ("Relu", "LeakyRelu"):
            links.append(before.input[0])
            before = made.get(before.input[0])
        after = users.get(node.output[0], [None])[0]
        if pointwise(before) and pointwise(after) and all(len(users[link]) == 1 for link in links):
            wider |= {before.name: "before", node.name: "inside", after.name: "after"}

    def replace(node, values, shapes, new):
        if node.name not in wider:
            return None
        copy = onnx.NodeProto.FromString(node.SerializeToString())
        where = wider[node.name]
        copy.input[1] = pad(node.input[1], 1 if where == "after" else 0, new)
        if where != "after":
            copy.input[2] = pad(node.input[2], 0, new)
        if where == "inside":
            next(entry for entry in copy.attribute if entry.name == "group").i += -values[node.input[1]].shape[0] % multiple
        return [copy]

    assert not wider or all(node.name for node in model.graph.node), "nodes without names"
    wide = rewrite(model, replace)
    # Shapes that were inferred before.
    del wide.graph.value_info[:]
    return wide


def expand_upsample(node, values, shapes, new):
    if node.op_type != "Resize":
        return None
    n, c, h, w = shapes[node.input[0]]
    apart, wide = node.output[0] + "_apart", node.output[0] + "_wide"
    return [
        helper.make_node("Reshape", [node.input[0], new(np.array([n, c, h, 1, w, 1], np.int64))], [apart]),
        helper.make_node("Expand", [apart, new(np.array([n, c, h, 2, w, 2], np.int64))], [wide]),
        helper.make_node("Reshape", [wide, new(np.array([n, c, 2 * h, 2 * w], np.int64))], node.output),
    ]


def transposed_upsample(node, values, shapes, new):
    if node.op_type != "Resize":
        return None
    c = shapes[node.input[0]][1]
    ones = new(np.ones((c, 1, 2, 2), np.float32))
    return [helper.make_node("ConvTranspose", [node.input[0], ones], node.output, group=c, strides=[2, 2])]


def product_sum(node, values, shapes, new):
    if node.op_type != "ReduceSum" or len(shapes.get(node.input[0], [])) != 4:
        return None
    axis, size = int(values[node.input[1]][0]), shapes[node.input[0]]
    if axis == 3:
        return [helper.make_node("MatMul", [node.input[0], new(np.ones((size[3], 1), np.float32))], node.output)]
    if axis == 2:
        return [helper.make_node("MatMul", [new(np.ones((1, size[2]), np.float32)), node.input[0]], node.output)]
    return None


def main():
    model = onnx.load(sys.argv[1])
    seconds = float(sys.argv[2]) if len(sys.argv) > 2 else 20
    forms = {
        "as exported": model,
        "channel split: Gather": rewrite(model, gather),
        "channel split: Reshape + Gather": rewrite(model, reshape_gather),
        "channel split: zeros in the next weights": folded_slice(model),
        "units filled up to 16 channels": padded_units(model),
        "upsample: Reshape + Expand": rewrite(model, expand_upsample),
        "upsample: ConvTranspose of ones": rewrite(model, transposed_upsample),
        "sums: product with ones": rewrite(model, product_sum),
    }
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    shape = [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]
    picture = {model.graph.input[0].name: (0.5 + 0.5 * np.sin(np.arange(np.prod(shape)) * 0.37)).astype(np.float32).reshape(shape)}
    sessions = {name: onnxruntime.InferenceSession(form.SerializeToString(), options, ["CPUExecutionProvider"])
                for name, form in forms.items()}
    expected = sessions["as exported"].run(None, picture)
    times = {name: [] for name in sessions}
    for name, session in sessions.items():
        worst = max(np.abs(a - b).max() for a, b in zip(expected, session.run(None, picture)))
        assert worst < 2e-3, f"{name} computes something else: {worst}"
    end = time.time() + seconds
    while time.time() < end:
        for name, session in sessions.items():
            start = time.perf_counter()
            session.run(None, picture)
            times[name].append(1e3 * (time.perf_counter() - start))
    print("| form | nodes | min ms | median ms |\n|---|---|---|---|")
    for name, found in times.items():
        print(f"| {name} | {len(forms[name].graph.node)} | {min(found):.3f} | {np.median(found):.3f} |")


main()
