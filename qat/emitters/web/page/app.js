"use strict";
// Draws or takes a picture, makes the network's input of it, runs model.onnx, and shows the scores.

const part = (id) => document.getElementById(id);
const SHOWN = 10; // classes in the list
const PAD = 320; // pixels along an edge of the canvas, about

// --- Files: fetched, or out of offline.js where a page from disk may not fetch.

async function read(name) {
  if (location.protocol === "file:" && !window.offline) await script("offline.js");
  const response = await fetch(window.offline ? `data:;base64,${window.offline[name]}` : name);
  if (!response.ok) throw new Error(`${name}: ${response.status} ${response.statusText}`);
  return new Uint8Array(await response.arrayBuffer());
}

function script(source) {
  return new Promise((resolve, reject) => {
    const element = Object.assign(document.createElement("script"), { src: source, onload: resolve });
    element.onerror = () => reject(new Error(`${source} cannot be read`));
    document.head.append(element);
  });
}

// --- Pictures become pixels: whole numbers 0..largest of the input's channels.

// The mean of what lies under each pixel of a smaller picture, of the middle of `image` (an ImageData); bytes, RGB.
function shrunk(image, width, height) {
  const step = Math.min(image.width / width, image.height / height);
  const left = (image.width - step * width) / 2, top = (image.height - step * height) / 2;
  const result = new Uint8Array(width * height * 3);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const sums = [0, 0, 0];
      let total = 0;
      const [x0, x1, y0, y1] = [left + x * step, left + (x + 1) * step, top + y * step, top + (y + 1) * step];
      for (let row = Math.floor(y0); row < y1; row++) {
        for (let column = Math.floor(x0); column < x1; column++) {
          const share = (Math.min(row + 1, y1) - Math.max(row, y0)) * (Math.min(column + 1, x1) - Math.max(column, x0));
          const place = 4 * (Math.min(row, image.height - 1) * image.width + Math.min(column, image.width - 1));
          for (let channel = 0; channel < 3; channel++) sums[channel] += share * image.data[place + channel];
          total += share;
        }
      }
      for (let channel = 0; channel < 3; channel++) {
        result[3 * (y * width + x) + channel] = Math.round(sums[channel] / total);
      }
    }
  }
  return result;
}

// Pixels (channels, height, width), 0..largest, of RGB bytes; gray is what Pillow makes of colors.
function pixelsOf(bytes, input) {
  const count = input.width * input.height;
  const pixels = new Uint8Array(count * input.channels);
  for (let place = 0; place < count; place++) {
    const [red, green, blue] = bytes.subarray(3 * place, 3 * place + 3);
    const gray = (red * 19595 + green * 38470 + blue * 7471 + 32768) >> 16;
    const colors = input.channels === 1 ? [gray] : [red, green, blue];
    colors.forEach((color, channel) => {
      pixels[channel * count + place] = Math.round((color * input.largest) / 255);
    });
  }
  return pixels;
}

// What the file takes: pixels as they are, or (pixel / largest - mean) / std, each step rounded to float32.
function inputOf(pixels, input) {
  const count = input.width * input.height;
  const result = new (input.dtype === "uint8" ? Uint8Array : Float32Array)(pixels.length);
  for (let place = 0; place < pixels.length; place++) {
    const channel = Math.floor(place / count);
    const target = input.channels_last ? (place % count) * input.channels + channel : place;
    if (input.dtype === "uint8") {
      result[target] = pixels[place];
    } else {
      const own = (numbers) => Math.fround(numbers[numbers.length > 1 ? channel : 0]);
      const [mean, std] = [own(input.mean), own(input.std)];
      const scaled = Math.fround(pixels[place] / input.largest);
      result[target] = Math.fround(Math.fround(scaled - mean) / std);
    }
  }
  return result;
}

// --- The network.

let model, session;

async function load() {
  model = JSON.parse(new TextDecoder().decode(await read("model.json")));
  const [file, wasm, glue] = await Promise.all([read("model.onnx"), read(model.wasm), read(model.glue)]);
  ort.env.wasm.numThreads = 1; // more need headers that plain servers do not send
  ort.env.wasm.wasmBinary = wasm;
  ort.env.wasm.wasmPaths = { mjs: URL.createObjectURL(new Blob([glue], { type: "text/javascript" })) };
  session = await ort.InferenceSession.create(file, { executionProviders: ["wasm"] });
}

// Scores of pixels (channels, height, width), as an array of numbers; one run at a time.
function classify(pixels) {
  const scores = (classify.before ?? Promise.resolve()).then(() => run(pixels));
  classify.before = scores.catch(() => {});
  return scores;
}

async function run(pixels) {
  const { input, output } = model;
  const { channels, height, width } = input;
  const shape = input.channels_last ? [1, height, width, channels] : [1, channels, height, width];
  const tensor = new ort.Tensor(input.dtype, inputOf(pixels, input), shape);
  const results = await session.run({ [input.name]: tensor });
  return Array.from(results[output].data, Number);
}

// Shares that add up to one, of scores of any kind.
function shares(scores) {
  const largest = Math.max(...scores);
  const powers = scores.map((score) => Math.exp(score - largest));
  const total = powers.reduce((sum, power) => sum + power, 0);
  return model.probabilities ? scores : powers.map((power) => power / total);
}

// --- The page.

const pad = part("pad"), camera = part("camera");
const ink = pad.getContext("2d", { willReadFrequently: true });
let picture; // an ImageData at its own size, until somebody draws

