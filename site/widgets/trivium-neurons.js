/**
 * <trivium-neurons>: a network of two inputs and a few ReLU neurons, to be moved and to be trained.
 *
 * Data: start [4H + 1], points (a list of [N, 2]), labels (as many [N], 0 or 1), text. A vector of
 * parameters holds W [2, H] row by row, b [H], v [H] and c; the logit of a point x is
 * relu(x W + b) v + c, and the loss is the mean cross-entropy of its sigmoid.
 * `element.logit(parameters, x, y)` and `element.gradient(parameters, set)` are the whole of it.
 */

import { Widget, button, choice, drawn, fill, list, node, picture, unpack } from "./trivium.js";

/** The plane reaches from -REACH to REACH both ways and is SIDE pixels wide. */
const REACH = 2;
const SIDE = 300;
const CELLS = 100;
const CUT = 104;
const TRACE = 52;

const RATES = [0.03, 0.3, 3];
const SETS = ["xor", "ring", "band"];

const px = (x) => ((x + REACH) / (2 * REACH)) * SIDE;
const py = (y) => ((REACH - y) / (2 * REACH)) * SIDE;

export class NeuronsWidget extends Widget {
  static text = {
    name: "A small network: weights to move, and gradient descent",
    set: "Points",
    xor: "XOR",
    ring: "Ring",
    band: "Band",
    plane: "The plane of the two inputs, with the creases of the neurons and the boundary",
    key: "Shaded: filled is likely. Thick: even odds. Dashed: creases. Drag them.",
    cut: "The logit along the dotted line",
    cut_picture: "The logit along the line at height {height}: straight pieces, bent at the joints",
    cut_height: "Height of the dotted line",
    neuron: "Neuron",
    number: "Neuron {number}",
    first: "weight w₁",
    second: "weight w₂",
    bias: "bias b",
    output: "output v",
    constant: "constant c",
    descent: "Gradient descent",
    rate: "Learning rate",
    one: "1 step",
    ten: "10 steps",
    hundred: "100 steps",
    play: "Run",
    pause: "Pause",
    fresh: "New start",
    reset: "Reset",
    trace: "The loss so far, step by step",
    status: "Loss {loss}; {right} of {count} points right; {steps} steps taken.",
  };

  static style = `
    .room { --family: var(--ink); }
    .layout { display: grid; gap: 12px 24px; grid-template-columns: minmax(0, 1fr); }
    .view { display: grid; gap: 8px; align-content: start; justify-items: center; }
    .view > * { width: ${SIDE}px; max-width: 100%; }
    .view .bar { justify-content: space-between; }
    .plane { position: relative; height: ${SIDE}px; box-shadow: 0 0 0 1px var(--grid); }
    .plane canvas { position: absolute; inset: 0; width: ${SIDE}px; height: ${SIDE}px; }
    .plane svg { position: absolute; inset: 0; }
    svg { display: block; width: ${SIDE}px; overflow: hidden; }
    .plane svg { height: ${SIDE}px; } .cut { height: ${CUT}px; }
    .view .note { min-height: 2.7em; }
    .view label input { width: 100%; }
    svg path { fill: none; stroke: var(--ink); }
    svg .edge { stroke-width: 3; }
    svg .crease { stroke-dasharray: 6 4; stroke-width: 1.3; }
    svg .crease.on { stroke-width: 2.6; }
    svg .hit { stroke: transparent; stroke-width: 26; cursor: move; touch-action: none; }
    svg .level { stroke-dasharray: 1.5 4; stroke-width: 1.5; }
    svg .zero { stroke: var(--gray); stroke-width: 1; }
    svg .line { stroke-width: 2; }
    svg circle { stroke: var(--ink); stroke-width: 1.6; fill: var(--paper); pointer-events: none; }
    svg circle.one { fill: var(--ink); stroke: var(--paper); stroke-width: 1; }
    svg circle.joint { fill: var(--ink); stroke: none; }
    svg .edge, svg .level { pointer-events: none; }
    svg text { font-size: 12px; fill: var(--ink); paint-order: stroke; stroke: var(--paper);
      stroke-width: 3px; pointer-events: none; }
    .tune { display: grid; gap: 8px; align-content: start; }
    .row { display: grid; grid-template-columns: 6.4em minmax(0, 1fr) 3.6em; gap: 8px;
      align-items: center; }
    .row output { text-align: right; font-variant-numeric: tabular-nums; }
    .trace { width: 100%; height: ${TRACE}px; box-shadow: 0 0 0 1px var(--grid); }
    .tune > h3 { margin-top: 6px; }
    .play { min-width: 66px; }
    [role="status"] { min-height: 2.8em; font-variant-numeric: tabular-nums; }
    @media (prefers-reduced-motion: reduce) { .play { display: none; } }
    @container (min-width: 640px) {
      .layout { grid-template-columns: ${SIDE}px minmax(0, 1fr); }
    }
  `;

