/**
 * <trivium-quantize>: a weight matrix rounded to a few bits, and what that costs.
 *
 * Data: weights (float32 [D, F]), bits (list), groups (rows that share a step in a column; 0: one
 * step for the whole matrix), accuracy ([groups][bits], of the whole network rounded that way),
 * base (its accuracy in float32), text. `element.rounded(bits, group)` gives the rounded matrix,
 * its steps and its error.
 */

import { Widget, choice, drawn, fill, list, node, picture, unpack } from "./trivium.js";

const HEIGHT = 190;
const BINS = 81;
const MARGIN = { left: 8, right: 8, bottom: 22 };

/** To the nearest whole number, halves to the even one, as NumPy and JAX round. */
export function nearest(value) {
  const low = Math.floor(value);
  const rest = value - low;
  if (rest !== 0.5) return rest < 0.5 ? low : low + 1;
  return low % 2 === 0 ? low : low + 1;
}

export class QuantizeWidget extends Widget {
  static family = "none";

  static text = {
    name: "Weights rounded to a few bits",
    bits: "Bits",
    bits_option: "{bits} bits",
    sharing: "One step for",
    matrix: "the matrix",
    column: "a column",
    group: "{rows} of a column",
    histogram: "The weights, before (filled) and after (lines)",
    histogram_picture: "{levels} different values after rounding, {before} before",
    error: "The error at each weight: rows are inputs, columns outputs",
    error_picture: "Picture of the errors; the largest is {largest}",
    status:
      "{bits} bits, one step for {sharing}: {cost} bits a weight with the steps, {kilobytes} kB instead of {before} kB. " +
      "Error {error} of the weights' size. The whole network, rounded so, answers {accuracy} right; in float32 {base}.",
  };

  static style = `
    .layout { display: grid; gap: 10px; grid-template-columns: minmax(0, 1fr); }
    .pick { display: grid; gap: 4px; }
    .pick .segments { display: grid; grid-template-columns: repeat(var(--count), minmax(0, 1fr)); }
    .pick .segments span { padding: 2px; font-size: 0.8125rem; text-align: center; height: 100%; }
    .segments input:checked + span { background: var(--ink); border-color: var(--ink); }
    .chart { display: block; width: 100%; height: ${HEIGHT}px; overflow: visible; }
    .chart text { font-size: 12px; fill: var(--muted); }
    .chart .before { fill: var(--grid); }
    .chart .after { stroke: var(--ink); stroke-width: 1.5; fill: none; }
    .chart .axis { stroke: var(--gray); fill: none; }
    .error canvas { width: 100%; height: 130px; box-shadow: 0 0 0 1px var(--grid); margin-top: 4px; }
    [role="status"] { min-height: 8.2em; }
    @container (min-width: 580px) {
      .picks { display: grid; gap: 16px; grid-template-columns: repeat(2, minmax(0, 1fr)); }
      [role="status"] { min-height: 4.1em; }
    }
    .picks { display: grid; gap: 8px 16px; }
  `;

  load(data) {
    const { shape, values } = unpack(data.weights, "weights", [null, null]);
    [this.rows, this.columns] = shape;
    this.weights = values;
    this.bits = list(data.bits, "bits");
    this.groups = list(data.groups, "groups");
    this.accuracy = data.accuracy;
    this.base = data.base;
    if (
      this.accuracy.length !== this.groups.length ||
      this.accuracy.some((row) => row.length !== this.bits.length)
    ) {
      throw new Error("accuracy: expected a row a group and a column a number of bits");
    }
    for (const group of this.groups) {
      if (group && this.rows % group) throw new Error(`groups: ${group} does not divide ${this.rows}`);
    }
    this.bit = Math.max(0, this.bits.indexOf(4));
    this.share = 0;
  }

  /**
   * The matrix as `trivium.kernels.quantize` and `dequantize` round it.
   *
   * @param {number} bits
   * @param {number} group rows of a column that share a step; 0: one step for all
   * @returns {{values: Float32Array, steps: number, error: number, largest: number}} error: root
   *     mean square over that of the weights
   */
  rounded(bits, group) {
    const { weights, rows, columns } = this;
    const top = 2 ** (bits - 1) - 1;
    const values = new Float32Array(weights.length);
    const height = group || rows;
    const blocks = rows / height;
    const size = (from, column) => {
      let largest = 0;
      for (let row = from; row < from + height; row++) {
        largest = Math.max(largest, Math.abs(weights[row * columns + column]));
      }
      return largest;
    };
    const whole = weights.reduce((a, b) => Math.max(a, Math.abs(b)), 0);
    for (let block = 0; block < blocks; block++) {
      for (let column = 0; column < columns; column++) {
        const from = block * height;
        const step = Math.fround((group ? size(from, column) : whole) / top);
        for (let row = from; row < from + height; row++) {
          const at = row * columns + column;
          const code = step ? nearest(Math.fround(weights[at] / step)) : 0;
          values[at] = Math.max(-top, Math.min(top, code)) * step;
        }
      }
    }
    let [squares, errors, largest] = [0, 0, 0];
    weights.forEach((weight, i) => {
      const off = values[i] - weight;
      squares += weight * weight;
      errors += off * off;
      largest = Math.max(largest, Math.abs(off));
    });
    const steps = group ? blocks * columns : 1;
    return { values, steps, error: Math.sqrt(errors / squares), largest };
  }

