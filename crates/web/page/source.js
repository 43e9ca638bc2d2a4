// Where pictures come from: a camera, a file, a sample photograph. Each calls `show` with every picture it has and returns a
// function that ends it.

const nothing = () => {};

function name(error) {
  switch (error.name) {
    case "NotAllowedError":
      return "The camera was refused: allow it for this page in the browser, then press Camera again.";
    case "NotFoundError":
      return "There is no camera here.";
    case "NotReadableError":
      return "The camera is there but gives no picture: another program may have it.";
    default:
      return `The camera cannot be used: ${error.message}`;
  }
}

// Pictures of a video as they come; what comes while one is looked at is left out.
function follow(video, show) {
  let busy = false;
  let ended = false;
  const next = (work) => (video.requestVideoFrameCallback ?? ((each) => requestAnimationFrame(each))).call(video, work);
  const each = async () => {
    if (ended) {
      return;
    }
    next(each);
    if (!busy && video.videoWidth > 0) {
      busy = true;
      try {
        await show(video);
      } finally {
        busy = false;
      }
    }
  };
  next(each);
  return () => {
    ended = true;
    video.pause();
  };
}

function videoElement() {
  const video = document.createElement("video");
  video.muted = true;
  video.playsInline = true;
  return video;
}

export async function camera(show) {
  if (!navigator.mediaDevices?.getUserMedia) {
    throw new Error("This browser gives cameras only to pages from https:// or localhost.");
  }
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { width: { ideal: 1280 } }, audio: false });
  } catch (error) {
    throw new Error(name(error));
  }
  const video = videoElement();
  video.srcObject = stream;
  await video.play();
  const end = follow(video, show);
  return () => {
    end();
    stream.getTracks().forEach((track) => track.stop());
  };
}

export async function file(file, show) {
  if (file.type.startsWith("video/")) {
    const url = URL.createObjectURL(file);
    const video = videoElement();
    video.loop = true;
    video.src = url;
    try {
      await video.play();
    } catch {
      URL.revokeObjectURL(url);
      throw new Error(`${file.name} is no video that this browser plays.`);
    }
    const end = follow(video, show);
    return () => {
      end();
      URL.revokeObjectURL(url);
    };
  }
  return picture(file, file.name, show);
}

export async function sample(url, show) {
  const response = await fetch(url);
  if (!response.ok) {
    throw new Error(`${url} cannot be read: ${response.status} ${response.statusText}`.trim());
  }
  return picture(await response.blob(), url, show);
}

async function picture(blob, name, show) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(blob);
  } catch {
    throw new Error(`${name} is no picture that this browser reads.`);
  }
  await show(bitmap);
  return nothing;
}
