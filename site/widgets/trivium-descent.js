/**
 * <trivium-descent>: random tanh units fitted to a few points, and the error at every size.
 *
 * Data: positions [N] in [-1, 1] and their values [N]; caught, the places that are fitted; middles and
 * inclines [S, P] of S sets of features tanh(incline (x - middle)) / sqrt(p); widths, the numbers of
 * features to choose from; text.
 * `element.solve(width, set, penalty)` is the whole of it: the smallest weights that minimize the sum
 * of squared errors plus penalty times the sum of squared weights, and the errors that they make.
 */

import { Widget, button, drawn, fill, list, node, unpack } from "./trivium.js";

/** Singular values below this share of the largest count as zero. */
const CUT = 1e-9;
const PENALTIES = [0, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1];

const WIDTH = 330;
const HEIGHT = 250;
const LEFT = 40;
const RIGHT = 8;
const TOP = 10;
const BOTTOM = 36;

/** The values that the left plot spans, and the powers of ten of the right one. */
const LOWEST = -0.5;
const HIGHEST = 1.5;
const LOW = -3;
const HIGH = 2;

const dot = (a, b) => {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i] * b[i];
  return sum;
};

/**
 * Turns vectors into orthogonal ones, in place, by rotating pairs of them (one-sided Jacobi).
 *
 * @param {Float64Array[]} vectors m vectors
 * @returns {Float64Array[]} the m rows of the rotation Q: new vector i = sum over j of Q[i][j] old j
 */
function orthogonalize(vectors) {
  const turned = vectors.map((_, i) => Float64Array.from(vectors, (_, j) => (i === j ? 1 : 0)));
  const rotate = (rows, p, q, c, s) => {
    for (let i = 0; i < rows[p].length; i++) {
      const [a, b] = [rows[p][i], rows[q][i]];
      rows[p][i] = c * a - s * b;
      rows[q][i] = s * a + c * b;
    }
  };
  for (let sweep = 0; sweep < 60; sweep++) {
    let done = true;
    for (let p = 0; p < vectors.length; p++) {
      for (let q = p + 1; q < vectors.length; q++) {
        const across = dot(vectors[p], vectors[q]);
        const [pp, qq] = [dot(vectors[p], vectors[p]), dot(vectors[q], vectors[q])];
        if (Math.abs(across) <= 1e-15 * Math.sqrt(pp * qq)) continue;
        done = false;
        const zeta = (qq - pp) / (2 * across);
        const t = (zeta < 0 ? -1 : 1) / (Math.abs(zeta) + Math.hypot(1, zeta));
        const c = 1 / Math.hypot(1, t);
        rotate(vectors, p, q, c, c * t);
        rotate(turned, p, q, c, c * t);
      }
    }
    if (done) break;
  }
  return turned;
}

export class DescentWidget extends Widget {
  static text = {
    name: "A fit with as many features as you like",
    width: "Features",
    width_value: "{width} features",
    penalty: "Penalty on the weights",
    none: "none",
    other: "Draw other features",
    back: "One size down",
    forward: "One size up",
    fit: "The fitted curve",
    fit_picture: "{caught} points that are fitted, {rest} that are not, and the curve of {width} features",
    errors: "Error at every size",
    errors_picture: "Error on fitted and on other points against the number of features, both logarithmic",
    fitted: "fitted",
    others: "others",
    place: "place",
    status:
      "{width} features for {caught} points: error {train} on these, {test} on the others; length of the weights {length}.",
    key: "Filled points are fitted, hollow ones are not. The vertical line marks as many features as points.",
  };

