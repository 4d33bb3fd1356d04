/**
 * An activation function, its derivative, and what ten layers of it do to a signal and a gradient.
 *
 * Data: "stack" float32 [L, H, H], random weights of variance 1/H; "signal" float32 [N, H], a batch
 * of inputs; "gradient" float32 [N, H], a gradient that enters at the top. Everything else is
 * computed here, so that the scale of the weights can be moved.
 */

import { Widget, choice, drawn, fill, node, picture, unpack } from "./trivium.js";

const HALF = Math.sqrt(2 / Math.PI);

const sigmoid = (z) => 1 / (1 + Math.exp(-z));

/** Each activation: its value and its derivative. GELU in the common form with tanh, as in JAX. */
export const ACTIVATIONS = {
  sigmoid: [sigmoid, (z) => sigmoid(z) * (1 - sigmoid(z))],
  tanh: [Math.tanh, (z) => 1 - Math.tanh(z) ** 2],
  relu: [(z) => Math.max(z, 0), (z) => (z > 0 ? 1 : 0)],
  leaky: [(z) => (z > 0 ? z : 0.1 * z), (z) => (z > 0 ? 1 : 0.1)],
  gelu: [
    (z) => 0.5 * z * (1 + Math.tanh(HALF * (z + 0.044715 * z ** 3))),
    (z) => {
      const t = Math.tanh(HALF * (z + 0.044715 * z ** 3));
      return 0.5 * (1 + t) + 0.5 * z * (1 - t * t) * HALF * (1 + 3 * 0.044715 * z * z);
    },
  ],
  silu: [(z) => z * sigmoid(z), (z) => sigmoid(z) * (1 + z * (1 - sigmoid(z)))],
};
const KINDS = Object.keys(ACTIVATIONS);

const REACH = 5; // the plot of the function shows -5 to 5
const FLAT = 0.01; // a derivative below this passes next to nothing
const TINY = 0.0001; // ratios below this are told as such
const BINS = 25;
const RANGE = 3; // the picture of outputs shows -3 to 3
const LOWEST = -10; // powers of ten that the plot of layers shows
const HIGHEST = 4;

class ActivationWidget extends Widget {
  static text = {
    name: "An activation function, and ten layers of it",
    choose: "Activation function",
    sigmoid: "sigmoid",
    tanh: "tanh",
    relu: "ReLU",
    leaky: "leaky ReLU",
    gelu: "GELU",
    silu: "SiLU",
    function: "The function and its derivative",
    function_picture: "{name} (solid) and its derivative (dashed) over z",
    at: "Input z of the point",
    value: "z {z}: value {value}, derivative {slope}",
    layers: "Through {count} layers",
    layers_picture: "Signal going up and gradient coming down, layer by layer",
    scale: "Scale of the weights",
    scale_value: "weights times {gain}",
    signal: "signal",
    gradient: "gradient",
    layer: "layer",
    outputs: "Outputs of each layer, input at the left",
    outputs_picture: "How often each output occurs, layer by layer",
    tiny: "less than {value}",
    outputs_note: "top {high}, middle 0, bottom {low}; stronger is more",
    status:
      "{name}: after {count} layers {signal} of the signal is left, and {gradient} of the " +
      "gradient arrives at the input. Derivatives below {flat}: {share}.",
  };

