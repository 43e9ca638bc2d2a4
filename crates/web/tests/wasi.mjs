// Runs a test program compiled for wasm32-wasip1: node wasi.mjs FILE ARGUMENTS. It sees all files, from the present folder.
import { readFileSync } from "node:fs";
import { setFlagsFromString } from "node:v8";
import { WASI } from "node:wasi";

// There without a flag since node 21.
if (Number(process.versions.node.split(".")[0]) < 21) {
  setFlagsFromString("--experimental-wasm-relaxed-simd");
}

const [file, ...args] = process.argv.slice(2);
const preopens = { "/": "/", ".": process.cwd() };
const wasi = new WASI({ version: "preview1", args: [file, ...args], env: process.env, preopens, returnOnExit: true });
const module = await WebAssembly.compile(readFileSync(file));
process.exitCode = wasi.start(await WebAssembly.instantiate(module, wasi.getImportObject()));
