/**
 * <trivium-families>: one row of symbols read by convolution, recurrence and attention.
 *
 * Data: symbols (V letters), tokens [T], embedding [V, D]; for each of L layers and in arrays of
 * their own kernel [L, K, D, D] and bias [L, D] (convolution), w_ih, w_hh [L, D, D] and b [L, D]
 * (recurrence), w_q, w_k, w_v [L, D, D] (attention); text.
 * `element.forward(tokens)` gives the states of each family, `element.reads(family, layers, t)` what
 * an output depends on, `element.ready(family, layers, t)` when a cell can be computed.
 */

import { Widget, button, choice, drawn, fill, list, node, picture, unpack } from "./trivium.js";

const FAMILIES = ["convolution", "recurrence", "attention"];
const MODES = ["reads", "changes", "waits"];

/** A change this many powers of ten below the edit itself is drawn empty. */
const DECADES = 4;

export class FamiliesWidget extends Widget {
  static text = {
    name: "One row of symbols, read in three ways",
    mode: "What to look at",
    reads: "Reads",
    changes: "Changes",
    waits: "Waits",
    layers: "Layers",
    layer_count: "{count} layers",
    output: "Output",
    input: "Input",
    step: "Step",
    at: "{place} of {count}",
    next: "Next symbol",
    convolution: "Convolution, three places wide",
    recurrence: "Recurrence, left to right",
    attention: "Attention, all with all",
    reads_note: "reads {count} of {total} inputs; steps to the farthest: {path}",
    changes_note: "{count} of {total} outputs changed",
    waits_note: "{done} of {total} cells after step {step}; all after {steps}",
    key_reads: "Above the outputs, below the inputs. Filled: what the framed output depends on.",
    key_changes: "The fuller a cell, the more it moved when the framed input became another symbol.",
    key_waits: "Filled: what can be computed by this step, if all that is ready is done at once.",
    picture: "{family}: {note}",
    status_reads:
      "Output {place}: convolution reads {convolution}, recurrence {recurrence}, attention " +
      "{attention} of {total} inputs.",
    status_changes:
      "Input {place} became {symbol}: convolution changed {convolution}, recurrence {recurrence}, " +
      "attention {attention} of {total} outputs.",
    status_waits:
      "Done after step {step}: convolution {convolution}, recurrence {recurrence}, attention " +
      "{attention} of {total} cells.",
  };

  static style = `
    .frame { --family: var(--ink); }
    .layout { display: grid; gap: 10px; grid-template-columns: minmax(0, 1fr); }
    .top { justify-content: space-between; }
    .top .bar { gap: 8px; }
    .place { display: grid; grid-template-columns: 4.2em minmax(0, 1fr) 5em; gap: 8px;
      align-items: center; }
    .place output { text-align: right; font-variant-numeric: tabular-nums; }
    .edit { min-height: 34px; } .edit[hidden] { display: block; visibility: hidden; }
    .panel h3 { color: var(--own); }
    .panel .note { min-height: 1.4em; font-variant-numeric: tabular-nums; }
    .convolution { --own: var(--convolution); } .recurrence { --own: var(--recurrence); }
    .attention { --own: var(--attention); }
    .cells { position: relative; }
    .cells canvas { width: 100%; height: 112px; box-shadow: 0 0 0 1px var(--grid); cursor: pointer;
      touch-action: pan-y; }
    svg { position: absolute; inset: 0; width: 100%; height: 100%; pointer-events: none;
      overflow: visible; }
    .mesh { stroke: var(--grid); fill: none; vector-effect: non-scaling-stroke; }
    .edge { stroke: var(--own); fill: none; stroke-opacity: 0.55;
      vector-effect: non-scaling-stroke; }
    .attention .edge { stroke-width: 0.5; stroke-opacity: 0.35; }
    .frameit { stroke: var(--ink); fill: none; stroke-width: 2.5;
      vector-effect: non-scaling-stroke; }
    .letters { display: grid; grid-auto-flow: column; grid-auto-columns: minmax(0, 1fr);
      text-align: center; line-height: 1.3; }
    .letters .on { font-weight: 700; text-decoration: underline; }
    .key { min-height: 3.3em; } [role="status"] { min-height: 2.8em; }
    @container (min-width: 580px) {
      .key { min-height: 1.4em; } [role="status"] { min-height: 2.8em; }
    }
  `;