  static style = `
    .layout { display: grid; gap: 12px 20px; grid-template-columns: minmax(0, 1fr); }
    .controls { display: grid; gap: 8px 20px; grid-template-columns: minmax(0, 1fr); }
    .control label { display: grid; grid-template-columns: 1fr auto; gap: 0 8px; }
    .control label input { grid-column: 1 / -1; width: 100%; accent-color: var(--muted); }
    .control output { font-variant-numeric: tabular-nums; color: var(--muted); }
    svg { display: block; width: 100%; height: auto; overflow: visible; }
    svg text { font-size: 12px; fill: var(--muted); }
    svg .small { font-size: 9px; }
    svg .axis { stroke: var(--grid); fill: none; }
    svg .mark { stroke: var(--muted); stroke-dasharray: 2 3; }
    svg .line { fill: none; stroke: var(--ink); stroke-width: 2; }
    svg .train { stroke: var(--muted); stroke-dasharray: 5 4; }
    svg .now { fill: var(--ink); }
    svg .seen { fill: var(--ink); }
    svg .unseen { fill: var(--paper); stroke: var(--muted); stroke-width: 1.5; }
    [role="status"] { min-height: 4.1em; }
    sup { line-height: 0; }
    @container (min-width: 580px) {
      .layout, .controls { grid-template-columns: repeat(2, minmax(0, 1fr)); }
      .whole { grid-column: 1 / -1; }
      [role="status"] { min-height: 2.7em; }
    }
  `;

  load(data) {
    this.positions = Float64Array.from(list(data.positions, "positions"));
    this.values = Float64Array.from(list(data.values, "values"));
    this.caught = list(data.caught, "caught");
    const middles = unpack(data.middles, "middles", [null, null]);
    const inclines = unpack(data.inclines, "inclines", middles.shape);
    [this.sets, this.largest] = middles.shape;
    this.middles = middles.values;
    this.inclines = inclines.values;
    this.widths = list(data.widths, "widths");
    if (Math.max(...this.widths) > this.largest) {
      throw new Error(`widths: expected at most ${this.largest} features`);
    }
    const caught = new Set(this.caught);
    this.rest = Array.from(this.positions, (_, i) => i).filter((i) => !caught.has(i));
    this.set = 0;
    this.penalty = 0;
    this.place = this.widths.indexOf(this.caught.length);
    if (this.place < 0) throw new Error("widths: expected one equal to the number of fitted points");
    this.compute();
  }

  /** The features of one position: [width]. */
  features(x, width, set) {
    const from = set * this.largest;
    const scale = 1 / Math.sqrt(width);
    return Float64Array.from(
      { length: width },
      (_, j) => Math.tanh(this.inclines[from + j] * (x - this.middles[from + j])) * scale,
    );
  }

  /**
   * @param {number} width number of features
   * @param {number} [set] which set of them
   * @param {number} [penalty] what the sum of squared weights counts for
   * @returns {{weights: Float64Array, train: number, test: number, length: number}} errors are roots
   *     of mean squares over the fitted and over the other positions
   */
  solve(width, set = 0, penalty = 0) {
    const rows = this.caught.map((i) => this.features(this.positions[i], width, set));
    const y = Float64Array.from(this.caught, (i) => this.values[i]);
    const weights = new Float64Array(width);
    const wide = width > rows.length;
    const vectors = wide
      ? rows
      : Array.from({ length: width }, (_, j) => Float64Array.from(rows, (row) => row[j]));
    const turned = orthogonalize(vectors);
    // Wide: vector i is s v and row i of the rotation u; else vector i is s u and row i of it v.
    const sizes = vectors.map((vector) => Math.sqrt(dot(vector, vector)));
    const least = CUT * Math.max(...sizes);
    vectors.forEach((vector, i) => {
      const s = sizes[i];
      if (!(s > least)) return;
      const along = wide ? dot(turned[i], y) : dot(vector, y) / s;
      const part = (s / (s * s + penalty)) * along;
      for (let j = 0; j < width; j++) {
        weights[j] += part * (wide ? vector[j] / s : turned[i][j]);
      }
    });
    const error = (places) => {
      const squares = places.map((i) => {
        const fit = dot(this.features(this.positions[i], width, set), weights);
        return (fit - this.values[i]) ** 2;
      });
      return Math.sqrt(squares.reduce((a, b) => a + b, 0) / places.length);
    };
    return {
      weights,
      train: error(this.caught),
      test: error(this.rest),
      length: Math.sqrt(dot(weights, weights)),
    };
  }

