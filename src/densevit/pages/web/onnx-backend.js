// The back end that runs the model in this browser, in a worker, so that the page stays responsive.

const FORMAT = 1; // of model.json
const ENGINES = ["webgpu", "wasm"];

export class OnnxBackend {
  /** @param {string | null} engine "webgpu" or "wasm"; by default the first one that gives the right answer. */
  constructor(engine = new URLSearchParams(location.search).get("engine")) {
    this.engines = ENGINES.includes(engine) ? [engine] : ENGINES;
    this.onprogress = () => {};
    this.worker = null;
    this.about = null;
    this.notes = []; // why an engine was left
    this.last = Promise.resolve(); // the worker does one thing at a time
  }

  async open() {
    const response = await fetch("model.json");
    if (!response.ok) throw new Error(`model.json cannot be loaded (${response.status}); copy the whole folder again`);
    const about = await response.json();
    if (about.format !== FORMAT) throw new Error("model.json is of another version than this page; copy the whole folder again");
    this.about = about;
    return about;
  }

  predict(photo, head) {
    const answer = this.last.then(() => this.#predict(photo, head));
    this.last = answer.catch(() => {});
    return answer;
  }

  async #predict(photo, head) {
    for (;;) {
      const engine = this.engines[0];
      try {
        const graph = this.about.graphs.find((one) => one.heads.includes(head));
        const { width, height, pixels } = photo;
        const answer = await this.#ask({ graph, photo: { width, height, pixels }, about: this.about, engine });
        const results = Object.fromEntries(graph.heads.map((name) => [name, this.#result(name, answer.outputs)]));
        return { results, seconds: answer.seconds, engine: answer.engine, memory: answer.memory, notes: this.notes };
      } catch (error) {
        this.#stop();
        if (this.engines.length === 1) throw error;
        this.engines = this.engines.slice(1);
        this.notes.push(`${engine} is not used: ${error.message}`);
      }
    }
  }

  #result(head, outputs) {
    const task = this.about.metadata.heads[head].task;
    if (task === "segmentation") return { labels: outputs[head], scores: outputs[`${head}.scores`] ?? null };
    return task === "depth" ? { depth: outputs[head] } : { values: outputs[head] };
  }

  #ask(message) {
    this.worker ??= new Worker("onnx-worker.js", { type: "module" });
    return new Promise((resolve, reject) => {
      this.worker.onmessage = ({ data }) => {
        if (data.progress) this.onprogress(...data.progress);
        else if (data.error) reject(new Error(data.error));
        else resolve(data.answer);
      };
      this.worker.onerror = (event) => reject(new Error(event.message || "the worker could not be started"));
      this.worker.postMessage(message);
    });
  }

  #stop() {
    this.worker?.terminate();
    this.worker = null;
  }
}
