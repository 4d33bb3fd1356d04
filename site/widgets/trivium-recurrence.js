/**
 * <trivium-recurrence>: a simple recurrent cell and a gated one read the same sequence, side by side.
 *
 * Data: cells {rnn, lstm, gru}, each w_ih [1, G H], w_hh [H, G H], b [G H] with G = 1, 4, 3 gates;
 * sequences, a list of {name, values [T]}; text. Gates of the LSTM stand in the order input, forget,
 * cell, output, of the GRU reset, update, new; the second of them keeps, and gets the bias chosen.
 * `element.run(kind, sequence, gain, bias)` is the whole of it: states, and how far gradients reach.
 */

import { Widget, button, choice, drawn, fill, node, picture, unpack } from "./trivium.js";

const GATES = { rnn: 1, lstm: 4, gru: 3 };

/** Left and right margins of everything that shares the time axis, in pixels. */
const LEFT = 36;
const RIGHT = 10;
const INPUT = 58;
const REACH = 190;

/** The powers of ten that the plot of derivatives spans. */
const LOW = -8;
const HIGH = 2;

const sigmoid = (x) => 1 / (1 + Math.exp(-x));

export class CellsWidget extends Widget {
  static family = "recurrence";

  static text = {
    name: "A simple and a gated cell, step by step",
    sequence: "Sequence",
    back: "One step back",
    forward: "One step forward",
    step: "Step",
    progress: "step {step} of {steps}",
    gain: "Recurrent weight of the simple cell",
    gain_value: "× {gain}",
    bias: "Bias of the gate that keeps",
    bias_value: "{bias}: about {steps} steps",
    kind: "Gated cell",
    lstm: "LSTM",
    gru: "GRU",
    input: "Input",
    input_picture: "The input up to step {step}",
    rnn_state: "State of the simple cell",
    lstm_state: "State h of the LSTM",
    gru_state: "State of the GRU",
    state_picture: "State of {count} units up to step {step}; orange positive, gray negative",
    reach: "Size of the derivative of the present state by each input",
    reach_picture: "Derivative by the input of each step, on a logarithmic scale",
    simple: "simple",
    status:
      "At step {step}, the first input's derivative is {simple} in the simple cell and {gated} in the gated one.",
    key: "Orange is positive, gray negative; full color is 1.",
    below: "Values below the plot are left out.",
  };

  static style = `
    .layout { display: grid; gap: 12px 20px; grid-template-columns: minmax(0, 1fr);
      grid-template-areas: "pick" "step" "simple" "gated" "input" "one" "two" "reach"; }
    .pick { grid-area: pick; justify-content: space-between; }
    .pick label { display: flex; align-items: center; flex: 1; }
    .pick select { flex: 1; min-width: 0; max-width: 260px; margin-left: 6px; }
    .step { grid-area: step; } .input { grid-area: input; } .reach { grid-area: reach; }
    .simple { grid-area: simple; } .gated { grid-area: gated; }
    .one { grid-area: one; } .two { grid-area: two; }
    .step input { flex: 1; }
    .step output { min-width: 8em; text-align: right; font-variant-numeric: tabular-nums; }
    .control label { display: grid; grid-template-columns: 1fr auto; gap: 0 8px; }
    .control label input { grid-column: 1 / -1; width: 100%; }
    .control output { font-variant-numeric: tabular-nums; color: var(--muted); }
    .strip { position: relative; margin: 4px ${RIGHT}px 0 ${LEFT}px; }
    .strip canvas { width: 100%; height: 96px; box-shadow: 0 0 0 1px var(--grid); }
    svg { display: block; width: 100%; overflow: visible; }
    .input svg { height: ${INPUT}px; } .reach svg { height: ${REACH}px; }
    svg text { font-size: 12px; fill: var(--muted); }
    svg .small { font-size: 9px; }
    svg .axis { stroke: var(--grid); fill: none; }
    svg .bar { stroke: var(--muted); stroke-width: 3; }
    svg .line { fill: none; stroke-width: 2; }
    svg .rnn { stroke: var(--muted); stroke-dasharray: 5 4; }
    svg .dot.rnn { fill: var(--paper); stroke-dasharray: none; stroke-width: 1.5; }
    svg .on { stroke: var(--family); stroke-width: 2.5; }
    svg .dot.on { fill: var(--family); }
    svg text.name { fill: var(--family); font-weight: 600; }
    svg .tick { stroke: var(--ink); }
    .reach [role="status"] { min-height: 4.1em; margin-top: 8px; }
    sup { line-height: 0; }
    @container (min-width: 580px) {
      .layout { grid-template-columns: repeat(2, minmax(0, 1fr));
        grid-template-areas: "pick pick" "step step" "simple gated" "input input" "one two"
          "reach reach"; }
      .reach [role="status"] { min-height: 2.7em; }
    }
  `;