  compute() {
    this.solutions = this.widths.map((width) => this.solve(width, this.set, this.penalty));
  }

  build() {
    const { text } = this;
    const control = (name, range, change) => {
      const output = node("output");
      const input = node("input", { type: "range", ...range, oninput: () => change(+input.value) });
      const made = node(
        "div",
        { class: "control" },
        node("label", {}, node("span", {}, name), output, input),
      );
      return { made, input, output };
    };
    this.widthControl = control(
      text.width,
      { min: 0, max: this.widths.length - 1, value: this.place, "aria-label": text.width },
      (place) => this.go(place),
    );
    this.penaltyControl = control(
      text.penalty,
      { min: 0, max: PENALTIES.length - 1, value: 0, "aria-label": text.penalty },
      (index) => {
        this.penalty = PENALTIES[index];
        this.compute();
        this.update();
      },
    );
    const buttons = node(
      "div",
      { class: "bar whole" },
      button(text.back, () => this.go(this.place - 1), { show: "←" }),
      button(text.forward, () => this.go(this.place + 1), { show: "→" }),
      button(text.other, () => {
        this.set = (this.set + 1) % this.sets;
        this.compute();
        this.update();
      }),
    );
    const box = { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img" };
    this.fit = drawn("svg", box);
    this.errors = drawn("svg", box);
    this.status = node("p", { role: "status", class: "whole" });
    return [
      node(
        "div",
        { class: "layout" },
        node(
          "div",
          { class: "controls whole" },
          this.widthControl.made,
          this.penaltyControl.made,
          buttons,
        ),
        node("div", {}, node("h3", {}, text.fit), this.fit),
        node("div", {}, node("h3", {}, text.errors), this.errors),
        this.status,
        node("p", { class: "note whole" }, text.key),
      ),
    ];
  }

  go(place) {
    this.place = Math.max(0, Math.min(this.widths.length - 1, place));
    this.update();
  }

  paint() {
    this.update();
  }

  update() {
    if (!this.colors) return;
    const { text, place } = this;
    const width = this.widths[place];
    const solution = this.solutions[place];
    const say = ({ input, output }, value, shown) => {
      input.value = value;
      input.setAttribute("aria-valuetext", shown);
      output.textContent = shown;
    };
    say(this.widthControl, place, fill(text.width_value, { width }));
    const power = Math.round(Math.log10(this.penalty));
    const shown = this.penalty ? this.number(this.penalty, Math.max(0, -power)) : text.none;
    say(this.penaltyControl, PENALTIES.indexOf(this.penalty), shown);
    const size = (value) => this.number(value, value < 0.0995 ? 3 : value < 99.5 ? 2 : 0);
    this.status.textContent = fill(text.status, {
      width,
      caught: this.caught.length,
      train: size(solution.train),
      test: size(solution.test),
      length: size(solution.length),
    });
    this.drawFit(width, solution);
    this.drawErrors();
  }

  drawFit(width, { weights }) {
    const { text } = this;
    const x = (value) => LEFT + ((value + 1) / 2) * (WIDTH - LEFT - RIGHT);
    const y = (value) =>
      TOP + ((HIGHEST - value) / (HIGHEST - LOWEST)) * (HEIGHT - TOP - BOTTOM);
    const parts = [];
    for (let value = LOWEST; value <= HIGHEST; value += 0.5) {
      parts.push(
        drawn("path", { class: "axis", d: `M${LEFT} ${y(value)}H${WIDTH - RIGHT}` }),
        drawn("text", { x: LEFT - 6, y: y(value) + 4, "text-anchor": "end" }, this.number(value, 1)),
      );
    }
    const limit = (value) => Math.max(LOWEST - 0.08, Math.min(HIGHEST + 0.04, value));
    let path = "";
    for (let i = 0; i <= 400; i++) {
      const at = -1 + i / 200;
      const value = dot(this.features(at, width, this.set), weights);
      path += `${i ? "L" : "M"}${x(at).toFixed(1)} ${y(limit(value)).toFixed(1)}`;
    }
    parts.push(drawn("path", { class: "line", d: path }));
    const dots = (places, kind) =>
      places.map((i) =>
        drawn("circle", {
          class: kind,
          cx: x(this.positions[i]),
          cy: y(this.values[i]),
          r: kind === "seen" ? 4 : 3.5,
        }),
      );
    parts.push(...dots(this.rest, "unseen"), ...dots(this.caught, "seen"));
    parts.push(
      drawn("text", { x: (LEFT + WIDTH - RIGHT) / 2, y: HEIGHT - 6, "text-anchor": "middle" }, text.place),
    );
    this.fit.replaceChildren(...parts);
    const counts = { caught: this.caught.length, rest: this.rest.length, width };
    this.fit.setAttribute("aria-label", fill(text.fit_picture, counts));
  }

  drawErrors() {
    const { text, widths } = this;
    const last = Math.log(widths.at(-1));
    const x = (width) => LEFT + (Math.log(width) / last) * (WIDTH - LEFT - RIGHT);
    const y = (value) => {
      const power = Math.max(LOW, Math.min(HIGH, Math.log10(Math.max(value, 1e-12))));
      return TOP + ((HIGH - power) / (HIGH - LOW)) * (HEIGHT - TOP - BOTTOM);
    };
    const parts = [];
    for (let power = LOW; power <= HIGH; power++) {
      const at = y(10 ** power);
      parts.push(
        drawn("path", { class: "axis", d: `M${LEFT} ${at}H${WIDTH - RIGHT}` }),
        drawn(
          "text",
          { x: LEFT - 6, y: at + 4, "text-anchor": "end" },
          "10",
          drawn("tspan", { class: "small", dy: -5 }, String(power).replace("-", "−")),
        ),
      );
    }
    const base = HEIGHT - BOTTOM;
    for (const width of [1, 3, 10, 30, 100, 300].filter((each) => each <= widths.at(-1))) {
      parts.push(drawn("text", { x: x(width), y: base + 15, "text-anchor": "middle" }, String(width)));
    }
    parts.push(
      drawn("text", { x: (LEFT + WIDTH - RIGHT) / 2, y: HEIGHT - 6, "text-anchor": "middle" }, text.width),
    );
    parts.push(drawn("path", { class: "mark", d: `M${x(this.caught.length)} ${TOP}V${base}` }));
    for (const name of ["train", "test"]) {
      const points = widths.map(
        (width, i) => `${x(width).toFixed(1)} ${y(this.solutions[i][name]).toFixed(1)}`,
      );
      parts.push(drawn("path", { class: `line ${name}`, d: `M${points.join("L")}` }));
    }
    const now = this.solutions[this.place];
    for (const value of [now.train, now.test]) {
      parts.push(drawn("circle", { class: "now", cx: x(widths[this.place]), cy: y(value), r: 4.5 }));
    }
    parts.push(
      drawn("path", { class: "line", d: `M${LEFT + 8} ${base - 26}h22` }),
      drawn("text", { x: LEFT + 36, y: base - 22 }, text.others),
      drawn("path", { class: "line train", d: `M${LEFT + 8} ${base - 10}h22` }),
      drawn("text", { x: LEFT + 36, y: base - 6 }, text.fitted),
    );
    this.errors.replaceChildren(...parts);
    this.errors.setAttribute("aria-label", text.errors_picture);
  }
}

customElements.define("trivium-descent", DescentWidget);
