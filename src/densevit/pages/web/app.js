// The page: a photo in, pictures and values out. What predicts is the back end; see backend.js.

import { Backend } from "./backend.js";
import { countLabels, depthColours, depthGradient, depthRange, labelColours, valueColours } from "./colours.js";
import { fillFacts, numberText, percentText } from "./facts.js";
import { readPhoto } from "./photo.js";
import { downloads, save } from "./saving.js";

const $ = (id) => document.getElementById(id);
const backend = new Backend();
let about = null; // the content of model.json
let photo = null;
let results = {}; // of the photo, by head
let head = null; // the one that is chosen
let shown = null; // the one whose result is on the page
let point = null; // {x, y} in pixels of the photo
let task = 0; // number of the photo; answers for earlier ones are dropped
let busy = 0; // number of the photo that is being predicted

start();

async function start() {
  try {
    about = await backend.open();
  } catch (error) {
    fail(error);
    return;
  }
  const { metadata } = about;
  document.title = $("title").textContent = metadata.name;
  $("intro").textContent = about.intro;
  fillFacts($("facts"), about, null);
  head = Object.keys(metadata.heads)[0];
  fillHeads(Object.keys(metadata.heads));
  backend.onprogress = working;
  $("gradient").style.background = depthGradient();
  for (const input of [$("choose"), $("take")]) {
    input.addEventListener("change", () => {
      if (input.files[0]) show(input.files[0]);
      input.value = ""; // so that the same photo can be chosen again
    });
  }
  addEventListener("dragover", (event) => event.preventDefault());
  addEventListener("drop", (event) => {
    event.preventDefault();
    if (event.dataTransfer.files[0]) show(event.dataTransfer.files[0]);
  });
  $("opacity").addEventListener("input", setOpacity);
  $("stage").addEventListener("pointerdown", movePoint);
  $("stage").addEventListener("pointermove", (event) => event.buttons && movePoint(event));
  $("stage").addEventListener("keydown", stepPoint);
  setOpacity();
  document.body.dataset.ready = "true";
  if (navigator.serviceWorker && about.offline) {
    navigator.serviceWorker.register("service-worker.js", { updateViaCache: "none" }).catch(() => {}); // not over http
  }
}

async function show(file) {
  const number = ++task;
  $("problem").hidden = $("result").hidden = true;
  [photo, results, point, shown] = [null, {}, null, null];
  try {
    working("Reading the photo …", null);
    const read = await readPhoto(file);
    if (number !== task) return;
    photo = { ...read, name: stem(file.name) };
    await predict(number);
  } catch (error) {
    if (number === task) fail(error);
  }
}

/** Show the chosen head, and let the back end predict it first unless it is known already. */
async function predict(number) {
  if (results[head]) draw();
  if (busy === number) return; // the loop below will see which head is chosen by then
  busy = number;
  try {
    while (!results[head]) {
      working("Starting …", null);
      const answer = await backend.predict(photo, head);
      if (number !== task) return;
      Object.assign(results, answer.results);
      fillFacts($("facts"), about, answer);
    }
    $("working").hidden = true;
    draw();
  } finally {
    if (busy === number) busy = 0;
  }
}

function fillHeads(names) {
  $("heads").hidden = names.length < 2;
  for (const name of names) {
    const label = document.createElement("label");
    const input = document.createElement("input");
    Object.assign(input, { type: "radio", name: "head", value: name, checked: name === head });
    input.addEventListener("change", () => {
      head = name;
      if (photo) predict(task).catch(fail);
    });
    label.append(input, Object.assign(document.createElement("span"), { textContent: name }));
    $("heads").append(label);
  }
}

function draw() {
  shown = head;
  const meaning = about.metadata.heads[shown];
  const result = results[shown];
  const base = $("photo");
  const canvas = $("colours");
  for (const one of [base, canvas]) [one.width, one.height] = [photo.width, photo.height];
  base.getContext("2d").drawImage(photo.canvas, 0, 0);
  result.range ??= meaning.task === "depth" ? depthRange(result.depth, meaning.relative) : null;
  canvas.getContext("2d").putImageData(picture(meaning, result), 0, 0);
  fillClasses(meaning, result);
  fillScale(meaning, result);
  fillDownloads(meaning, result);
  $("result").hidden = false;
  $("result").dataset.head = shown;
  read();
}

function picture(meaning, result) {
  if (meaning.task === "segmentation") return labelColours(photo, result.labels, meaning.palette);
  if (meaning.task === "regression") {
    return valueColours(photo, result.values, meaning.channels.length, meaning.unit_vectors);
  }
  if (!result.range) return new ImageData(photo.width, photo.height);
  return depthColours(photo, result.depth, result.range, meaning.relative);
}