  load(data) {
    this.cells = {};
    for (const [kind, gates] of Object.entries(GATES)) {
      const packed = data.cells?.[kind];
      const wHh = unpack(packed?.w_hh, `cells.${kind}.w_hh`, [null, null]);
      const [hidden, columns] = wHh.shape;
      if (columns !== gates * hidden) {
        throw new Error(`cells.${kind}.w_hh: expected ${gates} gates, got [${wHh.shape}]`);
      }
      this.cells[kind] = {
        hidden,
        wIh: unpack(packed.w_ih, `cells.${kind}.w_ih`, [1, columns]).values,
        wHh: wHh.values,
        b: unpack(packed.b, `cells.${kind}.b`, [columns]).values,
      };
    }
    this.names = data.sequences.map(({ name }) => name);
    this.sequences = data.sequences.map(
      ({ values }, i) => unpack(values, `sequences[${i}]`, [null]).values,
    );
    this.gain = 1;
    this.bias = 4;
    this.kind = "lstm";
    this.select(0);
  }

  /**
   * A cell over one sequence, and the derivatives of every state by every input before it.
   *
   * @param {"rnn" | "lstm" | "gru"} kind
   * @param {ArrayLike<number>} sequence [T], one number a step
   * @param {number} gain what the recurrent weights are multiplied by
   * @param {number} bias what is added to the bias of the gate that keeps; of no effect on the rnn
   * @returns {{h: Float64Array, reach: Float64Array[]}} states [T, H]; reach[t][s] is the length of
   *     the derivative of the state after step t by the input of step s, for s from 0 to t
   */
  run(kind, sequence, gain = 1, bias = 0) {
    const { hidden, wIh, wHh, b } = this.cells[kind];
    const columns = wIh.length;
    const steps = sequence.length;
    const states = new Float64Array(steps * hidden);
    const reach = [];
    const times = (vector) => {
      const sums = new Float64Array(columns);
      for (let k = 0; k < hidden; k++) {
        const value = gain * vector[k];
        for (let j = 0; j < columns; j++) sums[j] += value * wHh[k * columns + j];
      }
      return sums;
    };
    const zeros = { h: new Float64Array(hidden), c: new Float64Array(hidden) };
    let state = zeros;
    let tangents = []; // the derivative of the state by each input so far, {h, c}
    for (let t = 0; t < steps; t++) {
      const fromInput = Float64Array.from(b, (value, j) => {
        const keeps = kind !== "rnn" && j >= hidden && j < 2 * hidden;
        return value + sequence[t] * wIh[j] + (keeps ? bias : 0);
      });
      const step = CELLS[kind](fromInput, times(state.h), state, hidden);
      tangents = tangents.map((tangent) =>
        step.push(new Float64Array(columns), times(tangent.h), tangent),
      );
      tangents.push(step.push(Float64Array.from(wIh), new Float64Array(columns), zeros));
      state = step.state;
      states.set(state.h, t * hidden);
      reach.push(Float64Array.from(tangents, ({ h }) => Math.hypot(...h)));
    }
    return { h: states, reach };
  }