  load(data) {
    this.start = Float64Array.from(list(data.start, "start"));
    this.units = (this.start.length - 1) / 4;
    if (!Number.isInteger(this.units) || this.units < 1)
      throw new Error(`start: expected 4 H + 1 numbers, got ${this.start.length}`);
    this.sets = SETS.map((name, i) => {
      const points = unpack(data.points[i], `points[${i}]`, [null, 2]).values;
      const labels = unpack(data.labels[i], `labels[${i}]`, [points.length / 2]).values;
      return { name, points, labels };
    });
    this.set = 0;
    this.neuron = 0;
    this.rate = 1;
    this.height = -1;
    this.draws = 0;
    this.begin(this.start);
  }

  begin(parameters) {
    this.parameters = Float64Array.from(parameters);
    this.losses = [];
    this.record();
  }

  /** The logit of the point (x, y). */
  logit(p, x, y) {
    const { units } = this;
    let sum = p[4 * units];
    for (let j = 0; j < units; j++) {
      const z = x * p[j] + y * p[units + j] + p[2 * units + j];
      if (z > 0) sum += z * p[3 * units + j];
    }
    return sum;
  }

  /**
   * Loss and gradient by backpropagation.
   *
   * @param {ArrayLike<number>} p parameters
   * @param {{points: ArrayLike<number>, labels: ArrayLike<number>}} set
   * @returns {{loss: number, right: number, gradient: Float64Array}} right: how many points
   */
  gradient(p, { points, labels }) {
    const { units } = this;
    const count = labels.length;
    const gradient = new Float64Array(p.length);
    const z = new Float64Array(units);
    let loss = 0;
    let right = 0;
    for (let i = 0; i < count; i++) {
      const [x, y] = [points[2 * i], points[2 * i + 1]];
      let logit = p[4 * units];
      for (let j = 0; j < units; j++) {
        z[j] = x * p[j] + y * p[units + j] + p[2 * units + j];
        if (z[j] > 0) logit += z[j] * p[3 * units + j];
      }
      loss += Math.max(logit, 0) + Math.log1p(Math.exp(-Math.abs(logit))) - labels[i] * logit;
      right += logit > 0 === labels[i] > 0;
      // Back: what it said minus what is true, then through each neuron that is on.
      const delta = (1 / (1 + Math.exp(-logit)) - labels[i]) / count;
      gradient[4 * units] += delta;
      for (let j = 0; j < units; j++) {
        if (z[j] <= 0) continue;
        const back = delta * p[3 * units + j];
        gradient[3 * units + j] += delta * z[j];
        gradient[2 * units + j] += back;
        gradient[units + j] += back * y;
        gradient[j] += back * x;
      }
    }
    return { loss: loss / count, right, gradient };
  }

  record() {
    this.now = this.gradient(this.parameters, this.sets[this.set]);
    this.losses.push(this.now.loss);
  }

  descend(steps) {
    for (let t = 0; t < steps; t++) {
      const { gradient } = this.now;
      for (let k = 0; k < gradient.length; k++) {
        this.parameters[k] -= RATES[this.rate] * gradient[k];
      }
      this.record();
    }
    this.update();
  }