function fillClasses(meaning, result) {
  $("classes").replaceChildren();
  $("classes").hidden = meaning.task !== "segmentation";
  if (meaning.task !== "segmentation") return;
  const counts = countLabels(result.labels, meaning.classes.length);
  const order = [...counts.keys()].filter((label) => counts[label]).sort((a, b) => counts[b] - counts[a]);
  for (const label of order) {
    const item = document.createElement("li");
    const swatch = Object.assign(document.createElement("i"), { className: "swatch" });
    swatch.style.background = `rgb(${meaning.palette[label].join(" ")})`;
    const share = Object.assign(document.createElement("b"), {
      textContent: percentText(counts[label] / result.labels.length),
    });
    item.append(swatch, Object.assign(document.createElement("span"), { textContent: meaning.classes[label] }), share);
    $("classes").append(item);
  }
}

function fillScale(meaning, result) {
  $("scale").hidden = meaning.task !== "depth" || !result.range;
  if ($("scale").hidden) return;
  const { low, high } = result.range;
  const ends = meaning.relative ? [high, low] : [low, high]; // near, far
  const ticks = [0, 0.25, 0.5, 0.75, 1].map((share) => ends[0] + share * (ends[1] - ends[0]));
  $("ticks").replaceChildren(
    ...ticks.map((value) => Object.assign(document.createElement("span"), { textContent: withUnit(value, meaning) })),
  );
}

function fillDownloads(meaning, result) {
  const sources = { photo, colours: $("colours"), opacity: $("opacity").value / 100 };
  $("downloads").replaceChildren(
    ...downloads(meaning, result).map(({ title, suffix, encode }) => {
      const button = Object.assign(document.createElement("button"), { type: "button", textContent: title });
      button.className = "button plain";
      button.addEventListener("click", async () => {
        sources.opacity = $("opacity").value / 100;
        save(await encode(sources), `${photo.name}.${shown}.${suffix}`);
      });
      return button;
    }),
  );
}

function movePoint(event) {
  const box = $("stage").getBoundingClientRect();
  const place = (share, size) => Math.min(size - 1, Math.max(0, Math.floor(share * size)));
  point = {
    x: place((event.clientX - box.left) / box.width, photo.width),
    y: place((event.clientY - box.top) / box.height, photo.height),
  };
  read();
}

function stepPoint(event) {
  const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  const step = steps[event.key];
  if (!step) return;
  event.preventDefault();
  point ??= { x: photo.width >> 1, y: photo.height >> 1 };
  const length = event.shiftKey ? 1 : Math.max(1, Math.round(photo.width / 50));
  point.x = Math.min(photo.width - 1, Math.max(0, point.x + length * step[0]));
  point.y = Math.min(photo.height - 1, Math.max(0, point.y + length * step[1]));
  read();
}

/** Say what is at the point. */
function read() {
  $("point").hidden = !point;
  if (!point) {
    $("reading").textContent = "Tap the picture to read what is there.";
    return;
  }
  $("point").style.left = `${(100 * (point.x + 0.5)) / photo.width}%`;
  $("point").style.top = `${(100 * (point.y + 0.5)) / photo.height}%`;
  const at = point.y * photo.width + point.x;
  const [meaning, result] = [about.metadata.heads[shown], results[shown]];
  $("reading").textContent = `${valueText(meaning, result, at)} at ${point.x}, ${point.y}`;
}

function valueText(meaning, result, at) {
  if (meaning.task === "segmentation") {
    const name = meaning.classes[result.labels[at]] ?? "ignored";
    return result.scores ? `${name} (${percentText(result.scores[at])})` : name;
  }
  if (meaning.task === "depth") return withUnit(result.depth[at], meaning);
  const size = photo.width * photo.height;
  return meaning.channels.map((name, i) => `${name} ${withUnit(result.values[i * size + at], meaning)}`).join(", ");
}

function withUnit(value, meaning) {
  return meaning.unit ? `${numberText(value)} ${meaning.unit}` : numberText(value);
}

function setOpacity() {
  $("colours").style.opacity = $("opacity").value / 100;
  $("opacity-value").textContent = `${$("opacity").value} %`;
}

function working(text, share) {
  $("working").hidden = false;
  if ($("status").textContent !== text) $("status").textContent = text; // said once to those who listen
  if (share === null) $("progress").removeAttribute("value");
  else $("progress").value = share;
}

function fail(error) {
  $("working").hidden = true;
  $("problem").textContent = error.message;
  $("problem").hidden = false;
}

function stem(name) {
  return (name || "photo").replace(/\.[^.]*$/, "") || "photo";
}