  sharing(index) {
    const group = this.groups[index];
    if (!group) return this.text.matrix;
    return group === this.rows ? this.text.column : fill(this.text.group, { rows: group });
  }

  build() {
    const { text } = this;
    const pick = (name, labels, chosen, choose) => {
      const group = choice(name, labels, choose, { chosen });
      group.style.setProperty("--count", labels.length);
      return node("div", { class: "pick" }, node("h3", {}, name), group);
    };
    const bits = pick(
      text.bits,
      this.bits.map((each) => ({ label: fill(text.bits_option, { bits: each }), show: String(each) })),
      this.bit,
      (index) => {
        this.bit = index;
        this.update();
      },
    );
    const share = pick(
      text.sharing,
      this.groups.map((_, i) => ({ label: this.sharing(i) })),
      this.share,
      (index) => {
        this.share = index;
        this.update();
      },
    );
    bits.classList.add("bits");
    share.classList.add("sharing");
    this.chart = drawn("svg", { class: "chart", role: "img" });
    new ResizeObserver(() => this.draw()).observe(this.chart);
    this.canvas = node("canvas", { role: "img" });
    this.status = node("p", { role: "status" });
    return [
      node(
        "div",
        { class: "layout" },
        node("div", { class: "picks" }, bits, share),
        node("div", {}, node("h3", {}, text.histogram), this.chart),
        node("div", { class: "error" }, node("h3", {}, text.error), this.canvas),
        this.status,
      ),
    ];
  }

  paint() {
    this.update();
  }

  update() {
    if (!this.colors) return;
    const { text, rows, columns, weights } = this;
    const bits = this.bits[this.bit];
    this.now = this.rounded(bits, this.groups[this.share]);
    const errors = new Float32Array(weights.length);
    // Lying down: inputs run to the right.
    for (let row = 0; row < rows; row++) {
      for (let column = 0; column < columns; column++) {
        const at = row * columns + column;
        errors[column * rows + row] = this.now.values[at] - weights[at];
      }
    }
    const colors = { high: this.colors.ink, low: this.colors.gray, paper: this.colors.paper };
    // One scale for all choices, so that the pictures can be compared: the largest weight's tenth.
    const full = weights.reduce((a, b) => Math.max(a, Math.abs(b)), 0) / 10;
    picture(this.canvas, errors, columns, rows, colors, full);
    const largest = this.number(this.now.largest, 3);
    this.canvas.setAttribute("aria-label", fill(text.error_picture, { largest }));
    const total = bits * weights.length + 32 * this.now.steps;
    this.status.textContent = fill(text.status, {
      bits,
      sharing: this.sharing(this.share),
      cost: this.number(total / weights.length, 2),
      kilobytes: this.number(total / 8000, 2),
      before: this.number((4 * weights.length) / 1000, 2),
      error: this.exact(this.now.error),
      accuracy: this.exact(this.accuracy[this.share][this.bit]),
      base: this.exact(this.base),
    });
    this.draw();
  }

  /** A share as a percentage with one digit after the point. */
  exact(value) {
    const format = { style: "percent", minimumFractionDigits: 1, maximumFractionDigits: 1 };
    return new Intl.NumberFormat(this.language, format).format(value);
  }

  draw() {
    if (!this.now || !this.chart.clientWidth) return;
    const { text, weights } = this;
    const width = this.chart.clientWidth;
    const bottom = HEIGHT - MARGIN.bottom;
    const top = weights.reduce((a, b) => Math.max(a, Math.abs(b)), 0);
    const x = (value) => MARGIN.left + ((value / top + 1) / 2) * (width - MARGIN.left - MARGIN.right);
    const count = (values) => {
      const bins = new Float64Array(BINS);
      for (const value of values) {
        bins[Math.min(BINS - 1, Math.floor(((value / top + 1) / 2) * BINS))]++;
      }
      return bins;
    };
    const before = count(weights);
    const after = count(this.now.values);
    // By square roots, or the level at zero would hide all the others at few bits.
    const high = Math.sqrt(Math.max(...before, ...after));
    const y = (value) => bottom - (Math.sqrt(value) / high) * (bottom - 4);
    const at = (bin) => x(((2 * bin) / BINS - 1) * top);
    const parts = [];
    before.forEach((value, bin) => {
      if (!value) return;
      const box = { x: at(bin), width: at(bin + 1) - at(bin), y: y(value), height: bottom - y(value) };
      parts.push(drawn("rect", { class: "before", ...box }));
    });
    after.forEach((value, bin) => {
      if (!value) return;
      parts.push(drawn("path", { class: "after", d: `M${at(bin + 0.5)} ${bottom}V${y(value)}` }));
    });
    parts.push(drawn("path", { class: "axis", d: `M${MARGIN.left} ${bottom}H${width - MARGIN.right}` }));
    for (const [value, anchor] of [
      [-top, "start"],
      [0, "middle"],
      [top, "end"],
    ]) {
      const place = { x: x(value), y: HEIGHT - 5, "text-anchor": anchor };
      parts.push(drawn("text", place, this.number(value, value ? 2 : 0)));
    }
    this.chart.replaceChildren(...parts);
    const levels = new Set(this.now.values).size;
    const words = { levels: this.number(levels, 0), before: this.number(new Set(weights).size, 0) };
    this.chart.setAttribute("aria-label", fill(text.histogram_picture, words));
  }
}

customElements.define("trivium-quantize", QuantizeWidget);
