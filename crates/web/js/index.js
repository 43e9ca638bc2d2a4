// The detector for programs: loads a model, takes what browsers have of pictures, gives objects. index.d.ts describes it.
import { MODELS } from "./models.js";

// The smallest module with an instruction on vectors: (func (result v128) i32.const 0 i8x16.splat).
const WITH_VECTORS = new Uint8Array([
  0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 8, 1, 6, 0, 65, 0, 253, 15, 11,
]);

// The same for a fused multiply-add: (func (result v128) i32.const 0 i8x16.splat, three times, f32x4.relaxed_madd).
const WITH_RELAXED_VECTORS = new Uint8Array([
  0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 19, 1, 17, 0, 65, 0, 253, 15, 65, 0, 253, 15, 65, 0, 253, 15,
  253, 133, 2, 11,
]);

let started;
// What the module gives once it is there: the same code in two forms.
let rust;

async function start() {
  if (!WebAssembly.validate(WITH_VECTORS)) {
    throw new Error("This browser is too old: its WebAssembly has no vectors (simd128, there since 2021 to 2023).");
  }
  const form = WebAssembly.validate(WITH_RELAXED_VECTORS) ? "relaxed" : "simd128";
  started ??= import(`./${form}/yolo_lat_web.js`).then(async (module) => {
    await module.default();
    rust = module;
  });
  try {
    await started;
  } catch (error) {
    started = undefined;
    throw error;
  }
}

async function read(url, as) {
  let response;
  try {
    response = await fetch(url);
  } catch (error) {
    throw new Error(`${url} cannot be read: ${error.message}`);
  }
  if (!response.ok) {
    throw new Error(`${url} cannot be read: ${response.status} ${response.statusText}`.trim());
  }
  return response[as]();
}

function sizeOf(source) {
  const width = source.videoWidth ?? source.displayWidth ?? source.naturalWidth ?? source.width;
  const height = source.videoHeight ?? source.displayHeight ?? source.naturalHeight ?? source.height;
  return [width, height];
}

export class Detector {
  #network;
  #canvas = new OffscreenCanvas(1, 1);
  #last = Promise.resolve();

  constructor(network) {
    this.#network = network;
    this.classes = network.classes;
    this.layers = network.layers;
    this.kernels = network.kernels;
  }

  static get models() {
    return Object.keys(MODELS);
  }

  static async load(name = "n", { engine = "auto", confidence, base = new URL("./models/", import.meta.url) } = {}) {
    const files = MODELS[name] ?? { config: `${name}.toml`, weights: `${name}.safetensors` };
    const [, config, weights] = await Promise.all([
      start(),
      read(new URL(files.config, base), "text"),
      read(new URL(files.weights, base), "arrayBuffer"),
    ]);
    const origin = files.weights.replace(/\.safetensors$/, "");
    return new Detector(await rust.Network.make(config, new Uint8Array(weights), origin, engine, confidence));
  }

  get engine() {
    return this.#network.engine;
  }

  get reason() {
    return this.#network.reason;
  }

  get confidence() {
    return this.#network.confidence;
  }

  // One call after the other: a network looks at one picture at a time.
  #next(work) {
    const result = this.#last.then(work);
    this.#last = result.catch(() => {});
    return result;
  }

  setConfidence(confidence) {
    return this.#next(() => {
      this.#network.confidence = confidence;
    });
  }

  watch(layer) {
    return this.#next(() => this.#network.watch(layer));
  }

  replace(kernel = "own") {
    return this.#next(() => this.#network.replace(kernel));
  }

  #pixels(source) {
    if (source instanceof ImageData) {
      return source;
    }
    const [width, height] = sizeOf(source);
    if (!(width > 0 && height > 0)) {
      throw new Error("the picture has no pixels");
    }
    const canvas = this.#canvas;
    if (canvas.width !== width || canvas.height !== height) {
      [canvas.width, canvas.height] = [width, height];
    }
    const context = canvas.getContext("2d", { willReadFrequently: true });
    // What is transparent shows nothing of the picture before.
    context.globalCompositeOperation = "copy";
    context.drawImage(source, 0, 0, width, height);
    return context.getImageData(0, 0, width, height);
  }

  detect(source) {
    const { data, width, height } = this.#pixels(source);
    return this.#next(async () => {
      const start = performance.now();
      const values = await this.#network.detect(data, width, height);
      const milliseconds = performance.now() - start;
      const objects = [];
      for (let at = 0; at < values.length; at += 6) {
        const [number, confidence, left, top, right, bottom] = values.subarray(at, at + 6);
        objects.push({ class: this.classes[number], number, confidence, left, top, right, bottom });
      }
      return { objects, width, height, milliseconds, engine: this.engine, notices: rust.notices() };
    });
  }

  attention(x, y) {
    return this.#next(() => {
      const look = this.#network.look(x, y);
      if (!look) {
        return undefined;
      }
      const [rows, columns, row, column] = look.places;
      const [left, top, right, bottom] = look.area;
      const { weights, colours } = look;
      look.free();
      return { rows, columns, row, column, weights, colours, left, top, right, bottom };
    });
  }

  close() {
    return this.#next(() => this.#network.free());
  }
}
