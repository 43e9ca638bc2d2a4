// The picture with what was found in it: boxes, names, attention.

// Neighbouring numbers get hues far apart.
export function colourOf(number) {
  return `hsl(${(number * 137.5) % 360} 85% 62%)`;
}

function label(context, object, scale) {
  const text = `${object.class} ${object.confidence.toFixed(2)}`;
  const height = 18 * scale;
  const width = context.measureText(text).width + 8 * scale;
  const left = Math.max(0, Math.min(object.left, context.canvas.width - width));
  const top = object.top >= height ? object.top - height : object.top;
  context.fillStyle = colourOf(object.number);
  context.fillRect(left, top, width, height);
  context.fillStyle = "#000";
  context.fillText(text, left + 4 * scale, top + height / 2);
}

function heat(context, attention) {
  const { rows, columns, colours, left, top, right, bottom } = attention;
  const small = new OffscreenCanvas(columns, rows);
  small.getContext("2d").putImageData(new ImageData(new Uint8ClampedArray(colours), columns, rows), 0, 0);
  context.imageSmoothingEnabled = false;
  context.drawImage(small, left, top, right - left, bottom - top);
  context.imageSmoothingEnabled = true;
}

// Pixels of the canvas for each of the screen, and where its middle lies.
function fit(canvas) {
  const area = canvas.getBoundingClientRect();
  const scale = Math.max(canvas.width / (area.width || 1), canvas.height / (area.height || 1));
  return { scale, x: area.left + area.width / 2, y: area.top + area.height / 2 };
}

// The pixel of the picture under the pointer; nothing beside the picture.
export function pixelAt(canvas, event) {
  const { scale, x, y } = fit(canvas);
  const point = { x: (event.clientX - x) * scale + canvas.width / 2, y: (event.clientY - y) * scale + canvas.height / 2 };
  const isInside = point.x >= 0 && point.y >= 0 && point.x < canvas.width && point.y < canvas.height;
  return isInside ? point : undefined;
}

// Draws `picture`, the detections in it, and where there is one the attention of `point`; lines are as wide on the screen
// whatever the picture's size is.
export function draw(canvas, picture, found, attention, point) {
  const { width, height } = picture;
  if (canvas.width !== width || canvas.height !== height) {
    [canvas.width, canvas.height] = [width, height];
  }
  const context = canvas.getContext("2d");
  context.drawImage(picture, 0, 0);
  const { scale } = fit(canvas);
  if (attention) {
    heat(context, attention);
  }
  context.lineWidth = 2 * scale;
  context.font = `${13 * scale}px system-ui, sans-serif`;
  context.textBaseline = "middle";
  const objects = [...found.objects].reverse();
  for (const object of objects) {
    context.strokeStyle = colourOf(object.number);
    context.strokeRect(object.left, object.top, object.right - object.left, object.bottom - object.top);
  }
  objects.forEach((object) => label(context, object, scale));
  if (attention && point) {
    for (const [colour, line] of [["#000", 3], ["#fff", 1.5]]) {
      context.beginPath();
      context.arc(point.x, point.y, 7 * scale, 0, 2 * Math.PI);
      context.strokeStyle = colour;
      context.lineWidth = line * scale;
      context.stroke();
    }
  }
}