  build() {
    const { text } = this;
    const pick = node(
      "div",
      { class: "bar pick" },
      node(
        "label",
        {},
        text.sequence,
        node(
          "select",
          {
            onchange: (event) => {
              this.select(+event.target.value);
              this.update();
            },
          },
          ...this.names.map((name, i) => node("option", { value: i }, name)),
        ),
      ),
      choice(
        text.kind,
        ["lstm", "gru"].map((kind) => ({ label: text[kind] })),
        (i) => {
          this.kind = ["lstm", "gru"][i];
          this.compute();
          this.update();
        },
      ),
    );

    this.slider = node("input", {
      type: "range",
      min: 1,
      "aria-label": text.step,
      oninput: () => this.go(+this.slider.value),
    });
    this.output = node("output", { "aria-hidden": "true" });
    const arrow = (label, by, show) => button(label, () => this.go(this.step + by), { show });
    const step = node(
      "div",
      { class: "bar step" },
      arrow(text.back, -1, "←"),
      arrow(text.forward, 1, "→"),
      this.slider,
      this.output,
    );

    const control = (area, name, range, change) => {
      const output = node("output");
      const input = node("input", {
        type: "range",
        ...range,
        oninput: () => {
          change(+input.value);
          this.compute();
          this.update();
        },
      });
      const made = node(
        "div",
        { class: `control ${area}` },
        node("label", {}, node("span", {}, name), output, input),
      );
      return { made, input, output };
    };
    this.gainControl = control(
      "simple",
      text.gain,
      { min: 0, max: 2.5, step: 0.05, value: this.gain },
      (value) => (this.gain = value),
    );
    this.biasControl = control(
      "gated",
      text.bias,
      { min: -2, max: 8, step: 0.1, value: this.bias },
      (value) => (this.bias = value),
    );

    this.inputs = drawn("svg", { role: "img" });
    this.plot = drawn("svg", { role: "img" });
    const watch = new ResizeObserver(() => this.draw());
    watch.observe(this.inputs);
    watch.observe(this.plot);
    const panel = (area) => {
      const heading = node("h3");
      const canvas = node("canvas", { role: "img" });
      const made = node(
        "div",
        { class: area },
        heading,
        node("div", { class: "strip" }, canvas),
      );
      return { made, heading, canvas };
    };
    this.panels = { rnn: panel("one"), gated: panel("two") };
    this.status = node("p", { role: "status" });
    return [
      node(
        "div",
        { class: "layout" },
        pick,
        step,
        this.gainControl.made,
        this.biasControl.made,
        node("div", { class: "input" }, node("h3", {}, text.input), this.inputs),
        this.panels.rnn.made,
        this.panels.gated.made,
        node(
          "div",
          { class: "reach" },
          node("h3", {}, text.reach),
          this.plot,
          this.status,
          node("p", { class: "note" }, `${text.key} ${text.below}`),
        ),
      ),
    ];
  }

  select(index) {
    this.sequence = this.sequences[index];
    this.steps = this.sequence.length;
    this.step = this.steps;
    this.compute();
  }

  compute() {
    this.results = {
      rnn: this.run("rnn", this.sequence, this.gain),
      gated: this.run(this.kind, this.sequence, 1, this.bias),
    };
  }

  go(step) {
    this.step = Math.max(1, Math.min(this.steps, step));
    this.update();
  }

  paint() {
    this.update();
  }