  load(data) {
    this.symbols = data.symbols;
    this.start = list(data.tokens, "tokens");
    const T = this.start.length;
    const { shape } = unpack(data.embedding, "embedding", [this.symbols.length, null]);
    const D = shape[1];
    const kernel = unpack(data.kernel, "kernel", [null, null, D, D]);
    const [L, K] = kernel.shape;
    if (K % 2 === 0) throw new Error(`kernel: expected an odd width, got ${K}`);
    Object.assign(this, { T, D, L, K });
    const weights = { embedding: data.embedding, kernel: data.kernel };
    this.weights = Object.fromEntries(
      Object.entries(weights).map(([name, packed]) => [name, unpack(packed, name).values]),
    );
    for (const name of ["w_ih", "w_hh", "w_q", "w_k", "w_v"]) {
      this.weights[name] = unpack(data[name], name, [L, D, D]).values;
    }
    for (const name of ["bias", "b"]) this.weights[name] = unpack(data[name], name, [L, D]).values;
    this.tokens = [...this.start];
    this.mode = "reads";
    this.layers = Math.min(2, L);
    this.places = { reads: Math.floor(T / 2), changes: Math.floor(T / 3), waits: 0 };
    this.before = this.after = this.forward(this.tokens);
  }

  /**
   * The states of every family, layer by layer: [L + 1, T, D] each, the embedding first.
   *
   * @param {ArrayLike<number>} tokens T numbers of symbols
   * @returns {Record<string, Float64Array>}
   */
  forward(tokens) {
    const { T, D, L, weights } = this;
    const states = {};
    for (const family of FAMILIES) {
      const h = new Float64Array((L + 1) * T * D);
      for (let t = 0; t < T; t++) {
        for (let d = 0; d < D; d++) h[t * D + d] = weights.embedding[tokens[t] * D + d];
      }
      for (let layer = 0; layer < L; layer++) this[family](h, layer);
      states[family] = h;
    }
    return states;
  }

  /** Adds the row vector at `from`, times a matrix [D, D] of `name` at `at`, to `sums`. */
  multiply(sums, h, from, name, at) {
    const { D } = this;
    const matrix = this.weights[name];
    for (let i = 0; i < D; i++) {
      for (let j = 0; j < D; j++) sums[j] += h[from + i] * matrix[(at * D + i) * D + j];
    }
  }

  /** One layer: tanh of K neighboring places, each with a matrix of its own. */
  convolution(h, layer) {
    const { T, D, K, weights } = this;
    for (let t = 0; t < T; t++) {
      const sums = Float64Array.from(weights.bias.slice(layer * D, (layer + 1) * D));
      for (let k = 0; k < K; k++) {
        const s = t + k - (K - 1) / 2;
        if (s >= 0 && s < T) this.multiply(sums, h, (layer * T + s) * D, "kernel", layer * K + k);
      }
      for (let d = 0; d < D; d++) h[((layer + 1) * T + t) * D + d] = Math.tanh(sums[d]);
    }
  }

  /** One layer: tanh of the place below and of the state to the left. */
  recurrence(h, layer) {
    const { T, D, weights } = this;
    for (let t = 0; t < T; t++) {
      const sums = Float64Array.from(weights.b.slice(layer * D, (layer + 1) * D));
      this.multiply(sums, h, (layer * T + t) * D, "w_ih", layer);
      if (t > 0) this.multiply(sums, h, ((layer + 1) * T + t - 1) * D, "w_hh", layer);
      for (let d = 0; d < D; d++) h[((layer + 1) * T + t) * D + d] = Math.tanh(sums[d]);
    }
  }

  /** One layer: the place below plus a mean of all values, weighted by how keys fit the query. */
  attention(h, layer) {
    const { T, D } = this;
    const rows = (name) =>
      Array.from({ length: T }, (_, t) => {
        const sums = new Float64Array(D);
        this.multiply(sums, h, (layer * T + t) * D, name, layer);
        return sums;
      });
    const [queries, keys, values] = ["w_q", "w_k", "w_v"].map(rows);
    for (let t = 0; t < T; t++) {
      const scores = keys.map((key) => key.reduce((a, b, d) => a + b * queries[t][d], 0));
      const top = Math.max(...scores);
      const shares = scores.map((score) => Math.exp((score - top) / Math.sqrt(D)));
      const sum = shares.reduce((a, b) => a + b, 0);
      for (let d = 0; d < D; d++) {
        const mean = values.reduce((a, value, s) => a + (shares[s] / sum) * value[d], 0);
        h[((layer + 1) * T + t) * D + d] = h[(layer * T + t) * D + d] + mean;
      }
    }
  }

  /** The cells that a cell is computed from directly, as [layer, place]. */
  parents(family, layer, t) {
    const { T, K } = this;
    if (layer === 0) return [];
    const below = Array.from({ length: T }, (_, s) => [layer - 1, s]);
    if (family === "attention") return below;
    if (family === "convolution") return below.filter(([, s]) => Math.abs(s - t) <= (K - 1) / 2);
    return t > 0 ? [below[t], [layer, t - 1]] : [below[t]];
  }

