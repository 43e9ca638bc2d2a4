/** What a detector can be given: anything that can be drawn on a canvas, or pixels as they are. */
export type Picture =
  | ImageData
  | HTMLImageElement
  | HTMLVideoElement
  | HTMLCanvasElement
  | OffscreenCanvas
  | ImageBitmap
  | VideoFrame;

export interface LoadOptions {
  /**
   * What computes the network. `"auto"`: WebGPU where the browser has a hardware adapter, else the processor. `"gpu"`: WebGPU,
   * a software adapter too. `"cpu"`: the processor, with WebAssembly's relaxed-simd, in older browsers simd128, in one thread.
   */
  engine?: "auto" | "gpu" | "cpu";
  /** Least confidence of what is reported, 0 to 1; the model's own unless given. */
  confidence?: number;
  /** The folder of the models; that of this package unless given. */
  base?: URL;
}

/** Something that was found; edges in pixels of the picture, from its upper left corner. */
export interface DetectedObject {
  /** The name of its class. */
  class: string;
  /** The number of its class. */
  number: number;
  /** 0 to 1. */
  confidence: number;
  left: number;
  top: number;
  right: number;
  bottom: number;
}

export interface Detections {
  /** By falling confidence. */
  objects: DetectedObject[];
  /** Width of the picture in pixels. */
  width: number;
  /** Its height. */
  height: number;
  /** How long it took from pixels to objects. */
  milliseconds: number;
  /** What ran: another engine than before where a device was lost. */
  engine: string;
  /** What a person should know of it: that a device was lost, for example. Empty most of the time. */
  notices: string[];
}

/** What a point of a picture looks at: weights k(q, k_j) / sum as the network has them, the mean of all heads. */
export interface Attention {
  /** Rows of positions. */
  rows: number;
  /** Columns of positions. */
  columns: number;
  /** The row of the point. */
  row: number;
  /** Its column. */
  column: number;
  /** rows * columns weights, row by row; the sum is 1. */
  weights: Float32Array;
  /** Red, green, blue and opacity of each position, 0 to 255: the largest weight is the brightest. */
  colours: Uint8Array;
  /** What the positions cover, in pixels of the picture: more than the picture, which has a border in the network's input. */
  left: number;
  top: number;
  right: number;
  bottom: number;
}

/** How attention weighs: four kernels that split exactly into feature maps, so that its cost is linear, and softmax. */
export type Kernel = "own" | "hadamard" | "sum" | "difference" | "modulated" | "softmax";

/** Finds objects in pictures. Calls are done one after the other. */
export class Detector {
  private constructor(network: unknown);
  /** Names of the models of this package. */
  static readonly models: string[];
  /**
   * Loads a model of this package, or NAME.toml and NAME.safetensors from `base`. Fails with one sentence where a file cannot be
   * read or is damaged, or where the engine that was asked for is not there.
   */
  static load(name?: string, options?: LoadOptions): Promise<Detector>;
  /** What runs, for people. */
  readonly engine: string;
  /** Why it is this engine, for people. */
  readonly reason: string;
  /** Names of the classes; the index is the number. */
  readonly classes: string[];
  /** Names of the layers of attention, in the order in which they run. */
  readonly layers: string[];
  /** Names of the kernels that the layers of attention can have; `"own"` is the one that the model learnt with. */
  readonly kernels: Kernel[];
  /** Least confidence of what is reported. */
  readonly confidence: number;
  /** Sets it. */
  setConfidence(confidence: number): Promise<void>;
  /** Reads a layer of attention with each picture from now on, by its number from 0; `undefined` for none. */
  watch(layer?: number): Promise<void>;
  /**
   * Gives all layers of attention another kernel while the weights stay: what changes in boxes and heat maps is the kernel's doing.
   */
  replace(kernel?: Kernel): Promise<void>;
  /** What is in a picture. After the loss of a GPU's device it goes on with a new one, then with the processor. */
  detect(picture: Picture): Promise<Detections>;
  /** What a point of the last picture looks at in the watched layer; nothing where none is watched, or no picture was seen since. */
  attention(x: number, y: number): Promise<Attention | undefined>;
  /** Gives all memory back; nothing may be called after it. */
  close(): Promise<void>;
}
