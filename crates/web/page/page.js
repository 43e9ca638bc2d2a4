// The page: sources on one side, the detector on the other, what was found in between.
import { Detector } from "./yolo-lat/index.js";
import { colourOf, draw, pixelAt } from "./draw.js";
import * as sources from "./source.js";

const SAMPLES = ["astronaut", "chelsea", "coffee", "rocket"];
const KERNELS = {
  own: "the model's own",
  hadamard: "Hadamard exp",
  sum: "sum distance",
  difference: "difference distance",
  modulated: "modulated dot",
  softmax: "softmax",
};
const at = (id) => document.getElementById(id);
const canvas = at("picture");

let detector;
let endSource = () => {};
// A source or detector that was begun later than another takes its place, whichever is ready first.
let begun = 0;
let loads = 0;
// The last picture, kept for when something is changed while it stands still.
let picture;
let found = { objects: [] };
let attention;
let point;

function say(text, isFault = false) {
  at("message").textContent = text;
  at("message").classList.toggle("fault", isFault);
}

function fail(error) {
  say(error.message, true);
}

function redraw() {
  if (picture) {
    draw(canvas, picture, found, attention, point);
  }
}

function list(objects) {
  const lines = objects.map((object) => {
    const line = document.createElement("li");
    const mark = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    mark.setAttribute("viewBox", "0 0 1 1");
    const square = document.createElementNS("http://www.w3.org/2000/svg", "rect");
    square.setAttribute("width", 1);
    square.setAttribute("height", 1);
    square.setAttribute("fill", colourOf(object.number));
    mark.append(square);
    const name = document.createElement("span");
    name.textContent = object.class;
    line.append(mark, name, object.confidence.toFixed(2));
    return line;
  });
  at("objects").replaceChildren(...lines);
}

function sentence({ objects, width, height }) {
  const size = `${width}x${height} pixels`;
  switch (objects.length) {
    case 0: return `Nothing was found in this picture of ${size}.`;
    case 1: return `One object was found in this picture of ${size}.`;
    default: return `${objects.length} objects were found in this picture of ${size}.`;
  }
}

// A copy: a camera goes on meanwhile, and boxes belong to the picture that was looked at.
function keep(source) {
  const width = source.videoWidth ?? source.width;
  const height = source.videoHeight ?? source.height;
  if (picture?.width !== width || picture?.height !== height) {
    picture = new OffscreenCanvas(width, height);
  }
  const context = picture.getContext("2d", { willReadFrequently: true });
  context.globalCompositeOperation = "copy";
  context.drawImage(source, 0, 0);
}

async function look() {
  const current = detector;
  if (!current || !picture) {
    return;
  }
  const seen = await current.detect(picture);
  // Another model may have taken its place meanwhile.
  if (current !== detector) {
    return;
  }
  found = seen;
  attention = point && (await current.attention(point.x, point.y));
  redraw();
  list(found.objects);
  at("time").textContent = `${found.milliseconds.toFixed(1)} ms`;
  at("runs-on").textContent = found.engine;
  say([...found.notices, sentence(found)].join(" "));
}

async function show(source) {
  keep(source);
  try {
    await look();
  } catch (error) {
    fail(error);
  }
}

async function change(open) {
  const mine = ++begun;
  endSource();
  endSource = () => {};
  at("camera").setAttribute("aria-pressed", "false");
  try {
    const end = await open((source) => (mine === begun ? show(source) : undefined));
    if (mine === begun) {
      endSource = end;
      return true;
    }
    end();
  } catch (error) {
    if (mine === begun) {
      fail(error);
    }
  }
  return false;
}

async function load() {
  const mine = ++loads;
  const old = detector;
  detector = undefined;
  say("Loading the model…");
  try {
    await old?.close();
    const loaded = await Detector.load(at("model").value, { engine: at("engine").value });
    if (mine !== loads) {
      return void loaded.close();
    }
    detector = loaded;
  } catch (error) {
    if (mine === loads) {
      at("runs-on").textContent = "–";
      at("reason").textContent = "–";
      fail(error);
    }
    return;
  }
  at("runs-on").textContent = detector.engine;
  at("reason").textContent = detector.reason;
  at("confidence").value = detector.confidence;
  at("confidence-value").textContent = detector.confidence.toFixed(2);
  const layer = at("layer").value;
  at("layer").replaceChildren(...detector.layers.map((name, number) => new Option(name, number)));
  at("layer").value = layer in detector.layers ? layer : 0;
  const kernel = at("kernel").value || "own";
  at("kernel").replaceChildren(...detector.kernels.map((name) => new Option(KERNELS[name] ?? name, name)));
  at("kernel").value = kernel;
  say("Ready.");
  await again(async () => {
    if (kernel !== "own") {
      await detector.replace(kernel);
    }
    if (point) {
      await detector.watch(Number(at("layer").value));
    }
  });
}

// Looks at the last picture again after a change; a camera's next one would show it anyway.
async function again(first) {
  try {
    await first?.();
    await look();
  } catch (error) {
    fail(error);
  }
}

function choose(event) {
  const pixel = pixelAt(canvas, event);
  if (!pixel) {
    return forget();
  }
  point = pixel;
  return again(() => detector?.watch(Number(at("layer").value)));
}

function forget() {
  [point, attention] = [undefined, undefined];
  return again(() => detector?.watch());
}

at("model").replaceChildren(...Detector.models.map((name) => new Option(name)));
for (const name of SAMPLES) {
  const button = document.createElement("button");
  button.type = "button";
  button.title = name;
  const image = document.createElement("img");
  [image.src, image.alt] = [`samples/${name}.jpg`, name];
  button.append(image);
  button.addEventListener("click", () => change((show) => sources.sample(image.src, show)));
  at("samples").append(button);
}
at("camera").addEventListener("click", async () => {
  if (at("camera").getAttribute("aria-pressed") === "true") {
    return change(async () => () => {});
  }
  const runs = await change(sources.camera);
  at("camera").setAttribute("aria-pressed", String(runs));
});
at("file").addEventListener("change", (event) => {
  const [file] = event.target.files;
  if (file) {
    change((show) => sources.file(file, show));
  }
  event.target.value = "";
});
at("model").addEventListener("change", load);
at("engine").addEventListener("change", load);
at("layer").addEventListener("change", () => point && again(() => detector?.watch(Number(at("layer").value))));
at("kernel").addEventListener("change", () => again(() => detector?.replace(at("kernel").value)));
at("confidence").addEventListener("input", () => {
  const confidence = Number(at("confidence").value);
  at("confidence-value").textContent = confidence.toFixed(2);
  again(() => detector?.setConfidence(confidence));
});
canvas.addEventListener("click", choose);
addEventListener("keydown", (event) => event.key === "Escape" && forget());
addEventListener("resize", redraw);
addEventListener("dragover", (event) => {
  event.preventDefault();
  at("drop").hidden = false;
});
addEventListener("dragleave", (event) => {
  if (event.relatedTarget === null) {
    at("drop").hidden = true;
  }
});
addEventListener("drop", (event) => {
  event.preventDefault();
  at("drop").hidden = true;
  const [file] = event.dataTransfer.files;
  if (file) {
    change((show) => sources.file(file, show));
  }
});

await load();
await change((show) => sources.sample(`samples/${SAMPLES[0]}.jpg`, show));