  build() {
    const { text, units } = this;
    this.canvas = node("canvas", { "aria-hidden": "true" });
    this.edge = drawn("path", { class: "edge" });
    this.level = drawn("path", { class: "level" });
    this.creases = Array.from({ length: units }, (_, j) => ({
      line: drawn("path", { class: "crease" }),
      hit: drawn("path", {
        class: "hit",
        onpointerdown: (event) => {
          event.target.setPointerCapture(event.pointerId);
          this.neuron = j;
          this.pick.inputs[j].checked = true;
          this.drag(event);
        },
        onpointermove: (event) => event.buttons && this.drag(event),
      }),
      name: drawn("text", { "text-anchor": "middle" }, `${j + 1}`),
    }));
    this.dots = drawn("g");
    this.overlay = drawn(
      "svg",
      { role: "img", "aria-label": text.plane, viewBox: `0 0 ${SIDE} ${SIDE}` },
      ...this.creases.map(({ line }) => line),
      this.level,
      this.edge,
      this.dots,
      ...this.creases.map(({ name }) => name),
      ...this.creases.map(({ hit }) => hit),
    );
    const sets = choice(
      text.set,
      this.sets.map(({ name }) => ({ label: text[name] })),
      (i) => {
        this.pause();
        this.set = i;
        this.begin(this.parameters);
        this.update();
      },
    );
    this.cut = drawn("svg", { role: "img", class: "cut", viewBox: `0 0 ${SIDE} ${CUT}` });
    this.cutSlider = this.slider(text.cut_height, -1.9, 1.9, (value) => (this.height = value));
    const view = node(
      "div",
      { class: "view" },
      node("div", { class: "bar" }, node("h3", {}, text.set), sets),
      node("div", { class: "plane" }, this.canvas, this.overlay),
      node("p", { class: "note" }, text.key),
      node("h3", {}, text.cut),
      this.cut,
      node("label", {}, node("span", { class: "unseen" }, text.cut_height), this.cutSlider),
    );

    this.pick = choice(
      text.neuron,
      Array.from({ length: units }, (_, j) => ({
        label: fill(text.number, { number: j + 1 }),
        show: `${j + 1}`,
      })),
      (j) => {
        this.neuron = j;
        this.update();
      },
    );
    const places = ["first", "second", "bias", "output", "constant"];
    this.rows = places.map((name, place) => {
      const place_of = () => (place === 4 ? 4 * units : place * units + this.neuron);
      const slider = this.slider(text[name], -5, 5, (value) => {
        this.pause();
        this.parameters[place_of()] = value;
        this.losses = [];
        this.record();
      });
      const output = node("output", { "aria-hidden": "true" });
      const row = node("div", { class: "row" }, node("span", {}, text[name]), slider, output);
      return { row, slider, output, place_of };
    });
    const steps = (label, count) =>
      button(label, () => {
        this.pause();
        this.descend(count);
      });
    this.button = button(text.play, () => (this.timer ? this.pause() : this.play()), {
      class: "play",
    });
    const rates = choice(
      text.rate,
      RATES.map((rate) => ({ label: this.number(rate, rate < 0.1 ? 2 : rate < 1 ? 1 : 0) })),
      (i) => (this.rate = i),
      { chosen: this.rate },
    );
    this.trace = drawn("svg", {
      role: "img",
      class: "trace",
      "aria-label": text.trace,
      preserveAspectRatio: "none",
    });
    this.status = node("p", { role: "status" });
    const tune = node(
      "div",
      { class: "tune" },
      node("div", { class: "bar" }, node("h3", {}, text.neuron), this.pick),
      ...this.rows.map(({ row }) => row),
      node("h3", {}, text.descent),
      node("div", { class: "bar" }, node("span", {}, text.rate), rates),
      node(
        "div",
        { class: "bar" },
        steps(text.one, 1),
        steps(text.ten, 10),
        steps(text.hundred, 100),
        this.button,
      ),
      this.trace,
      this.status,
      node(
        "div",
        { class: "bar" },
        button(text.fresh, () => {
          this.pause();
          this.begin(this.random(++this.draws));
          this.update();
        }),
        button(text.reset, () => {
          this.pause();
          this.begin(this.start);
          this.update();
        }),
      ),
    );
    return [node("div", { class: "layout" }, view, tune)];
  }

  slider(label, min, max, set) {
    const slider = node("input", {
      type: "range",
      min,
      max,
      step: 0.05,
      "aria-label": label,
      oninput: () => {
        set(+slider.value);
        this.update();
      },
    });
    return slider;
  }