  update() {
    if (!this.colors) return;
    const { text, step, steps, kind } = this;
    this.slider.max = steps;
    this.slider.value = step;
    const progress = fill(text.progress, { step, steps });
    this.slider.setAttribute("aria-valuetext", progress);
    this.output.textContent = progress;
    // A gate at bias b forgets within 1 + e^b steps.
    const say = (control, shown) => {
      control.output.textContent = shown;
      control.input.setAttribute("aria-valuetext", shown);
    };
    say(this.gainControl, fill(text.gain_value, { gain: this.number(this.gain) }));
    const memory = 1 + Math.exp(this.bias);
    say(
      this.biasControl,
      fill(text.bias_value, {
        bias: this.number(this.bias, 1),
        steps: this.number(memory, memory < 10 ? 1 : 0),
      }),
    );

    const { family, gray, paper } = this.colors;
    for (const [name, { heading, canvas }] of Object.entries(this.panels)) {
      const { hidden } = this.cells[name === "rnn" ? "rnn" : kind];
      const { h } = this.results[name];
      const turned = Float64Array.from(
        { length: hidden * steps },
        (_, i) => h[(i % steps) * hidden + Math.floor(i / steps)],
      );
      picture(canvas, turned, hidden, steps, { high: family, low: gray, paper }, 1, step);
      heading.textContent = text[name === "rnn" ? "rnn_state" : `${kind}_state`];
      canvas.setAttribute("aria-label", fill(text.state_picture, { count: hidden, step }));
    }
    const first = { simple: this.results.rnn, gated: this.results.gated };
    // Numbers in the sentence may have powers, so it is put together from its parts.
    const parts = fill(text.status, { step }).split(/\{(simple|gated)\}/);
    this.status.replaceChildren(
      ...parts.flatMap((part, i) => {
        return i % 2 ? this.scientific(first[part].reach[step - 1][0]) : [part];
      }),
    );
    this.draw();
  }

  /** A number as nodes: small and large ones with a power of ten. */
  scientific(value) {
    if (value === 0 || (value >= 0.01 && value < 1000)) return [this.number(value, 2)];
    const [digits, power] = value.toExponential(1).split("e");
    return [`${this.number(+digits, 1)} × 10`, node("sup", {}, this.number(+power, 0))];
  }

  /** The input and the derivatives, up to the present step. */
  draw() {
    if (!this.inputs || !this.results) return;
    const { text, step, steps, sequence } = this;
    const width = this.plot.clientWidth;
    const x = (t) => LEFT + ((t + 0.5) / steps) * (width - LEFT - RIGHT);

    const top = sequence.reduce((a, b) => Math.max(a, Math.abs(b)), 1e-6);
    const middle = INPUT / 2;
    const bars = [drawn("path", { class: "axis", d: `M${LEFT} ${middle}H${width - RIGHT}` })];
    for (let t = 0; t < step; t++) {
      const height = (sequence[t] / top) * (middle - 3);
      bars.push(drawn("path", { class: "bar", d: `M${x(t)} ${middle}v${-height}` }));
    }
    bars.push(drawn("path", { class: "tick", d: `M${x(step - 1)} 0v${INPUT}` }));
    this.inputs.replaceChildren(...bars);
    this.inputs.setAttribute("aria-label", fill(text.input_picture, { step }));

    const y = (value) => 8 + (REACH - 28) * ((HIGH - Math.log10(value)) / (HIGH - LOW));
    const parts = [];
    for (let power = LOW; power <= HIGH; power += 2) {
      const at = y(10 ** power);
      parts.push(
        drawn("path", { class: "axis", d: `M${LEFT} ${at}H${width - RIGHT}` }),
        drawn(
          "text",
          { x: LEFT - 6, y: at + 4, "text-anchor": "end" },
          "10",
          drawn("tspan", { class: "small", dy: -5 }, String(power).replace("-", "−")),
        ),
      );
    }
    parts.push(drawn("path", { class: "tick", d: `M${x(step - 1)} 8v${REACH - 28}` }));
    for (const name of ["rnn", "gated"]) {
      const kind = name === "rnn" ? "rnn" : "on";
      const values = this.results[name].reach[step - 1];
      let path = "";
      let pen = "M";
      for (let s = 0; s < step; s++) {
        const inside = values[s] >= 10 ** LOW && values[s] <= 10 ** HIGH;
        if (inside) path += `${pen}${x(s).toFixed(1)} ${y(values[s]).toFixed(1)}`;
        pen = inside ? "L" : "M";
        if (inside) {
          parts.push(drawn("circle", { class: `dot ${kind}`, cx: x(s), cy: y(values[s]), r: 2.5 }));
        }
      }
      if (path) parts.push(drawn("path", { class: `line ${kind}`, d: path }));
    }
    const base = REACH - 4;
    parts.push(
      drawn("path", { class: "line rnn", d: `M${LEFT} ${base - 4}h22` }),
      drawn("text", { x: LEFT + 28, y: base }, text.simple),
      drawn("path", { class: "line on", d: `M${LEFT + 100} ${base - 4}h22` }),
      drawn("text", { class: "name", x: LEFT + 128, y: base }, text[this.kind]),
    );
    this.plot.replaceChildren(...parts);
    this.plot.setAttribute("aria-label", text.reach_picture);
  }
}