  /**
   * What output t of the last of some layers depends on.
   *
   * @returns {number[]} for each cell [layers + 1, T] the steps from it to the output, -1 for none
   */
  reads(family, layers, t) {
    const { T } = this;
    const steps = new Array((layers + 1) * T).fill(-1);
    steps[layers * T + t] = 0;
    const waiting = [[layers, t]];
    for (const [layer, place] of waiting) {
      for (const [l, s] of this.parents(family, layer, place)) {
        if (steps[l * T + s] >= 0) continue;
        steps[l * T + s] = steps[layer * T + place] + 1;
        waiting.push([l, s]);
      }
    }
    return steps;
  }

  /** The step after which a cell is known, where all that is ready is computed at once. */
  ready(family, layer, t) {
    if (layer === 0) return 0;
    return family === "recurrence" ? layer + t : layer;
  }

  /** How far each cell [layers + 1, T] moved by the edit. */
  moved(family) {
    const { T, D, layers } = this;
    return Array.from({ length: (layers + 1) * T }, (_, cell) => {
      let sum = 0;
      for (let i = cell * D; i < (cell + 1) * D; i++) {
        sum += (this.after[family][i] - this.before[family][i]) ** 2;
      }
      return Math.sqrt(sum);
    });
  }

  build() {
    const { text } = this;
    const modes = choice(
      text.mode,
      MODES.map((mode) => ({ label: text[mode] })),
      (i) => {
        this.mode = MODES[i];
        if (this.mode === "changes") this.edit();
        this.update();
      },
    );
    const depths = Array.from({ length: this.L }, (_, i) => i + 1);
    const layers = choice(
      text.layers,
      depths.map((count) => ({
        label: fill(text.layer_count, { count }),
        show: String(count),
      })),
      (i) => {
        this.layers = i + 1;
        this.update();
      },
      { chosen: this.layers - 1 },
    );
    this.caption = node("span");
    this.slider = node("input", {
      type: "range",
      min: 1,
      oninput: () => this.go(this.slider.value - 1),
    });
    this.output = node("output", { "aria-hidden": "true" });
    const next = () => {
      this.edit();
      this.update();
    };
    this.button = button(text.next, next, { class: "edit" });
    this.key = node("p", { class: "note key" });
    this.status = node("p", { role: "status" });
    this.panels = FAMILIES.map((family) => {
      const canvas = node("canvas", {
        role: "img",
        onpointerdown: (event) => this.point(event, canvas),
      });
      const lines = drawn("svg", { preserveAspectRatio: "none", "aria-hidden": "true" });
      const note = node("p", { class: "note" });
      const letters = node(
        "div",
        { class: "letters", "aria-hidden": "true" },
        ...this.tokens.map(() => node("span")),
      );
      const panel = node(
        "div",
        { class: `panel ${family}` },
        node("h3", {}, text[family]),
        note,
        node("div", { class: "cells" }, canvas, lines),
        letters,
      );
      return { family, panel, canvas, lines, note, letters };
    });
    return [
      node(
        "div",
        { class: "layout" },
        node(
          "div",
          { class: "bar top" },
          modes,
          node("div", { class: "bar" }, node("span", { "aria-hidden": "true" }, text.layers), layers),
        ),
        node("div", { class: "place" }, this.caption, this.slider, this.output),
        node("div", { class: "bar" }, this.button),
        this.key,
        ...this.panels.map(({ panel }) => panel),
        this.status,
      ),
    ];
  }

  /** The chosen input becomes the next symbol, in the row as it was at first. */
  edit() {
    const place = this.places.changes;
    const now = this.tokens[place];
    this.tokens = [...this.start];
    this.tokens[place] = (now + 1) % this.symbols.length;
    if (this.tokens[place] === this.start[place]) {
      this.tokens[place] = (now + 2) % this.symbols.length;
    }
    this.after = this.forward(this.tokens);
  }

  go(place) {
    this.places[this.mode] = place;
    if (this.mode === "changes") {
      this.tokens = [...this.start];
      this.edit();
    }
    this.update();
  }

  point(event, canvas) {
    if (this.mode === "waits") return;
    const box = canvas.getBoundingClientRect();
    const place = Math.floor(((event.clientX - box.left) / box.width) * this.T);
    this.go(Math.max(0, Math.min(this.T - 1, place)));
  }

  paint() {
    this.update();
  }

