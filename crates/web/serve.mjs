// Serves a folder on this machine alone: node serve.mjs FOLDER [PORT]
import { createReadStream } from "node:fs";
import { stat } from "node:fs/promises";
import { createServer } from "node:http";
import { extname, join, normalize } from "node:path";
import { fileURLToPath } from "node:url";

const TYPES = {
  ".css": "text/css",
  ".html": "text/html; charset=utf-8",
  ".jpg": "image/jpeg",
  ".js": "text/javascript",
  ".png": "image/png",
  ".svg": "image/svg+xml",
  ".ts": "text/plain",
  ".wasm": "application/wasm",
};

// Files of `folder` under `prefix`, which begins and ends with a slash.
export function serve(folder, port = 0, prefix = "/") {
  const server = createServer(async (request, response) => {
    const path = decodeURIComponent(new URL(request.url, "http://localhost").pathname);
    const file = normalize(join(folder, path.slice(prefix.length), path.endsWith("/") ? "index.html" : ""));
    const isInside = path.startsWith(prefix) && file.startsWith(normalize(folder));
    const found = isInside ? await stat(file).catch(() => undefined) : undefined;
    if (!found?.isFile()) {
      return void response.writeHead(404).end();
    }
    const type = TYPES[extname(file)] ?? "application/octet-stream";
    response.writeHead(200, { "content-type": type, "content-length": found.size, "cache-control": "no-cache" });
    createReadStream(file).pipe(response);
  });
  return new Promise((resolve) => {
    server.listen(port, "127.0.0.1", () => resolve({ server, url: `http://localhost:${server.address().port}${prefix}` }));
  });
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [folder, port = "8000"] = process.argv.slice(2);
  const { url } = await serve(folder, Number(port));
  console.log(`${url} (Ctrl-C ends it)`);
}