  static style = `
    .room { --family: var(--ink); }
    .layout { display: grid; gap: 14px 24px; grid-template-columns: minmax(0, 1fr);
      grid-template-areas: "kinds" "status" "function" "layers" "outputs"; }
    .kinds { grid-area: kinds; display: grid; grid-template-columns: repeat(3, minmax(0, 1fr));
      gap: 4px; }
    .kinds span { display: grid; place-items: center; min-height: 34px; padding: 2px 4px;
      border: 1px solid var(--gray); border-radius: 4px; white-space: nowrap; }
    .kinds input:checked + span { background: var(--ink); border-color: var(--ink);
      color: var(--paper); }
    .function { grid-area: function; } .layers { grid-area: layers; }
    .outputs { grid-area: outputs; }
    .function, .layers, .outputs { display: grid; gap: 6px; align-content: start; }
    .status { grid-area: status; min-height: 5.6em; font-variant-numeric: tabular-nums; }
    .slide { display: flex; gap: 8px; align-items: center; }
    .slide span { flex: none; }
    .slide input { flex: 1; }
    .value { min-height: 1.35em; font-variant-numeric: tabular-nums; }
    svg { display: block; width: 100%; height: 220px; overflow: visible; }
    svg text { font-size: 12px; fill: var(--muted); }
    svg text.ink { fill: var(--ink); }
    .axis { stroke: var(--grid); fill: none; }
    .solid { stroke: var(--ink); stroke-width: 2; fill: none; }
    .dashed { stroke: var(--muted); stroke-width: 2; fill: none; stroke-dasharray: 5 4; }
    .dot { fill: var(--ink); stroke: var(--ink); stroke-width: 1.5; }
    .ring { fill: var(--paper); stroke: var(--muted); stroke-width: 1.5; }
    .outputs canvas { width: 100%; height: 120px; box-shadow: 0 0 0 1px var(--grid); }
    @container (min-width: 580px) {
      .layout { grid-template-columns: minmax(0, 1fr) minmax(0, 1fr);
        grid-template-areas: "kinds kinds" "status status" "function layers" "outputs outputs"; }
      .kinds { grid-template-columns: repeat(6, minmax(0, 1fr)); }
      .status { min-height: 2.8em; }
    }
  `;

  load(data) {
    const { shape, values } = unpack(data.stack, "stack", [null, null, null]);
    const [layers, width, columns] = shape;
    if (width !== columns) throw new Error(`stack: expected square weights, got [${shape}]`);
    this.count = layers;
    this.width = width;
    this.stack = values;
    const signal = unpack(data.signal, "signal", [null, width]);
    this.examples = signal.shape[0];
    this.signal = signal.values;
    this.gradient = unpack(data.gradient, "gradient", [this.examples, width]).values;
    this.kind = KINDS[0];
    this.gain = 1;
    this.z = 1;
  }

  /**
   * The batch through all layers, and the gradient back.
   *
   * @param {string} kind a name in ACTIVATIONS
   * @param {number} gain what the weights are multiplied by
   * @returns {{spread: number[], size: number[], outputs: Float64Array[], flat: number}} the size
   *     of the differences between inputs above each layer (0 is the input), the size of the
   *     gradient below each, both root mean square; all outputs; the share of flat derivatives
   */
  forward(kind, gain) {
    const { count, width, examples, stack } = this;
    const [f, slope] = ACTIVATIONS[kind];
    const outputs = [Float64Array.from(this.signal)];
    const slopes = [];
    for (let l = 0; l < count; l++) {
      const x = outputs[l];
      const h = new Float64Array(examples * width);
      const d = new Float64Array(examples * width);
      for (let n = 0; n < examples; n++) {
        for (let j = 0; j < width; j++) {
          let z = 0;
          for (let i = 0; i < width; i++) {
            z += x[n * width + i] * stack[(l * width + i) * width + j];
          }
          h[n * width + j] = f(gain * z);
          d[n * width + j] = slope(gain * z);
        }
      }
      outputs.push(h);
      slopes.push(d);
    }
    let g = Float64Array.from(this.gradient);
    const size = [rms(g)];
    for (let l = count - 1; l >= 0; l--) {
      const below = new Float64Array(examples * width);
      for (let n = 0; n < examples; n++) {
        for (let j = 0; j < width; j++) {
          const share = gain * g[n * width + j] * slopes[l][n * width + j];
          for (let i = 0; i < width; i++) {
            below[n * width + i] += share * stack[(l * width + i) * width + j];
          }
        }
      }
      g = below;
      size.unshift(rms(g));
    }
    const all = slopes.flatMap((d) => Array.from(d));
    return {
      spread: outputs.map((h) => this.spread(h)),
      size,
      outputs,
      flat: all.filter((d) => d < FLAT).length / all.length,
    };
  }

  /** How far the examples differ: the variance of each unit over the batch, averaged, its root. */
  spread(h) {
    const { width, examples } = this;
    let sum = 0;
    for (let j = 0; j < width; j++) {
      let mean = 0;
      for (let n = 0; n < examples; n++) mean += h[n * width + j] / examples;
      for (let n = 0; n < examples; n++) sum += (h[n * width + j] - mean) ** 2;
    }
    return Math.sqrt(sum / (width * examples));
  }

