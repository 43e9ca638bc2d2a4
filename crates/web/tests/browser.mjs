// The page in headless Chromium: node browser.mjs DIST FOLDER short|full|figures. FOLDER has expected.json, which tests/web.rs writes, and gets
// screenshots and figures.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { chromium } from "playwright-core";
import { serve } from "../serve.mjs";

const [dist, folder, form] = process.argv.slice(2);
const models = JSON.parse(readFileSync(join(folder, "expected.json"), "utf8"));
// A path below the root: nothing of the page may depend on where it lies.
const { server, url } = await serve(dist, 0, "/some/where/");
const requests = [];
// Software adapters take seconds for a picture.
const TIMEOUT = 180_000;

function launch(camera) {
  const fake = camera ? ["--use-fake-device-for-media-stream", `--use-file-for-fake-video-capture=${camera}`] : [];
  const executablePath = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"].find(existsSync);
  return chromium.launch({ executablePath, args: ["--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader", ...fake] });
}

// A page that tells what went wrong in it. `before` runs in it before its own scripts.
async function open(browser, { before, path = "" } = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 800 } });
  const page = await context.newPage();
  context.on("request", (request) => requests.push(request.url()));
  page.on("pageerror", (error) => console.error(`in the page: ${error.stack ?? error}`));
  page.on("console", (line) => line.type() === "error" && console.error(`on the console: ${line.text()}`));
  if (before) {
    await page.addInitScript(before);
  }
  await page.goto(url + path);
  return page;
}

const message = (page) => page.locator("#message").textContent();

// Waits until the page says something that matches.
async function said(page, pattern) {
  const end = Date.now() + TIMEOUT;
  for (;;) {
    const text = await message(page);
    if (pattern.test(text)) {
      return text;
    }
    assert(Date.now() < end, `waited for ${pattern}, the page says: ${text}`);
    await page.waitForTimeout(25);
  }
}

function same(expected, found, what) {
  const names = (objects) => objects.map((object) => object.class).join(", ");
  assert.equal(names(found), names(expected), what);
  let [pixels, confidence] = [0, 0];
  expected.forEach((object, at) => {
    for (const side of ["left", "top", "right", "bottom"]) {
      pixels = Math.max(pixels, Math.abs(object[side] - found[at][side]));
    }
    confidence = Math.max(confidence, Math.abs(object.confidence - found[at].confidence));
  });
  assert(pixels <= 0.5, `${what}: boxes differ by ${pixels} pixels`);
  assert(confidence <= 0.01, `${what}: confidences differ by ${confidence}`);
  return { pixels, confidence };
}

// Boxes and attention of each photograph through the package, as a program would use it.
async function parity(page, engine, { model, photographs }, layers) {
  const picture = (name) => [name, readFileSync(join(folder, `${name}.png`)).toString("base64")];
  const pictures = Object.fromEntries(photographs.map(({ name }) => picture(name)));
  const { runs, results } = await page.evaluate(
    async ({ engine, model, photographs, layers, pictures }) => {
      const { Detector } = await import(new URL("yolo-lat/index.js", location.href));
      const detector = await Detector.load(model, { engine });
      const results = [];
      for (const { name, point } of photographs) {
        const bytes = Uint8Array.from(atob(pictures[name]), (letter) => letter.charCodeAt(0));
        const picture = await createImageBitmap(new Blob([bytes], { type: "image/png" }));
        for (let layer = 0; layer < layers; layer++) {
          await detector.watch(layer);
          const { objects } = await detector.detect(picture);
          const { weights, rows, columns, row, column } = await detector.attention(point.x, point.y);
          results.push({ name, objects, layer, look: { weights: [...weights], rows, columns, row, column } });
        }
      }
      const runs = detector.engine;
      await detector.close();
      return { runs, results };
    },
    { engine, model, photographs, layers, pictures },
  );
  const worst = { pixels: 0, confidence: 0, weight: 0 };
  for (const { name, objects, layer, look } of results) {
    const what = `${model} on ${runs}, ${name}`;
    const expected = photographs.find((photograph) => photograph.name === name);
    const { pixels, confidence } = same(expected.objects, objects, what);
    worst.pixels = Math.max(worst.pixels, pixels);
    worst.confidence = Math.max(worst.confidence, confidence);
    const { weights, ...places } = expected.looks[layer];
    for (const [key, value] of Object.entries(places)) {
      assert.equal(look[key], value, `${what}: ${key} of layer ${layer}`);
    }
    assert.equal(look.weights.length, weights.length);
    weights.forEach((weight, at) => {
      worst.weight = Math.max(worst.weight, Math.abs(weight - look.weights[at]));
    });
    assert(worst.weight <= 1e-3, `${what}: a weight of layer ${layer} differs by ${worst.weight}`);
  }
  const [pixels, confidence, weight] = Object.values(worst).map((value) => value.toExponential(1));
  console.log(`${model} on ${runs}: at most ${pixels} pixels, ${confidence} in confidence, ${weight} in attention from the program's`);
  return runs;
}

