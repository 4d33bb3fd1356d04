/**
 * <trivium-depth>: a random stack of layers, and how signal and gradient fare in it.
 *
 * Data: seed (a whole number), depth (layers at the start), text. Everything else is computed here,
 * from a small deterministic generator: z_l = [z_(l-1) +] phi(norm(z_(l-1))) W_l sigma / sqrt(n).
 * `element.forward(settings)` is the whole of it: sizes, cosines and histograms of every layer.
 */

import { Widget, button, choice, drawn, fill, node, picture } from "./trivium.js";

const UNITS = 64;
const INPUTS = 48;
const DEEPEST = 50;

/** Histograms: powers of ten from LOW to HIGH, in so many rows a power. */
const LOW = -10;
const HIGH = 6;
const ROWS = 4;

/** The weight scale's slider goes in hundredths of a power of two. */
const STEPS = 100;

const ACTIVATIONS = ["relu", "tanh", "linear"];
const NAMED = { glorot: 1, he: Math.SQRT2 };

/** Left margin of the pictures, and the height of each, in pixels. */
const LEFT = 34;
const TALL = 184;
const LINE = 76;

/** Uniform numbers in [0, 1): mulberry32. */
function uniform(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

/** Normal numbers, two from every two uniform ones: Box and Muller. */
function normal(seed, count) {
  const next = uniform(seed);
  const values = new Float64Array(count);
  for (let i = 0; i < count; i += 2) {
    const radius = Math.sqrt(-2 * Math.log(1 - next()));
    const angle = 2 * Math.PI * next();
    values[i] = radius * Math.cos(angle);
    if (i + 1 < count) values[i + 1] = radius * Math.sin(angle);
  }
  return values;
}

function size(values) {
  let sum = 0;
  for (const value of values) sum += value * value;
  return Math.sqrt(sum / values.length);
}

export class DepthWidget extends Widget {
  static text = {
    name: "Signal and gradient in a random stack of layers",
    depth: "Layers",
    layers: "{depth} layers",
    sigma: "Weight scale σ",
    scale: "σ = {sigma}",
    glorot: "Glorot",
    he: "He",
    activation: "Activation",
    relu: "ReLU",
    tanh: "tanh",
    linear: "none",
    norm: "Layer norm",
    path: "Path",
    off: "off",
    on: "on",
    plain: "plain",
    residual: "residual",
    again: "New weights",
    first: "layer {layer}",
    signal: "Signal, from layer 0 on",
    gradient: "Gradient, from the last layer back",
    alike: "How alike two inputs become (cosine)",
    picture: "Histogram of each layer: powers of ten of the absolute values, with the root mean square",
    line: "Mean cosine of two inputs at each layer",
    said_signal: "Signal: {value} times its first size at the end. {verdict}",
    said_gradient: "Gradient: {value} times its size back at layer 0. {verdict}",
    said_alike: "Two inputs: cosine {value} at the end. {verdict}",
    vanishes: "It vanishes.",
    shrinks: "It shrinks.",
    alive: "It lives.",
    grows: "It grows.",
    explodes: "It explodes.",
    apart: "They can be told apart.",
    close: "They are hard to tell apart.",
    same: "They look the same.",
  };

  static style = `
    .frame { --family: var(--ink); }
    .layout { display: grid; gap: 10px 18px; grid-template-columns: minmax(0, 1fr); }
    .knobs { display: grid; gap: 8px 18px; grid-template-columns: minmax(0, 1fr); align-content: start; }
    .slide { display: grid; grid-template-columns: 1fr auto; gap: 0 8px; align-items: center; }
    .slide label, .slide input { grid-column: 1 / -1; width: 100%; }
    .slide label { grid-column: 1; }
    .slide output { font-variant-numeric: tabular-nums; }
    .pair { display: flex; justify-content: space-between; align-items: center; gap: 8px; }
    .segments span { min-width: 52px; }
    .views { display: grid; gap: 8px; align-content: start; }
    .view { position: relative; margin-left: ${LEFT}px; }
    .view canvas { width: 100%; height: ${TALL}px; box-shadow: 0 0 0 1px var(--grid); }
    .view svg { display: block; position: absolute; left: ${-LEFT}px; top: 0;
      width: calc(100% + ${LEFT}px); height: ${TALL}px; overflow: visible; pointer-events: none; }
    .view.line, .view.line svg { height: ${LINE}px; }
    .view.line { margin-bottom: 18px; }
    svg text { font-size: 12px; fill: var(--muted); }
    svg .axis { stroke: var(--grid); fill: none; }
    svg .rms { stroke: var(--ink); stroke-width: 2; fill: none; }
    svg .halo { stroke: var(--paper); stroke-width: 4; fill: none; }
    [role="status"] { display: grid; gap: 4px; align-content: start; min-height: 128px; }
    @container (min-width: 580px) {
      .layout { grid-template-columns: 246px minmax(0, 1fr); }
      .knobs { grid-row: 1 / 2; }
      .views { grid-row: 1 / 3; grid-column: 2; }
      [role="status"] { min-height: 150px; }
    }
  `;

  load(data) {
    if (!Number.isInteger(data.seed)) throw new Error("seed: expected a whole number");
    if (!(data.depth >= 2 && data.depth <= DEEPEST)) {
      throw new Error(`depth: expected 2 to ${DEEPEST}, got ${data.depth}`);
    }
    this.seed = data.seed;
    this.settings = {
      depth: data.depth,
      sigma: NAMED.he,
      activation: "relu",
      norm: false,
      residual: false,
    };
    this.roll();
  }

  /** Inputs [B, n], the gradient at the end [B, n] and weights [50, n, n]: standard normal numbers. */
  roll() {
    const batch = INPUTS * UNITS;
    const values = normal(this.seed, 2 * batch + DEEPEST * UNITS * UNITS);
    this.inputs = values.subarray(0, batch);
    this.last = values.subarray(batch, 2 * batch);
    this.weights = values.subarray(2 * batch);
  }

  /**
   * Forward and backward through the stack.
   *
   * @param {{depth: number, sigma: number, activation: "relu" | "tanh" | "linear", norm: boolean,
   *     residual: boolean}} settings
   * @returns {{signal: Float64Array[], gradient: Float64Array[], sizes: number[], slopes: number[],
   *     cosines: number[]}} z_l and its gradient [B, n] for l = 0 … depth, their root mean squares,
   *     and the mean cosine of inputs that stand side by side
   */
  forward({ depth, sigma, activation, norm, residual }) {
    const n = UNITS;
    const scale = sigma / Math.sqrt(n);
    const signal = [this.inputs];
    const kept = [];
    for (let l = 0; l < depth; l++) {
      const before = signal[l];
      const after = new Float64Array(before.length);
      const outputs = new Float64Array(before.length);
      const normed = new Float64Array(before.length);
      const spreads = new Float64Array(INPUTS).fill(1);
      for (let b = 0; b < INPUTS; b++) {
        const row = b * n;
        let mean = 0;
        if (norm) {
          let square = 0;
          for (let i = 0; i < n; i++) mean += before[row + i] / n;
          for (let i = 0; i < n; i++) square += (before[row + i] - mean) ** 2 / n;
          spreads[b] = Math.sqrt(square + 1e-10);
        }
        for (let i = 0; i < n; i++) {
          const u = (before[row + i] - mean) / spreads[b];
          normed[row + i] = u;
          outputs[row + i] =
            activation === "relu" ? Math.max(0, u) : activation === "tanh" ? Math.tanh(u) : u;
        }
        if (residual) for (let i = 0; i < n; i++) after[row + i] = before[row + i];
        for (let i = 0; i < n; i++) {
          const value = outputs[row + i] * scale;
          if (value === 0) continue;
          const at = (l * n + i) * n;
          for (let j = 0; j < n; j++) after[row + j] += value * this.weights[at + j];
        }
      }
      signal.push(after);
      kept.push({ normed, outputs, spreads });
    }

    const gradient = [this.last];
    for (let l = depth - 1; l >= 0; l--) {
      const above = gradient[0];
      const below = new Float64Array(above.length);
      const { normed, outputs, spreads } = kept[l];
      for (let b = 0; b < INPUTS; b++) {
        const row = b * n;
        let mean = 0;
        let along = 0;
        for (let i = 0; i < n; i++) {
          const output = outputs[row + i];
          const slope =
            activation === "relu" ? +(output > 0) : activation === "tanh" ? 1 - output * output : 1;
          const at = (l * n + i) * n;
          let sum = 0;
          if (slope) for (let j = 0; j < n; j++) sum += above[row + j] * this.weights[at + j];
          below[row + i] = sum * scale * slope;
          mean += below[row + i] / n;
          along += (below[row + i] * normed[row + i]) / n;
        }
        for (let i = 0; i < n; i++) {
          // Layer norm removes the gradient's mean and its part along the normalized vector.
          if (norm) below[row + i] = (below[row + i] - mean - along * normed[row + i]) / spreads[b];
          if (residual) below[row + i] += above[row + i];
        }
      }
      gradient.unshift(below);
    }

    const cosines = signal.map((values) => {
      const dot = (a, b) => {
        let sum = 0;
        for (let i = 0; i < n; i++) sum += values[a * n + i] * values[b * n + i];
        return sum;
      };
      let sum = 0;
      for (let b = 1; b < INPUTS; b++) {
        sum += dot(b - 1, b) / (Math.sqrt(dot(b - 1, b - 1) * dot(b, b)) || 1);
      }
      return sum / (INPUTS - 1);
    });
    return { signal, gradient, sizes: signal.map(size), slopes: gradient.map(size), cosines };
  }

  build() {
    const { text, settings } = this;
    const set = (changes) => {
      Object.assign(settings, changes);
      this.update();
    };
    const slide = (name, label, options, change) => {
      const input = node("input", {
        type: "range",
        "aria-label": label,
        ...options,
        oninput: () => change(+input.value),
      });
      const output = node("output", { "aria-hidden": "true" });
      this[name] = { input, output };
      return node("div", { class: `slide ${name}` }, node("span", {}, label), output, input);
    };
    const pair = (label, keys, change, chosen) => {
      const options = keys.map((key) => ({ label: text[key] }));
      const group = choice(label, options, change, { chosen });
      return node("div", { class: "pair" }, node("span", {}, label), group);
    };
    const named = Object.entries(NAMED).map(([key, sigma]) =>
      button(text[key], () => set({ sigma }), { class: key }),
    );
    const knobs = node(
      "div",
      { class: "knobs" },
      slide("depth", text.depth, { min: 2, max: DEEPEST, value: settings.depth }, (depth) =>
        set({ depth }),
      ),
      slide("sigma", text.sigma, { min: -2 * STEPS, max: 2 * STEPS }, (at) =>
        set({ sigma: 2 ** (at / STEPS) }),
      ),
      node("div", { class: "bar" }, ...named),
      pair(text.activation, ACTIVATIONS, (i) => set({ activation: ACTIVATIONS[i] }), 0),
      pair(text.norm, ["off", "on"], (i) => set({ norm: i === 1 }), 0),
      pair(text.path, ["plain", "residual"], (i) => set({ residual: i === 1 }), 0),
      node(
        "div",
        { class: "bar" },
        button(
          text.again,
          () => {
            this.seed += 1;
            this.roll();
            this.update();
          },
          { class: "again" },
        ),
      ),
    );
    const view = (name) => {
      const canvas = node("canvas", { role: "img", "aria-label": `${text[name]}. ${text.picture}.` });
      const svg = drawn("svg", { "aria-hidden": "true" });
      this[name] = { canvas, svg };
      return [node("h3", {}, text[name]), node("div", { class: "view" }, canvas, svg)];
    };
    this.curve = drawn("svg", { role: "img", "aria-label": text.line });
    const views = node(
      "div",
      { class: "views" },
      ...view("signal"),
      ...view("gradient"),
      node("h3", {}, text.alike),
      node("div", { class: "view line" }, this.curve),
    );
    new ResizeObserver(() => this.draw()).observe(views);
    this.said = ["signal", "gradient", "alike"].map(() => node("p"));
    const status = node("div", { role: "status" }, ...this.said);
    return [node("div", { class: "layout" }, knobs, views, status)];
  }

  paint() {
    this.update();
  }

  /** A factor in few letters: 0.93, or 1.3e−9. */
  factor(value) {
    if (value > 0.01 && value < 100) return this.number(value, 2);
    if (value === 0) return "0";
    const power = Math.floor(Math.log10(value));
    return `${this.number(value / 10 ** power, 1)}e${this.number(power, 0)}`;
  }

  update() {
    if (!this.colors) return;
    const { text, settings } = this;
    this.result = this.forward(settings);
    const { sizes, slopes, cosines } = this.result;
    const { depth, sigma } = settings;
    this.depth.output.textContent = fill(text.layers, { depth });
    this.depth.input.setAttribute("aria-valuetext", fill(text.layers, { depth }));
    this.sigma.input.value = Math.round(Math.log2(sigma) * STEPS);
    const scale = fill(text.scale, { sigma: this.number(sigma, 2) });
    this.sigma.output.textContent = scale;
    this.sigma.input.setAttribute("aria-valuetext", scale);

    const verdict = (factor) => {
      if (factor < 1e-3) return text.vanishes;
      if (factor < 0.2) return text.shrinks;
      if (factor > 1e3) return text.explodes;
      return factor > 5 ? text.grows : text.alive;
    };
    const end = sizes[depth] / sizes[0];
    const back = slopes[0] / slopes[depth];
    const cosine = cosines[depth];
    const words = [
      ["said_signal", this.factor(end), verdict(end)],
      ["said_gradient", this.factor(back), verdict(back)],
      [
        "said_alike",
        this.number(cosine, 2),
        cosine > 0.99 ? text.same : cosine > 0.8 ? text.close : text.apart,
      ],
    ];
    words.forEach(([name, value, words], i) => {
      this.said[i].textContent = fill(text[name], { value, verdict: words });
    });
    this.draw();
  }

  /** Histograms as columns of a picture, with the root mean square as a line over it. */
  draw() {
    if (!this.result) return;
    const { colors, result } = this;
    const { depth } = this.settings;
    const columns = depth + 1;
    const rows = (HIGH - LOW) * ROWS;
    const ink = { high: colors.gray, paper: colors.paper };
    for (const [name, layers, means] of [
      ["signal", result.signal, result.sizes],
      ["gradient", result.gradient, result.slopes],
    ]) {
      const { canvas, svg } = this[name];
      const counts = new Float64Array(rows * columns);
      layers.forEach((values, l) => {
        let top = 1;
        for (const value of values) {
          if (value === 0) continue;
          const power = (HIGH - Math.log10(Math.abs(value))) * ROWS;
          const row = Math.max(0, Math.min(rows - 1, Math.floor(power)));
          top = Math.max(top, ++counts[row * columns + l]);
        }
        for (let row = 0; row < rows; row++) counts[row * columns + l] /= top;
      });
      picture(canvas, counts, rows, columns, ink);
      const y = (power) => (TALL * (HIGH - Math.max(LOW, Math.min(HIGH, power)))) / (HIGH - LOW);
      this.lay(svg, means.map((mean) => y(Math.log10(mean || 1e-300))), [-8, -4, 0, 4].map((power) => [
        y(power),
        ["10", drawn("tspan", { dy: -5, "font-size": 9 }, this.number(power, 0))],
      ]));
    }
    const y = (cosine) => LINE - 4 - (LINE - 12) * Math.max(0, cosine);
    this.lay(this.curve, result.cosines.map(y), [0, 1].map((at) => [y(at), [this.number(at, 0)]]));
    const foot = { y: LINE + 14, class: "foot" };
    this.curve.append(
      drawn("text", { ...foot, x: LEFT }, fill(this.text.first, { layer: 0 })),
      drawn("text", { ...foot, x: this.curve.clientWidth, "text-anchor": "end" }, `${depth}`),
    );
  }

  lay(svg, heights, ticks) {
    const width = svg.clientWidth - LEFT;
    const x = (l) => LEFT + ((l + 0.5) / heights.length) * width;
    const path = `M${heights.map((y, l) => `${x(l).toFixed(1)} ${y.toFixed(1)}`).join("L")}`;
    svg.replaceChildren(
      ...ticks.flatMap(([y, label]) => [
        drawn("path", { class: "axis", d: `M${LEFT} ${y}h${Math.max(0, width)}` }),
        drawn("text", { x: LEFT - 5, y: y + 5, "text-anchor": "end" }, ...label),
      ]),
      drawn("path", { class: "halo", d: path }),
      drawn("path", { class: "rms", d: path }),
    );
  }
}

customElements.define("trivium-depth", DepthWidget);