  build() {
    const { text } = this;
    const kinds = choice(
      text.choose,
      KINDS.map((kind) => ({ label: text[kind] })),
      (i) => {
        this.kind = KINDS[i];
        this.update();
      },
      { className: "kinds" },
    );
    const slide = (label, min, max, value, changed) => {
      const input = node("input", {
        type: "range",
        min,
        max,
        step: 0.05,
        value,
        "aria-label": label,
        oninput: (event) => changed(+event.target.value),
      });
      return [input, node("div", { class: "slide" }, node("span", {}, label), input)];
    };
    let place;
    [this.at, place] = slide(text.at, -REACH, REACH, this.z, (z) => {
      this.z = z;
      this.draw();
    });
    this.plot = drawn("svg", { role: "img" });
    this.value = node("p", { class: "value" });
    const shape = node(
      "div",
      { class: "function" },
      node("h3", {}, text.function),
      this.plot,
      place,
      this.value,
    );
    [this.scale, place] = slide(text.scale, 0.25, 3, this.gain, (gain) => {
      this.gain = gain;
      this.update();
    });
    this.chart = drawn("svg", { role: "img", "aria-label": text.layers_picture });
    this.told = node("p", { class: "value" });
    const layers = node(
      "div",
      { class: "layers" },
      node("h3", {}, fill(text.layers, { count: this.count })),
      this.chart,
      place,
      this.told,
    );
    this.canvas = node("canvas", { role: "img", "aria-label": text.outputs_picture });
    const note = { high: RANGE, low: this.number(-RANGE, 0) };
    const outputs = node(
      "div",
      { class: "outputs" },
      node("h3", {}, text.outputs),
      this.canvas,
      node("p", { class: "note" }, fill(text.outputs_note, note)),
    );
    this.status = node("p", { role: "status", class: "status" });
    new ResizeObserver(() => this.draw()).observe(this.plot);
    return [node("div", { class: "layout" }, kinds, this.status, shape, layers, outputs)];
  }

  paint() {
    this.update();
  }

  /** A ratio that may be very small or very large; the plot shows its power of ten. */
  short(value) {
    if (value < TINY) return fill(this.text.tiny, { value: this.number(TINY, 4) });
    return this.number(value, value < 0.01 ? 4 : value < 100 ? 2 : 0);
  }

  update() {
    if (!this.colors) return;
    const { text, kind, gain, count } = this;
    this.result = this.forward(kind, gain);
    const { spread, size, outputs, flat } = this.result;
    const told = fill(text.scale_value, { gain: this.number(gain) });
    this.scale.setAttribute("aria-valuetext", told);
    this.told.textContent = told;
    this.status.textContent = fill(text.status, {
      name: text[kind],
      count,
      signal: this.short(spread[count] / spread[0]),
      gradient: this.short(size[0] / size[count]),
      flat: this.number(FLAT),
      share: this.percent(flat),
    });
    const columns = count + 1;
    const shares = new Float32Array(BINS * columns);
    outputs.forEach((h, layer) => {
      for (const value of h) {
        const bin = Math.floor(((RANGE - value) / (2 * RANGE)) * BINS);
        shares[Math.max(0, Math.min(BINS - 1, bin)) * columns + layer] += 1 / h.length;
      }
    });
    // The root shows rare values too.
    const seen = shares.map(Math.sqrt);
    const colors = { high: this.colors.ink, paper: this.colors.paper };
    picture(this.canvas, seen, BINS, columns, colors);
    this.draw();
  }

  draw() {
    if (!this.result) return;
    this.drawFunction();
    this.drawLayers();
  }