const withoutGpu = () => delete Navigator.prototype.gpu;

// As browsers without relaxed-simd: they find the longer of the two probes invalid.
const withoutRelaxed = () => {
  const validate = WebAssembly.validate;
  WebAssembly.validate = (bytes) => bytes.length < 40 && validate(bytes);
};

async function enginesAgree(browser, wanted, layers) {
  const page = await open(browser);
  await said(page, /found in this picture/);
  for (const of of wanted) {
    for (const engine of ["cpu", "gpu"]) {
      const runs = await parity(page, engine, of, layers ?? of.photographs[0].looks.length);
      assert.match(runs, engine === "cpu" ? /^cpu \(relaxed-simd, 1 thread\)$/ : /^gpu \(WebGPU/);
    }
  }
  await page.context().close();
  const older = await open(browser, { before: withoutRelaxed });
  for (const of of wanted) {
    const runs = await parity(older, "cpu", of, layers ?? of.photographs[0].looks.length);
    assert.equal(runs, "cpu (simd128, 1 thread)");
  }
  await older.context().close();
}

// Every shader through the browser's own compiler, which is stricter than ours; 16-bit floats where the adapter has them.
async function shadersCompile(browser) {
  const page = await open(browser);
  const shaders = JSON.parse(readFileSync(join(folder, "shaders.json"), "utf8"));
  const { faults, compiled } = await page.evaluate(async (shaders) => {
    const adapter = await navigator.gpu.requestAdapter();
    const requiredFeatures = ["shader-f16", "subgroups"].filter((feature) => adapter.features.has(feature));
    const device = await adapter.requestDevice({ requiredFeatures });
    const faults = [];
    let compiled = 0;
    for (const { name, half, source } of shaders) {
      if (half && source.includes("enable f16;") && !requiredFeatures.includes("shader-f16")) {
        continue;
      }
      device.pushErrorScope("validation");
      device.createShaderModule({ code: source });
      const error = await device.popErrorScope();
      compiled += 1;
      if (error) {
        faults.push(`${name}: ${error.message}`);
      }
    }
    device.destroy();
    return { faults, compiled };
  }, shaders);
  assert.deepEqual(faults, [], "shaders that the browser refuses");
  console.log(`${compiled} of ${shaders.length} forms of shaders compile in the browser; the others need 16-bit floats, which its adapter lacks`);
  await page.context().close();
}

// Without WebGPU, or with a software adapter alone, the processor is used, and the page says why.
async function withoutHardware(browser) {
  for (const [before, why] of [[withoutGpu, /no WebGPU/], [undefined, /adapter of this browser is software/]]) {
    const page = await open(browser, { before });
    await said(page, /found in this picture/);
    assert.match(await page.locator("#runs-on").textContent(), /^cpu \(relaxed-simd/);
    assert.match(await page.locator("#reason").textContent(), why);
    if (before) {
      await page.locator("#engine").selectOption("gpu");
      await said(page, /no WebGPU/);
      await page.locator("#engine").selectOption("cpu");
      await said(page, /found in this picture/);
    }
    await page.context().close();
  }
}

// A device that is destroyed: a new one takes its place, then the processor; each time the picture is looked at all the same.
async function lostDevice(browser) {
  const page = await open(browser, {
    before: () => {
      const request = GPUAdapter.prototype.requestDevice;
      window.devices = [];
      GPUAdapter.prototype.requestDevice = async function (...options) {
        const device = await request.apply(this, options);
        window.devices.push(device);
        return device;
      };
    },
  });
  await said(page, /found in this picture/);
  await page.locator("#engine").selectOption("gpu");
  await said(page, /found in this picture/);
  for (const [goesOn, runs] of [[/lost.*going on with a new device/, /^gpu/], [/lost.*going on with the CPU engine/, /^cpu/]]) {
    await page.evaluate(() => window.devices.forEach((device) => device.destroy()));
    await page.locator("#samples button").nth(1).click();
    await said(page, goesOn);
    assert.match(await page.locator("#runs-on").textContent(), runs);
    assert.match(await page.locator("#objects").textContent(), /cat/);
  }
  await page.context().close();
}

// After the first picture of a size a frame makes no buffer, and reads back its detections alone.
async function framesMakeNothing(browser) {
  const page = await open(browser, {
    before: () => {
      window.made = [];
      window.read = [];
      for (const [prototype, method] of [
        [GPUDevice.prototype, "createBuffer"],
        [GPUDevice.prototype, "createTexture"],
        [GPUDevice.prototype, "createBindGroup"],
        [GPUDevice.prototype, "createComputePipeline"],
      ]) {
        const original = prototype[method];
        prototype[method] = function (...values) {
          window.made.push(`${method} ${values[0].label}`);
          return original.apply(this, values);
        };
      }
      const map = GPUBuffer.prototype.mapAsync;
      GPUBuffer.prototype.mapAsync = function (mode, offset = 0, size = this.size - offset) {
        window.read.push(size);
        return map.call(this, mode, offset, size);
      };
    },
  });
  await said(page, /found in this picture/);
  const { first, later, read } = await page.evaluate(async () => {
    const { Detector } = await import(new URL("yolo-lat/index.js", location.href));
    const detector = await Detector.load("n", { engine: "gpu" });
    const picture = (grey) => {
      const picture = new ImageData(320, 240);
      picture.data.fill(grey);
      return picture;
    };
    await detector.detect(picture(0));
    const first = window.made.splice(0).length;
    window.read = [];
    await detector.detect(picture(90));
    await detector.detect(picture(180));
    await detector.close();
    return { first, later: window.made, read: window.read };
  });
  assert(first > 10, "nothing was counted");
  assert.deepEqual(later, [], "made for a frame");
  assert.equal(read.length, 2, `reads of two frames: ${read}`);
  // Of 300 detections, 24 to 32 bytes each, and their number.
  assert(read.every((bytes) => bytes > 0 && bytes <= 16_384), `bytes that are read back: ${read}`);
  console.log(`a frame on WebGPU: nothing is made, ${read[0]} bytes are read back`);
  await page.context().close();
}

// Half a model: one sentence, and the page goes on when the file is whole again.
async function brokenModel(browser) {
  const page = await open(browser);
  await said(page, /found in this picture/);
  await page.route("**/*.safetensors", async (route) => {
    const whole = await (await route.fetch()).body();
    await route.fulfill({ body: whole.subarray(0, whole.length / 2), contentType: "application/octet-stream" });
  });
  await page.locator("#engine").selectOption("cpu");
  const text = await said(page, /safetensors/);
  assert.match(text, /^yolo-lat-n\.[0-9a-f]{12}\.safetensors: not a readable safetensors file .*copy or download it again$/);
  await page.unroute("**/*.safetensors");
  await page.locator("#engine").selectOption("auto");
  await said(page, /found in this picture/);
  await page.context().close();
}

// A picture of one pixel, and a file that is none.
async function strangeFiles(browser) {
  const page = await open(browser);
  await said(page, /found in this picture/);
  const pixel = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";
  await page.locator("#file").setInputFiles({ name: "pixel.png", mimeType: "image/png", buffer: Buffer.from(pixel, "base64") });
  await said(page, /^Nothing was found in this picture of 1x1 pixels\.$/);
  for (const [name, mimeType, says] of [
    ["notes.png", "image/png", /^notes\.png is no picture that this browser reads\.$/],
    ["notes.mp4", "video/mp4", /^notes\.mp4 is no video that this browser plays\.$/],
  ]) {
    await page.locator("#file").setInputFiles({ name, mimeType, buffer: Buffer.from("no picture") });
    await said(page, says);
  }
  await page.locator("#samples button").nth(1).click();
  await said(page, /^One object was found in this picture of 451x300 pixels\.$/);
  await page.context().close();
}

// The camera: refused, then one that shows a photograph; and a video file.
async function cameras() {
  const camera = join(folder, "camera.y4m");
  const video = join(folder, "video.webm");
  const still = ["-v", "error", "-y", "-loop", "1", "-i", "assets/chelsea.jpg", "-vf", "scale=450:300", "-pix_fmt", "yuv420p"];
  execFileSync("ffmpeg", [...still, "-t", "1", "-r", "10", camera]);
  execFileSync("ffmpeg", [...still, "-t", "1", "-r", "10", "-c:v", "libvpx", video]);
  const browser = await launch(camera);
  const page = await open(browser);
  await said(page, /found in this picture/);
  const { targetInfo } = await (await page.context().newCDPSession(page)).send("Target.getTargetInfo");
  const session = await browser.newBrowserCDPSession();
  const allow = (setting) =>
    session.send("Browser.setPermission", {
      permission: { name: "camera" },
      setting,
      origin: new URL(url).origin,
      browserContextId: targetInfo.browserContextId,
    });
  await allow("denied");
  await page.locator("#camera").click();
  await said(page, /^The camera was refused: allow it for this page in the browser, then press Camera again\.$/);
  await allow("granted");
  await page.locator("#camera").click();
  await said(page, /^One object was found in this picture of \d+x\d+ pixels\.$/);
  assert.match(await page.locator("#objects").textContent(), /cat/);
  await page.locator("#camera").click();
  await page.locator("#file").setInputFiles(video);
  await said(page, /^One object was found in this picture of 450x300 pixels\.$/);
  await browser.close();
}

// Threshold, attention and how it all looks.
async function looks(browser) {
  const page = await open(browser);
  await said(page, /^2 objects were found in this picture of 512x512 pixels\.$/);
  await page.locator("#confidence").fill("0.95");
  await said(page, /^Nothing was found/);
  await page.locator("#confidence").fill("0.4");
  await said(page, /^2 objects were found/);
  const pixels = () => page.locator("#picture").evaluate((canvas) => canvas.toDataURL());
  const before = await pixels();
  await page.screenshot({ path: join(folder, "page.png") });
  await page.locator("#picture").click({ position: { x: 478, y: 300 } });
  const changed = async (from) => {
    const end = Date.now() + TIMEOUT;
    while ((await pixels()) === from) {
      assert(Date.now() < end, "a click shows no attention");
      await page.waitForTimeout(25);
    }
  };
  await changed(before);
  const first = await pixels();
  await page.screenshot({ path: join(folder, "attention.png") });
  await page.locator("#layer").selectOption({ index: 1 });
  await changed(first);
  const own = await pixels();
  await page.locator("#kernel").selectOption("softmax");
  await changed(own);
  const softmax = await pixels();
  await page.locator("#kernel").selectOption("own");
  await changed(softmax);
  assert.equal(await pixels(), own, "the model's own kernel shows what it did before");
  await page.keyboard.press("Escape");
  const end = Date.now() + TIMEOUT;
  while ((await pixels()) !== before) {
    assert(Date.now() < end, "Escape does not end attention");
    await page.waitForTimeout(25);
  }
  await page.context().close();
}

// Times, which are printed and kept, not asserted.
async function figures(browser) {
  const result = { version: browser.version() };
  for (const [form, before] of [["relaxed-simd", []], ["simd128", [withoutRelaxed]]]) {
    const page = await open(browser, { before: withoutGpu });
    for (const script of before) {
      await page.addInitScript(script);
    }
    await page.reload();
    await said(page, /found in this picture/);
    // From the cache: the second visit.
    await page.goto("about:blank");
    const start = Date.now();
    await page.goto(url);
    await said(page, /found in this picture/);
    const first = Date.now() - start;
    const times = {};
    for (const model of ["n", "s"]) {
      const values = await page.evaluate(async (model) => {
        const { Detector } = await import(new URL("yolo-lat/index.js", location.href));
        const detector = await Detector.load(model, { engine: "cpu" });
        const picture = new ImageData(640, 480);
        picture.data.fill(128);
        const times = [];
        for (let round = 0; round < 60; round++) {
          times.push((await detector.detect(picture)).milliseconds);
        }
        await detector.close();
        return times.sort((a, b) => a - b);
      }, model);
      times[model] = { least: values[0], median: values[values.length / 2] };
    }
    result[form] = { first_detection_ms: first, detect_ms: times };
    await page.context().close();
  }
  writeFileSync(join(folder, "figures.json"), `${JSON.stringify(result, undefined, 2)}\n`);
  console.log(JSON.stringify(result));
}

const browser = await launch();
try {
  if (form === "figures") {
    await figures(browser);
  } else if (form === "full") {
    await shadersCompile(browser);
    await enginesAgree(browser, models);
    await withoutHardware(browser);
    await framesMakeNothing(browser);
    await lostDevice(browser);
    await brokenModel(browser);
    await strangeFiles(browser);
    await cameras();
    await looks(browser);
    await figures(browser);
  } else {
    const [{ photographs, ...n }] = models;
    await enginesAgree(browser, [{ ...n, photographs: photographs.slice(1, 2) }], 1);
    await framesMakeNothing(browser);
    await brokenModel(browser);
  }
  const outside = requests.filter((request) => !request.startsWith(url) && !/^(blob|data):/.test(request));
  assert.deepEqual(outside, [], "something outside of the page's own folder was asked for");
} finally {
  await browser.close();
  server.close();
}
