"""Average precision of our models and of other people's ONNX files on the same photographs, each in its own preprocessing.

usage: accuracy.py PROGRAM DATA FILE[@SIZE]...

PROGRAM is yolo-lat; DATA holds voc2007/val and, if it is there, coco2017-part/annotations_coco80_val.json. Other people's boxes
are suppressed above IoU 0.6 and do not vote; ours as `yolo-lat eval` does it. Writes benches/runs/peers-accuracy-DATE.json, the
table in docs/COMPARISON.md, and benches/accuracy.json for the chart. A file that cannot be measured is named, the others go on.
"""
import datetime, json, os, re, subprocess, sys

program, data, *files = sys.argv[1:]
sets = {"voc2007/val": f"{data}/voc2007/val", "coco2017-part val": f"{data}/coco2017-part/annotations_coco80_val.json"}
sets = {name: path for name, path in sets.items() if os.path.exists(path)}
assert sets, f"{data}: neither voc2007/val nor coco2017-part lies there"
ours = {"n": "yolo-lat-n", "s": "yolo-lat-s"}
today = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d")
document, results = "docs/COMPARISON.md", f"benches/runs/peers-accuracy-{today}.json"


def measure(model, size, label, path):
    """The JSON of `yolo-lat eval`, the command, and what the program took the file for."""
    command = ["eval", "-m", model, path, "--json", "--quiet", "-v"]
    # Times are of floats.
    command += ["--precision", "f32"] if model in ours else ["--iou", "0.6"]
    command += ["--size", size] if size else []
    done = subprocess.run([program, *command], capture_output=True, text=True)
    if done.returncode:
        print(f"{model}: {done.stderr.strip().splitlines()[-1]}", file=sys.stderr)
        return None
    read = re.search(r"\.onnx \((.*)\) in ONNX Runtime", done.stderr)
    # Named without the folders of this machine.
    names = {model: os.path.basename(model), path: label}
    command = [names.get(word, word) for word in command]
    return {"command": " ".join(["yolo-lat", *command]), "read_as": read and read[1], **json.loads(done.stdout)}


rows = []
for file in [*ours, *files]:
    model, _, size = file.partition("@")
    name = ours.get(model, os.path.basename(model).removesuffix(".onnx"))
    row = {"model": name, "size": size or None, "sets": {}}
    for label, path in sets.items():
        # Of COCO's 80 classes n knows 20: another task.
        if model == "n" and label.startswith("coco"):
            continue
        found = measure(model, size, label, path)
        if found:
            found.pop("per_class")
            row["sets"][label] = found
            print(f"{name} {size} {label}: {found['coco']['ap50']} / {found['map50_95']}", file=sys.stderr)
    rows += [row] if row["sets"] else []

os.makedirs("benches/runs", exist_ok=True)
with open(results, "w") as out:
    json.dump({"date": today, "rows": rows}, out, indent=1)
    out.write("\n")


def cell(found):
    return f"{found['map50']:.1f} ({found['coco']['ap50']:.1f}) / {found['map50_95']:.1f}" if found else ""


def size_of(row):
    side = row["size"] or 320
    return f"rectangles of {side}x{side} pixels' area in the image's shape"


best = max(rows, key=lambda row: row["sets"].get("voc2007/val", {}).get("map50_95", 0))
table = [f"| network | input, as the program read the file | {' | '.join(sets)} |", "|---|---|" + "---|" * len(sets)]
for row in rows:
    first = next(iter(row["sets"].values()))
    name = f"**{row['model']}**" if row is best else row["model"]
    read = (first["read_as"] or f"ours: {size_of(row)}, RGB / 255, boxes vote").replace("; ", ", ")
    table.append(f"| {name} | {read} | " + " | ".join(cell(row["sets"].get(label)) for label in sets) + " |")
with open(document) as old:
    text = old.read()
start, end = "<!-- accuracy: make bench-peers -->\n", "<!-- end of accuracy -->"
head, rest = text.split(start)
tail = rest.split(end)[1]
with open(document, "w") as new:
    new.write(head + start + "\n".join(table) + "\n" + end + tail)
best_of = {}
for row in rows:
    value = row["sets"].get("voc2007/val", {}).get("map50")
    if value is not None and not row["size"]:
        best_of[row["model"]] = value
with open("benches/accuracy.json", "w") as out:
    json.dump(best_of, out, indent=2)
    out.write("\n")
print(results)