  /** Between 0 and 1 for each cell [layers + 1, T], the words below the name, and the count. */
  view(family) {
    const { T, layers, mode, text } = this;
    const place = this.places[mode];
    const outputs = (cells) => cells.slice(layers * T);
    if (mode === "reads") {
      const steps = this.reads(family, layers, place);
      const inputs = steps.slice(0, T).filter((step) => step >= 0);
      const words = { count: inputs.length, total: T, path: Math.max(...inputs) };
      const values = steps.map((step) => (step >= 0 ? 0.45 : 0));
      return { values, note: fill(text.reads_note, words), count: inputs.length };
    }
    if (mode === "changes") {
      const moved = this.moved(family);
      const top = moved[place];
      const values = moved.map((size) =>
        size > 0 ? Math.max(0.02, Math.min(1, 1 + Math.log10(size / top) / DECADES)) : 0,
      );
      const count = outputs(moved).filter((size) => size > 0).length;
      return { values, note: fill(text.changes_note, { count, total: T }), count };
    }
    const step = place + 1;
    const when = Array.from({ length: (layers + 1) * T }, (_, i) =>
      this.ready(family, Math.floor(i / T), i % T),
    );
    const computed = when.slice(T);
    const count = computed.filter((at) => at <= step).length;
    const words = { done: count, total: computed.length, step, steps: Math.max(...computed) };
    const values = when.map((at) => (at > step ? 0 : at === step ? 0.9 : 0.35));
    return { values, note: fill(text.waits_note, words), count };
  }

  update() {
    if (!this.colors) return;
    const { T, layers, mode, text, colors } = this;
    const names = { reads: "output", changes: "input", waits: "step" };
    const most = mode === "waits" ? layers + T - 1 : T;
    this.places.waits = Math.min(this.places.waits, layers + T - 2);
    const place = this.places[mode];
    const at = fill(text.at, { place: place + 1, count: most });
    this.caption.textContent = text[names[mode]];
    this.slider.setAttribute("aria-label", text[names[mode]]);
    this.slider.setAttribute("aria-valuetext", at);
    this.slider.max = most;
    this.slider.value = place + 1;
    this.output.textContent = at;
    this.button.hidden = mode !== "changes";
    this.key.textContent = text[`key_${mode}`];
    const rows = layers + 1;
    const tokens = mode === "changes" ? this.tokens : this.start;
    const counts = {};
    for (const { family, canvas, lines, note, letters } of this.panels) {
      const shown = this.view(family);
      counts[family] = shown.count;
      note.textContent = shown.note;
      canvas.setAttribute(
        "aria-label",
        fill(text.picture, { family: text[family], note: shown.note }),
      );
      // The inputs stand below, so the rows are turned upside down.
      const values = Float32Array.from({ length: rows * T }, (_, i) => {
        return shown.values[(rows - 1 - Math.floor(i / T)) * T + (i % T)];
      });
      picture(canvas, values, rows, T, { high: colors[family], paper: colors.paper });
      this.draw(family, lines, place);
      tokens.forEach((token, t) => {
        letters.children[t].textContent = this.symbols[token];
        letters.children[t].className = mode === "changes" && t === place ? "on" : "";
      });
    }
    const words = { place: place + 1, step: place + 1, symbol: this.symbols[tokens[place]] };
    const total = mode === "waits" ? layers * T : T;
    this.status.textContent = fill(text[`status_${mode}`], { ...words, ...counts, total });
  }

  /** The grid, the edges that lead to the chosen output, and the frame around what is chosen. */
  draw(family, lines, place) {
    const { T, layers, mode } = this;
    const rows = layers + 1;
    lines.setAttribute("viewBox", `0 0 ${T} ${rows}`);
    const across = Array.from({ length: T - 1 }, (_, t) => `M${t + 1} 0V${rows}`);
    const down = Array.from({ length: rows - 1 }, (_, row) => `M0 ${row + 1}H${T}`);
    const parts = [drawn("path", { class: "mesh", d: [...across, ...down].join("") })];
    if (mode === "reads") {
      const steps = this.reads(family, layers, place);
      const center = ([layer, t]) => `${t + 0.5} ${rows - 0.5 - layer}`;
      const edges = [];
      steps.forEach((step, cell) => {
        const to = [Math.floor(cell / T), cell % T];
        if (step < 0) return;
        for (const from of this.parents(family, ...to)) edges.push(`M${center(from)}L${center(to)}`);
      });
      parts.push(drawn("path", { class: "edge", d: edges.join("") }));
    }
    if (mode !== "waits") {
      const row = mode === "reads" ? 0 : rows - 1;
      parts.push(drawn("path", { class: "frameit", d: `M${place} ${row}h1v1h-1z` }));
    }
    lines.replaceChildren(...parts);
  }
}

customElements.define("trivium-families", FamiliesWidget);
