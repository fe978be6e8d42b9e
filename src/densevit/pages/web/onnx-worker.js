// Runs the graphs of the folder with onnxruntime-web. One message at a time; see OnnxBackend.

// The memory of WebAssembly, which onnxruntime-web keeps to itself, is noted to report its size.
const memories = [];
WebAssembly.Memory = class extends WebAssembly.Memory {
  constructor(descriptor) {
    super(descriptor);
    memories.push(this);
  }
};

const RUNTIMES = { wasm: "./runtime/ort.wasm.bundle.min.mjs", webgpu: "./runtime/ort.webgpu.bundle.min.mjs" };
const LEAST_EQUAL = 0.999; // share of labels
const LARGEST_DIFFERENCE = 1e-3; // of other values, over their range

let runtime = null; // promise of the module
let weights = null; // promise of the bytes
let loaded = null; // {file, session}: one graph at a time, since each takes hundreds of megabytes

self.onmessage = async ({ data }) => {
  try {
    const { answer, buffers } = await predict(data);
    self.postMessage({ answer }, buffers);
  } catch (error) {
    self.postMessage({ error: explained(error) });
  }
};

async function predict({ graph, photo, about, engine }) {
  if (engine === "webgpu") await requireGpu();
  const ort = await (runtime ??= start(engine));
  const session = await open(ort, graph, about, engine);
  progress("Computing …", null);
  const began = performance.now();
  const outputs = await run(ort, session, photo);
  const seconds = (performance.now() - began) / 1000;
  const threads = ort.env.wasm.numThreads;
  const name = engine === "webgpu" ? "WebGPU" : `WebAssembly, ${threads} thread${threads === 1 ? "" : "s"}`;
  const answer = { outputs, seconds, engine: name, memory: memory() };
  return { answer, buffers: Object.values(outputs).map((output) => output.buffer) };
}

async function requireGpu() {
  const adapter = await self.navigator.gpu?.requestAdapter();
  if (!adapter) throw new Error("this browser does not offer it");
}

async function start(engine) {
  const ort = await import(RUNTIMES[engine]);
  // Threads share memory, which browsers only allow to pages that their server isolates from others.
  ort.env.wasm.numThreads = self.crossOriginIsolated ? Math.min(4, navigator.hardwareConcurrency || 1) : 1;
  ort.env.logLevel = "error";
  return ort;
}

async function open(ort, graph, about, engine) {
  if (loaded?.file === graph.file) return loaded.session;
  await loaded?.session.release();
  loaded = null;
  const model = await download(graph.file, about);
  const data = await (weights ??= download(about.weights, about, true));
  progress("Preparing the model …", null);
  const session = await ort.InferenceSession.create(model, {
    executionProviders: [engine],
    externalData: [{ path: about.weights, data }],
    enableMemPattern: false, // sizes differ from photo to photo
    logSeverityLevel: 3,
    // Weights stay int8 in memory, and are dequantised for each product in float32; on a graphics processor, which may
    // get int8 wrong, they are dequantised once, before it sees them.
    extra: { session: { disable_quant_qdq: engine === "webgpu" ? "1" : "0", qdq_matmulnbits_accuracy_level: "1" } },
  });
  if (engine === "webgpu") await prove(ort, session, graph, about);
  loaded = { file: graph.file, session };
  return session;
}

/** Compare the answer for a small photo with the one that the folder holds. */
async function prove(ort, session, graph, about) {
  progress("Checking the graphics processor …", null);
  const stored = await download(about.proof.file, about);
  const part = ({ type, offset, length }) => new globalThis[type](stored.buffer, offset, length);
  const { width, height } = about.proof;
  const outputs = await run(ort, session, { width, height, pixels: part(about.proof.photo) });
  for (const head of graph.heads) {
    const expected = part(about.proof.outputs[head]);
    const difference = about.metadata.heads[head].task === "segmentation" ? unequal : furthest;
    const limit = difference === unequal ? 1 - LEAST_EQUAL : LARGEST_DIFFERENCE;
    const found = difference(outputs[head], expected);
    if (!(found <= limit)) throw new Error(`its answer for ${head} differs by ${found.toPrecision(2)}`);
  }
}

function unequal(actual, expected) {
  let count = actual.length === expected.length ? 0 : expected.length;
  for (let i = 0; i < expected.length; i++) count += actual[i] !== expected[i];
  return count / expected.length;
}

function furthest(actual, expected) {
  let low = Infinity, high = -Infinity, largest = 0;
  for (let i = 0; i < expected.length; i++) {
    low = Math.min(low, expected[i]);
    high = Math.max(high, expected[i]);
    largest = Math.max(largest, Math.abs(actual[i] - expected[i])); // NaN stays NaN
  }
  return largest / Math.max(high - low, 1e-12);
}

/** Run a photo; the outputs by name, as typed arrays of their own. */
async function run(ort, session, { width, height, pixels }) {
  const image = new ort.Tensor("uint8", pixels, [1, height, width, 3]);
  const outputs = await session.run({ image });
  const arrays = {};
  for (const [name, tensor] of Object.entries(outputs)) {
    arrays[name] = (await tensor.getData()).slice();
    tensor.dispose();
  }
  return arrays;
}

/** The bytes of a file of the folder, checked against what the folder says about it. */
async function download(file, about, shown = false) {
  const { bytes: size, sha256 } = about.files[file];
  const response = await fetch(file);
  if (!response.ok) throw new Error(`${file} cannot be loaded (${response.status}); copy the whole folder again`);
  const bytes = new Uint8Array(size);
  let at = 0;
  for (const reader = response.body.getReader(); ; ) {
    const { done, value } = await reader.read();
    if (done) break;
    if (at + value.length <= size) bytes.set(value, at);
    at += value.length;
    if (shown) progress(`Loading the model (${(size / 1e6).toFixed(0)} MB) …`, at / size);
  }
  const digest = self.crypto.subtle && (await self.crypto.subtle.digest("SHA-256", bytes)); // only where it is secure
  const found = digest && [...new Uint8Array(digest)].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  if (at !== size || (found && found !== sha256)) {
    throw new Error(`${file} is damaged or of another version; reload the page, or copy the whole folder again`);
  }
  return bytes;
}

/** Bytes of WebAssembly's memory; the weights that `download` has read are kept besides. */
function memory() {
  return Math.max(0, ...memories.map((one) => one.buffer.byteLength));
}

function progress(text, share) {
  self.postMessage({ progress: [text, share] });
}

function explained(error) {
  const text = String(error?.message ?? error);
  if (/bad_alloc|out of memory|allocation failed|Array buffer allocation/i.test(text)) {
    return "this device has too little memory for the model; close other pages, or use another device";
  }
  return text;
}