async function look() {
  const { input, labels } = model;
  part("hint").hidden = true;
  const bytes = shrunk(picture ?? ink.getImageData(0, 0, pad.width, pad.height), input.width, input.height);
  const pixels = pixelsOf(part("invert").checked ? bytes.map((byte) => 255 - byte) : bytes, input);
  preview(pixels);
  const start = performance.now();
  const scores = await classify(pixels);
  const time = performance.now() - start;
  const ranked = shares(scores).map((share, place) => ({ share, score: scores[place], label: labels[place] }));
  ranked.sort((a, b) => b.share - a.share);
  part("scores").replaceChildren(...ranked.slice(0, SHOWN).map(entryOf));
  part("state").textContent = `${time.toFixed(1)} ms in this browser, with integers`;
}

function entryOf({ share, score, label }) {
  const entry = document.createElement("li");
  const [name, bar, percent] = ["b", "i", "span"].map((tag) => entry.appendChild(document.createElement(tag)));
  name.textContent = label;
  bar.style.setProperty("--share", `${100 * share}%`);
  percent.textContent = `${(100 * share).toFixed(1)} %`;
  entry.title = `score ${score}`;
  return entry;
}

// What the network sees.
function preview(pixels) {
  const { channels, height, width, largest } = model.input;
  const seen = new ImageData(width, height);
  for (let place = 0; place < width * height; place++) {
    for (let channel = 0; channel < 3; channel++) {
      const plane = channels === 1 ? 0 : channel;
      seen.data[4 * place + channel] = (pixels[plane * width * height + place] * 255) / largest;
    }
    seen.data[4 * place + 3] = 255;
  }
  part("seen").getContext("2d").putImageData(seen, 0, 0);
}

function clear() {
  picture = undefined;
  ink.fillStyle = part("invert").checked ? "#fff" : "#000";
  ink.fillRect(0, 0, pad.width, pad.height);
  part("hint").hidden = false;
  part("seen").getContext("2d").clearRect(0, 0, pad.width, pad.height);
  part("scores").replaceChildren();
  part("state").textContent = "The scores of the classes will stand here.";
}

function draw(event) {
  if (!event.buttons) return;
  const scale = pad.width / pad.clientWidth;
  const end = [event.offsetX * scale, event.offsetY * scale];
  const thickness = Math.max(1.5 / model.input.width, 1 / 12); // one and a half of the network's pixels or more
  ink.beginPath();
  ink.moveTo(...(event.type === "pointermove" && draw.last ? draw.last : end));
  ink.lineTo(...end);
  ink.strokeStyle = part("invert").checked ? "#000" : "#fff";
  Object.assign(ink, { lineCap: "round", lineJoin: "round", lineWidth: pad.width * thickness });
  ink.stroke();
  draw.last = end;
  picture = undefined;
  draw.due ??= requestAnimationFrame(() => {
    draw.due = undefined;
    look();
  });
}

// Takes a picture, or a frame of the camera, which covers the canvas.
function show(source, width, height) {
  const whole = new OffscreenCanvas(width, height).getContext("2d");
  whole.drawImage(source, 0, 0);
  picture = whole.getImageData(0, 0, width, height);
  const scale = Math.max(pad.width / width, pad.height / height);
  const [wide, high] = [width * scale, height * scale];
  ink.imageSmoothingEnabled = scale < 1;
  ink.drawImage(source, (pad.width - wide) / 2, (pad.height - high) / 2, wide, high);
  return look();
}

async function open(file) {
  if (!file) return;
  try {
    const image = await createImageBitmap(file);
    await show(image, image.width, image.height);
  } catch (error) {
    part("state").textContent = `${file.name} is no picture that this browser reads`;
  }
}

async function take() {
  if (camera.srcObject) {
    await show(camera, camera.videoWidth, camera.videoHeight);
    camera.srcObject.getTracks().forEach((track) => track.stop());
    camera.srcObject = null;
  } else {
    try {
      camera.srcObject = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
      await camera.play();
    } catch (error) {
      part("state").textContent = `The camera is not available (${error.message})`;
    }
  }
  camera.hidden = !camera.srcObject;
  pad.hidden = !camera.hidden;
  part("take").textContent = camera.srcObject ? "Take" : "Camera";
}

function connect() {
  const { input } = model;
  const times = Math.max(Math.round(PAD / Math.max(input.width, input.height)), 1);
  Object.assign(pad, { width: times * input.width, height: times * input.height });
  part("hint").textContent = model.drawing ? "Draw here, as large as the frame" : "Drop a picture here";
  pad.style.aspectRatio = camera.style.aspectRatio = `${input.width} / ${input.height}`;
  Object.assign(part("seen"), { width: input.width, height: input.height });
  part("title").textContent = document.title = model.title;
  part("about").textContent = model.about;
  const colors = input.channels === 1 ? "gray" : "color";
  part("size").textContent = `What the network sees: ${input.width} × ${input.height} pixels, ${colors}`;
  part("paper").hidden = input.channels !== 1;
  part("take").hidden = !navigator.mediaDevices;
  if (model.drawing) {
    pad.classList.add("drawing");
    for (const kind of ["pointerdown", "pointermove"]) pad.addEventListener(kind, draw);
    pad.addEventListener("pointerup", () => (draw.last = undefined));
  }
  for (const kind of ["dragover", "dragleave", "drop"]) {
    addEventListener(kind, (event) => {
      event.preventDefault();
      pad.classList.toggle("dropping", kind === "dragover");
      if (kind === "drop") open(event.dataTransfer.files[0]);
    });
  }
  part("file").addEventListener("change", (event) => open(event.target.files[0]));
  part("take").addEventListener("click", take);
  part("clear").addEventListener("click", clear);
  part("invert").addEventListener("change", () => (picture ? look() : clear()));
}

const ready = load().then(connect).then(clear);
ready.catch((error) => (part("state").textContent = `The network cannot run: ${error.message}`));