  /** Normal weights, smaller biases: the same for the same number, whoever draws. */
  random(number) {
    let state = number * 2654435761;
    const uniform = () => {
      state = (state + 0x6d2b79f5) | 0;
      let t = Math.imul(state ^ (state >>> 15), 1 | state);
      t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
      return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
    };
    const normal = () =>
      Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform());
    const { units } = this;
    return Float64Array.from(this.start, (_, k) =>
      k === 4 * units ? 0 : normal() * (k >= 2 * units && k < 3 * units ? 0.5 : 1),
    );
  }

  /** The crease of the chosen neuron goes through the pointer: a matter of its bias alone. */
  drag(event) {
    this.pause();
    const box = this.overlay.getBoundingClientRect();
    const x = ((event.clientX - box.left) / box.width) * 2 * REACH - REACH;
    const y = REACH - ((event.clientY - box.top) / box.height) * 2 * REACH;
    const { units, neuron: j, parameters: p } = this;
    p[2 * units + j] = -(x * p[j] + y * p[units + j]);
    this.losses = [];
    this.record();
    this.update();
  }

  play() {
    // Read aloud only where it stops.
    this.status.setAttribute("aria-live", "off");
    this.button.textContent = this.text.pause;
    this.timer = setInterval(() => this.descend(4), 60);
  }

  pause() {
    if (!this.timer) return;
    clearInterval(this.timer);
    this.timer = null;
    this.button.textContent = this.text.play;
    this.status.removeAttribute("aria-live");
    this.say();
  }

  quit() {
    this.pause();
  }

  paint() {
    this.update();
  }

  say() {
    this.status.textContent = fill(this.text.status, {
      loss: this.number(this.now.loss, 3),
      right: this.now.right,
      count: this.sets[this.set].labels.length,
      steps: this.losses.length - 1,
    });
  }

  /** Where the line x w1 + y w2 + b = 0 crosses the square: two points, or none. */
  ends(w1, w2, b) {
    const found = [];
    for (const side of [-REACH, REACH]) {
      const y = -(side * w1 + b) / w2;
      if (Math.abs(y) <= REACH) found.push([side, y]);
      const x = -(side * w2 + b) / w1;
      if (Math.abs(x) < REACH) found.push([x, side]);
    }
    return found.length > 1 ? found.slice(0, 2) : [];
  }

  update() {
    if (!this.colors) return;
    const { text, colors, units, parameters: p, neuron, height } = this;

    // The shading, and the boundary between its cells.
    const at = (i) => -REACH + (2 * REACH * i) / CELLS;
    const corner = new Float64Array((CELLS + 1) ** 2);
    for (let row = 0; row <= CELLS; row++) {
      for (let column = 0; column <= CELLS; column++) {
        corner[row * (CELLS + 1) + column] = this.logit(p, at(column), -at(row));
      }
    }
    const shades = new Float64Array(CELLS ** 2);
    const edge = [];
    for (let row = 0; row < CELLS; row++) {
      for (let column = 0; column < CELLS; column++) {
        const first = row * (CELLS + 1) + column;
        const [a, b, c, d] = [first, first + 1, first + CELLS + 2, first + CELLS + 1].map(
          (k) => corner[k],
        );
        shades[row * CELLS + column] = 0.62 / (1 + Math.exp(-(a + b + c + d) / 4));
        const cuts = [];
        const between = (from, to, x0, y0, x1, y1) => {
          if (from > 0 === to > 0) return;
          const t = from / (from - to);
          cuts.push([column + x0 + t * (x1 - x0), row + y0 + t * (y1 - y0)]);
        };
        between(a, b, 0, 0, 1, 0);
        between(b, c, 1, 0, 1, 1);
        between(c, d, 1, 1, 0, 1);
        between(d, a, 0, 1, 0, 0);
        for (let k = 0; k + 1 < cuts.length; k += 2) {
          const [from, to] = [cuts[k], cuts[k + 1]].map((pair) =>
            pair.map((value) => ((value / CELLS) * SIDE).toFixed(1)).join(" "),
          );
          edge.push(`M${from}L${to}`);
        }
      }
    }
    picture(this.canvas, shades, CELLS, CELLS, { high: colors.gray, paper: colors.paper });
    this.edge.setAttribute("d", edge.join(""));
    this.level.setAttribute("d", `M0 ${py(height)}H${SIDE}`);

    this.creases.forEach(({ line, hit, name }, j) => {
      const ends = this.ends(p[j], p[units + j], p[2 * units + j]);
      const d = ends.length ? `M${ends.map(([x, y]) => `${px(x)} ${py(y)}`).join("L")}` : "";
      line.setAttribute("d", d);
      line.setAttribute("class", j === neuron ? "crease on" : "crease");
      hit.setAttribute("d", d);
      // Its number stands a little inside the square, at the end that lies higher.
      const [[x, y], [fx, fy]] = ends.length
        ? [...ends].sort((one, two) => two[1] - one[1])
        : [[0, -9], [0, -9]];
      const inward = 0.13 / Math.max(0.13, Math.hypot(fx - x, fy - y) / REACH);
      name.setAttribute("x", Math.min(SIDE - 8, Math.max(8, px(x + inward * (fx - x)))));
      name.setAttribute("y", Math.min(SIDE - 4, Math.max(14, py(y + inward * (fy - y)) + 4)));
      name.setAttribute("visibility", ends.length ? "visible" : "hidden");
    });

    const { points, labels } = this.sets[this.set];
    if (this.drawnSet !== this.set) {
      this.drawnSet = this.set;
      const dots = Array.from(labels, (label, i) =>
        drawn("circle", {
          class: label ? "one" : "none",
          cx: px(points[2 * i]).toFixed(1),
          cy: py(points[2 * i + 1]).toFixed(1),
          r: label ? 4.6 : 4,
        }),
      );
      this.dots.replaceChildren(...dots);
    }
    this.drawCut();

    for (const { slider, output, place_of } of this.rows) {
      const value = p[place_of()];
      slider.value = value;
      slider.setAttribute("aria-valuetext", this.number(value));
      output.textContent = this.number(value);
    }
    this.cutSlider.value = height;
    this.cutSlider.setAttribute("aria-valuetext", this.number(height));

    const { losses } = this;
    const last = Math.max(1, losses.length - 1);
    const top = losses.reduce((a, b) => Math.max(a, b), 0.8);
    const every = Math.ceil(losses.length / 400);
    const line = losses
      .map((loss, t) => [t, loss])
      .filter(([t]) => t % every === 0 || t === losses.length - 1)
      .map(([t, loss]) => `${((100 * t) / last).toFixed(2)} ${(TRACE * (1 - loss / top)).toFixed(2)}`);
    this.trace.setAttribute("viewBox", `0 0 100 ${TRACE}`);
    this.trace.replaceChildren(
      drawn("path", { class: "line", "vector-effect": "non-scaling-stroke", d: `M${line.join("L")}` }),
    );
    this.say();
  }

  /** The function along the dotted line: straight between its joints. */
  drawCut() {
    const { text, units, parameters: p, height } = this;
    const joints = [];
    for (let j = 0; j < units; j++) {
      const x = -(height * p[units + j] + p[2 * units + j]) / p[j];
      if (Math.abs(x) < REACH) joints.push(x);
    }
    const places = [-REACH, ...joints.sort((a, b) => a - b), REACH];
    const values = places.map((x) => this.logit(p, x, height));
    const top = values.reduce((a, b) => Math.max(a, Math.abs(b)), 1);
    const y = (value) => CUT / 2 - (value / top) * (CUT / 2 - 8);
    const line = places.map((x, i) => `${px(x).toFixed(1)} ${y(values[i]).toFixed(1)}`);
    this.cut.replaceChildren(
      drawn("path", { class: "zero", d: `M0 ${CUT / 2}H${SIDE}` }),
      drawn("path", { class: "line", d: `M${line.join("L")}` }),
      ...joints.map((x, i) =>
        drawn("circle", { class: "joint", cx: px(x), cy: y(values[i + 1]), r: 4 }),
      ),
      drawn("text", { x: 4, y: 13 }, this.number(top, 1)),
      drawn("text", { x: 4, y: CUT - 4 }, this.number(-top, 1)),
    );
    this.cut.setAttribute(
      "aria-label",
      fill(text.cut_picture, { height: this.number(height, 1) }),
    );
  }
}

customElements.define("trivium-neurons", NeuronsWidget);