  drawFunction() {
    const { text, kind, z } = this;
    const [f, slope] = ACTIVATIONS[kind];
    const width = this.plot.clientWidth;
    const [low, high, bottom, top] = [-1.5, 3, 216, 4];
    const x = (at) => 4 + ((at + REACH) / (2 * REACH)) * (width - 8);
    const y = (value) => bottom - ((value - low) / (high - low)) * (bottom - top);
    const places = Array.from({ length: 201 }, (_, i) => -REACH + (2 * REACH * i) / 200);
    const line = (g) => {
      const inside = places.filter((at) => g(at) <= high && g(at) >= low);
      return `M${inside.map((at) => `${x(at).toFixed(1)} ${y(g(at)).toFixed(1)}`).join("L")}`;
    };
    const parts = [
      drawn("path", { class: "axis", d: `M0 ${y(0)}H${width}M${x(0)} ${top}V${bottom}` }),
      drawn("text", { x: x(0) + 4, y: y(1) + 4 }, "1"),
      drawn("text", { x: x(0) + 4, y: y(-1) + 4 }, "−1"),
      drawn("text", { x: 4, y: y(0) + 15 }, this.number(-REACH, 0)),
      drawn("text", { x: width - 4, y: y(0) + 15, "text-anchor": "end" }, this.number(REACH, 0)),
      drawn("path", { class: "dashed", d: line(slope) }),
      drawn("path", { class: "solid", d: line(f) }),
    ];
    const value = f(z);
    const dot = Math.min(high, Math.max(low, value));
    parts.push(
      drawn("circle", { class: "ring", cx: x(z), cy: y(slope(z)), r: 5 }),
      drawn("circle", { class: "dot", cx: x(z), cy: y(dot), r: 5 }),
    );
    this.plot.replaceChildren(...parts);
    this.plot.setAttribute("aria-label", fill(text.function_picture, { name: text[kind] }));
    const numbers = { z: this.number(z), value: this.number(value), slope: this.number(slope(z)) };
    this.value.textContent = fill(text.value, numbers);
    this.at.setAttribute("aria-valuetext", this.value.textContent);
  }

  drawLayers() {
    const { text, count } = this;
    const { spread, size } = this.result;
    const width = this.chart.clientWidth;
    const [left, right, top, bottom] = [38, 10, 22, 196];
    const x = (layer) => left + (layer / count) * (width - left - right);
    const y = (value) => {
      const power = Math.max(LOWEST, Math.min(HIGHEST, Math.log10(Math.max(value, 1e-30))));
      return bottom - ((power - LOWEST) / (HIGHEST - LOWEST)) * (bottom - top);
    };
    const parts = [];
    for (const [power, label] of [
      [4, "1e4"],
      [0, "1"],
      [-5, "1e−5"],
      [-10, "1e−10"],
    ]) {
      const at = y(10 ** power);
      parts.push(
        drawn("path", { class: "axis", d: `M${left} ${at}H${width - right}` }),
        drawn("text", { x: left - 5, y: at + 4, "text-anchor": "end" }, label),
      );
    }
    for (const layer of [0, count / 2, count]) {
      const at = { x: x(layer), y: bottom + 16, "text-anchor": layer ? "middle" : "start" };
      parts.push(drawn("text", at, this.number(layer, 0)));
    }
    const middle = { x: (x(0) + x(count)) / 2 + 22, y: bottom + 16 };
    parts.push(drawn("text", middle, text.layer));
    for (const [values, line, mark] of [
      [size, "dashed", "ring"],
      [spread, "solid", "dot"],
    ]) {
      const first = values === size ? values[count] : values[0];
      const at = values.map((value, layer) => [x(layer), y(value / first)]);
      parts.push(drawn("path", { class: line, d: `M${at.map((p) => p.join(" ")).join("L")}` }));
      for (const [cx, cy] of at) parts.push(drawn("circle", { class: mark, cx, cy, r: 3.5 }));
    }
    // A key above the plot: the lines may lie anywhere.
    parts.push(
      drawn("path", { class: "solid", d: `M${left} 8h22` }),
      drawn("circle", { class: "dot", cx: left + 11, cy: 8, r: 3.5 }),
      drawn("text", { class: "ink", x: left + 28, y: 12 }, `${text.signal} ↑`),
      drawn("path", { class: "dashed", d: `M${left + 104} 8h22` }),
      drawn("circle", { class: "ring", cx: left + 115, cy: 8, r: 3.5 }),
      drawn("text", { x: left + 132, y: 12 }, `${text.gradient} ↓`),
    );
    this.chart.replaceChildren(...parts);
  }
}

function rms(values) {
  return Math.sqrt(values.reduce((sum, value) => sum + value * value, 0) / values.length);
}

customElements.define("trivium-activations", ActivationWidget);
