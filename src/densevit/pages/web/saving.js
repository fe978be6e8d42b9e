// Results as files, with the names and contents of those that `densevit predict` writes.

import { encodePng } from "./png.js";

/** What can be saved of a result: its title, the end of the file's name, and a function that makes the file. */
export function downloads(meaning, result) {
  const overlay = { title: "Picture (PNG)", suffix: "overlay.png", encode: overlaid };
  if (meaning.task === "segmentation") {
    const palette = meaning.palette.length <= 256 ? meaning.palette : null;
    const encode = ({ photo }) => encodePng(photo, result.labels, palette);
    return [{ title: "Labels (PNG)", suffix: "labels.png", encode }, overlay];
  }
  if (meaning.task === "regression") {
    const encode = ({ photo }) => encodeNpy([meaning.channels.length, photo.height, photo.width], result.values);
    return [{ title: "Values (NPY)", suffix: "npy", encode }, overlay];
  }
  if (meaning.relative || !meaning.unit) {
    const encode = ({ photo }) => encodePng(photo, overRange(result.depth), null);
    const [title, name] = meaning.relative ? ["Disparity", "disparity"] : ["Relative depth", "relative_depth"];
    return [{ title: `${title} (PNG, 16 bits)`, suffix: `${name}.png`, encode }, overlay];
  }
  const encode = ({ photo }) => encodePng(photo, millimetres(result.depth), null);
  return [{ title: "Depth (PNG, millimetres)", suffix: "mm.png", encode }, overlay];
}

export function save(blob, name) {
  const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

function overlaid({ photo, colours, opacity }) {
  const canvas = Object.assign(document.createElement("canvas"), { width: photo.width, height: photo.height });
  const context = canvas.getContext("2d");
  context.drawImage(photo.canvas, 0, 0);
  context.globalAlpha = opacity;
  context.drawImage(colours, 0, 0);
  return new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
}

/** Whole millimetres, up to 65,535; 0 where there is no value. */
function millimetres(depth) {
  return Uint16Array.from(depth, (value) => (Number.isFinite(value) ? even(Math.min(65.535, Math.max(0, value)) * 1000) : 0));
}

/** Values over their range: 0 to 65,535. */
function overRange(values) {
  const finite = values.filter(Number.isFinite);
  const low = finite.reduce((a, b) => Math.min(a, b), Infinity);
  const high = finite.reduce((a, b) => Math.max(a, b), -Infinity);
  return Uint16Array.from(values, (value) => (Number.isFinite(value) ? even(((value - low) / Math.max(high - low, 1e-12)) * 65535) : 0));
}

/** Rounded, halves to the even number, as numpy does. */
function even(value) {
  const rounded = Math.round(value);
  return rounded - value === 0.5 && rounded % 2 ? rounded - 1 : rounded;
}

/** NumPy's file of one float32 array. */
function encodeNpy(shape, values) {
  const text = `{'descr': '<f4', 'fortran_order': False, 'shape': (${shape.join(", ")}), }`;
  const padded = text + " ".repeat(63 - ((10 + text.length) % 64)) + "\n";
  const start = new Uint8Array([0x93, ...[..."NUMPY"].map((letter) => letter.charCodeAt(0)), 1, 0, padded.length & 255, padded.length >> 8]);
  return new Blob([start, padded, values], { type: "application/octet-stream" });
}