/**
 * One step of each cell: from what the input adds [G H], what the state adds [G H], and the state,
 * the new state, and `push`, which carries small changes of the three to a change of the new state.
 */
const CELLS = {
  rnn(fromInput, fromState, _, hidden) {
    const h = Float64Array.from({ length: hidden }, (_, k) =>
      Math.tanh(fromInput[k] + fromState[k]),
    );
    const push = (dInput, dState) => ({
      h: h.map((value, k) => (1 - value * value) * (dInput[k] + dState[k])),
    });
    return { state: { h }, push };
  },

  lstm(fromInput, fromState, { c: before }, hidden) {
    const sum = (gate, k) => fromInput[gate * hidden + k] + fromState[gate * hidden + k];
    const units = Array.from({ length: hidden }, (_, k) => {
      const [i, f, g, o] = [
        sigmoid(sum(0, k)),
        sigmoid(sum(1, k)),
        Math.tanh(sum(2, k)),
        sigmoid(sum(3, k)),
      ];
      const c = f * before[k] + i * g;
      return { i, f, g, o, c, squashed: Math.tanh(c) };
    });
    const push = (dInput, dState, { c: dBefore }) => {
      const h = new Float64Array(hidden);
      const c = new Float64Array(hidden);
      units.forEach(({ i, f, g, o, squashed }, k) => {
        const change = (gate) => dInput[gate * hidden + k] + dState[gate * hidden + k];
        c[k] =
          f * dBefore[k] +
          before[k] * f * (1 - f) * change(1) +
          g * i * (1 - i) * change(0) +
          i * (1 - g * g) * change(2);
        h[k] = squashed * o * (1 - o) * change(3) + o * (1 - squashed * squashed) * c[k];
      });
      return { h, c };
    };
    const state = {
      h: Float64Array.from(units, ({ o, squashed }) => o * squashed),
      c: Float64Array.from(units, ({ c }) => c),
    };
    return { state, push };
  },

  gru(fromInput, fromState, { h: before }, hidden) {
    const units = Array.from({ length: hidden }, (_, k) => {
      const r = sigmoid(fromInput[k] + fromState[k]);
      const z = sigmoid(fromInput[hidden + k] + fromState[hidden + k]);
      const q = fromState[2 * hidden + k];
      const n = Math.tanh(fromInput[2 * hidden + k] + r * q);
      return { r, z, q, n };
    });
    const push = (dInput, dState, { h: dBefore }) => ({
      h: Float64Array.from(units, ({ r, z, q, n }, k) => {
        const dR = r * (1 - r) * (dInput[k] + dState[k]);
        const dZ = z * (1 - z) * (dInput[hidden + k] + dState[hidden + k]);
        const dN =
          (1 - n * n) * (dInput[2 * hidden + k] + dR * q + r * dState[2 * hidden + k]);
        return z * dBefore[k] + dZ * (before[k] - n) + (1 - z) * dN;
      }),
    });
    const h = Float64Array.from(units, ({ z, n }, k) => (1 - z) * n + z * before[k]);
    return { state: { h }, push };
  },
};

customElements.define("trivium-recurrence", CellsWidget);
