/**
 * <trivium-filter>: one 3 x 3 filter over a picture, its weights in the reader's hands.
 *
 * Data: pictures (a list of uint8 [H, W], 0 black, 255 white), learned float32 [F, 3, 3] (filters
 * that a network has found), text. `element.forward(values, rows, columns, weights, options)` is the
 * convolution: a cross-correlation with stride, dilation and padding by zeros, as in every library.
 */

import {
  Widget,
  arrows,
  button,
  choice,
  css,
  fill,
  node,
  picture,
  readable,
  shade,
  unpack,
} from "./trivium.js";

/** Filters written by hand, and whether their sums are shown as a picture or with their sign. */
const PRESETS = {
  identity: [[0, 0, 0, 0, 1, 0, 0, 0, 0], "tones"],
  blur: [Array(9).fill(1 / 9), "tones"],
  rows: [[1, 1, 1, 0, 0, 0, -1, -1, -1], "signed"],
  columns: [[1, 0, -1, 1, 0, -1, 1, 0, -1], "signed"],
  outline: [[-1, -1, -1, -1, 8, -1, -1, -1, -1], "signed"],
  sharpen: [[0, -1, 0, -1, 5, -1, 0, -1, 0], "tones"],
  emboss: [[-2, -1, 0, -1, 1, 1, 0, 1, 2], "tones"],
  shift: [[0, 0, 0, 0, 0, 1, 0, 0, 0], "tones"],
};
const START = "rows";

const BLACK = [0, 0, 0];
const WHITE = [255, 255, 255];

export class FilterWidget extends Widget {
  static family = "convolution";

  static text = {
    name: "A filter over a picture",
    pictures: "Picture",
    photo: "Photograph",
    garment: "Garment",
    preset: "Filter",
    identity: "identity",
    blur: "blur",
    rows: "edges between rows",
    columns: "edges between columns",
    outline: "outline",
    sharpen: "sharpen",
    emboss: "emboss",
    shift: "shift to the left",
    learned: "learned {number}",
    own: "your own",
    mirror: "Turn by half",
    stride: "Stride",
    dilation: "Dilation",
    padding: "Padding",
    option: "{name} {value}",
    tones: "Tones",
    signed: "Signs",
    show: "Show the sums as",
    input: "Picture, {rows} × {columns}",
    output: "Map, {rows} × {columns}",
    canvas: "Picture; arrow keys move the window",
    map: "Map; arrow keys move the place",
    window: "window",
    weights: "weights",
    products: "products",
    weight: "Weight in row {row}, column {column}",
    sum: "Place ({row}, {column}): the nine products add up to {sum}.",
    cursor: "Row {row}, column {column}: {sum}",
    size:
      "Rows: ⌊({size} + 2·{padding} − {dilation}·(3 − 1) − 1) / {stride}⌋ + 1 = {rows}. " +
      "Columns, likewise: {columns}.",
    hint: "Point, touch, or use the arrow keys on either picture. Dark border: padding, read as zero.",
  };

  static style = `
    .layout { display: grid; gap: 10px 16px; grid-template-columns: minmax(0, 1fr);
      grid-template-areas: "choose" "options" "picture" "map" "sums"; }
    .choose { grid-area: choose; } .options { grid-area: options; }
    .sums { grid-area: sums; display: grid; gap: 8px; align-content: start; }
    .options label.name { display: flex; }
    .options > div { display: flex; gap: 6px; align-items: center; }
    select { max-width: 210px; }
    figure { margin: 0; min-width: 0; }
    .picture { grid-area: picture; } .map { grid-area: map; }
    .stage { --high: calc(min(100cqi - 26px, 345px) * 2 / 3); height: var(--high); margin-top: 4px;
      background: var(--grid); display: grid; place-items: center; }
    .pad { position: relative; height: 100%; }
    .pad canvas { width: 100%; height: 100%; touch-action: pan-y; cursor: crosshair; }
    .mark { position: absolute; pointer-events: none; border: 2px solid var(--family);
      box-shadow: 0 0 0 1px var(--paper), inset 0 0 0 1px var(--paper); }
    .tap { position: absolute; pointer-events: none; background: var(--family); }
    .spot { position: absolute; pointer-events: none; outline: 2px solid var(--ink);
      outline-offset: 2px; box-shadow: 0 0 0 2px var(--paper); }
    .tables { display: grid; grid-template-columns: repeat(5, auto); gap: 2px 6px;
      justify-content: start; align-items: center; }
    .cells { display: grid; grid-template-columns: repeat(3, 32px);
      box-shadow: 0 0 0 1px var(--grid); }
    .cells > * { height: 32px; width: 32px; min-width: 0; display: grid; place-items: center;
      font-size: 0.6875rem; font-variant-numeric: tabular-nums; }
    .cells input { font: inherit; font-size: 0.6875rem; text-align: center; padding: 0; margin: 0;
      border: 1px solid var(--gray); border-radius: 0; background: var(--paper);
      color: var(--ink); appearance: textfield; -moz-appearance: textfield; }
    .cells input::-webkit-inner-spin-button { display: none; }
    .tables .note { text-align: center; font-size: 0.75rem; }
    .sum { font-variant-numeric: tabular-nums; }
    .sums [role="status"] { min-height: 2.7em; }
    .sums .hint { min-height: 2.7em; }
    @container (max-width: 355px) {
      .tables { gap: 2px 3px; }
      .tables > span[aria-hidden] { display: none; }
      .tables { grid-template-columns: repeat(3, auto); }
      .tables > span:empty { display: none; }
      .cells { grid-template-columns: repeat(3, auto); }
      .cells > span { width: 28px; }
    }
    @container (min-width: 580px) {
      .layout { grid-template-columns: repeat(2, minmax(0, 1fr));
        grid-template-areas: "choose choose" "options options" "picture map" "sums sums"; }
      .stage { --high: calc((min(100cqi, 760px) - 42px) / 3); }
      .sums { grid-template-columns: auto minmax(0, 1fr); gap: 8px 20px; }
    }
  `;

  load(data) {
    if (!Array.isArray(data.pictures)) throw new Error("pictures: expected a list");
    this.pictures = data.pictures.map((packed, i) => {
      const { shape, values } = unpack(packed, `pictures[${i}]`, [null, null]);
      return {
        rows: shape[0],
        columns: shape[1],
        values: Float32Array.from(values, (value) => value / 255),
      };
    });
    const learned = unpack(data.learned, "learned", [null, 3, 3]);
    this.filters = Object.entries(PRESETS).map(([name, [weights, mode]]) => ({
      name: this.text[name],
      weights,
      mode,
    }));
    for (let f = 0; f < learned.shape[0]; f++) {
      this.filters.push({
        name: fill(this.text.learned, { number: f + 1 }),
        weights: Array.from(learned.values.subarray(9 * f, 9 * f + 9)),
        mode: "signed",
      });
    }
    this.preset = Object.keys(PRESETS).indexOf(START);
    this.weights = [...this.filters[this.preset].weights];
    this.mode = this.filters[this.preset].mode;
    this.options = { stride: 1, dilation: 1, padding: 1 };
    this.chosen = this.pictures[0];
    this.row = Math.floor(this.chosen.rows / 2);
    this.column = Math.floor(this.chosen.columns / 2);
  }

  /**
   * The sums of one filter at every place, in double precision.
   *
   * @param {ArrayLike<number>} values row by row
   * @param {number} rows
   * @param {number} columns
   * @param {number[]} weights nine, row by row
   * @param {{stride: number, dilation: number, padding: number}} options
   * @returns {{rows: number, columns: number, values: Float32Array}}
   */
  forward(values, rows, columns, weights, { stride, dilation, padding }) {
    const fit = (size) => Math.floor((size + 2 * padding - 2 * dilation - 1) / stride) + 1;
    const [height, width] = [fit(rows), fit(columns)];
    const sums = new Float32Array(height * width);
    for (let m = 0; m < height; m++) {
      for (let n = 0; n < width; n++) {
        let sum = 0;
        for (let tap = 0; tap < 9; tap++) {
          const u = m * stride + dilation * Math.floor(tap / 3) - padding;
          const v = n * stride + dilation * (tap % 3) - padding;
          if (u < 0 || v < 0 || u >= rows || v >= columns) continue;
          sum += weights[tap] * values[u * columns + v];
        }
        sums[m * width + n] = sum;
      }
    }
    return { rows: height, columns: width, values: sums };
  }

  build() {
    const { text } = this;
    const pictures = choice(text.pictures, [{ label: text.photo }, { label: text.garment }], (i) => {
      this.chosen = this.pictures[i];
      this.row = this.column = -1;
      this.compute();
    });
    this.select = node(
      "select",
      {
        "aria-label": text.preset,
        onchange: () => this.pick(+this.select.value),
      },
      ...this.filters.map(({ name }, i) => node("option", { value: i }, name)),
    );
    this.own = node("option", { value: -1, hidden: true }, text.own);
    this.select.append(this.own);
    this.select.value = this.preset;
    const mirror = button(text.mirror, () => this.edit([...this.weights].reverse()));
    this.modes = choice(
      text.show,
      [{ label: text.tones }, { label: text.signed }],
      (i) => {
        this.mode = ["tones", "signed"][i];
        this.paint();
      },
      { chosen: this.mode === "tones" ? 0 : 1 },
    );
    const choose = node("div", { class: "bar choose" }, pictures, this.select, mirror, this.modes);

    const option = (name, values) =>
      node(
        "div",
        {},
        node("span", { "aria-hidden": "true" }, text[name]),
        choice(
          text[name],
          values.map((value) => ({
            label: fill(text.option, { name: text[name], value }),
            show: `${value}`,
          })),
          (i) => {
            this.options = { ...this.options, [name]: values[i] };
            this.compute();
          },
          { chosen: values.indexOf(this.options[name]) },
        ),
      );
    const options = node(
      "div",
      { class: "bar options" },
      option("stride", [1, 2, 3]),
      option("dilation", [1, 2, 3]),
      option("padding", [0, 1, 2]),
    );

    const canvas = (label, onmap) =>
      node("canvas", {
        tabindex: 0,
        role: "application",
        "aria-label": label,
        "aria-describedby": "hint",
        onpointerdown: (event) => this.point(event, onmap),
        onpointermove: (event) => this.point(event, onmap),
        onkeydown: (event) => this.key(event),
      });
    this.canvas = canvas(text.canvas, false);
    this.map = canvas(text.map, true);
    this.field = node("span", { class: "mark" });
    this.taps = Array.from({ length: 9 }, () => node("span", { class: "tap" }));
    this.spot = node("span", { class: "spot" });
    this.pad = node("div", { class: "pad" }, this.canvas, ...this.taps, this.field);
    this.mapPad = node("div", { class: "pad" }, this.map, this.spot);
    this.titles = [node("h3"), node("h3")];
    const shown = (name, title, pad) =>
      node("figure", { class: name }, title, node("div", { class: "stage" }, pad));

    this.pixels = Array.from({ length: 9 }, () => node("span"));
    this.products = Array.from({ length: 9 }, () => node("span"));
    this.inputs = Array.from({ length: 9 }, (_, tap) =>
      node("input", {
        type: "number",
        step: "any",
        "aria-label": fill(text.weight, { row: Math.floor(tap / 3) + 1, column: (tap % 3) + 1 }),
        oninput: () => {
          const value = this.inputs[tap].valueAsNumber;
          if (!Number.isFinite(value)) return;
          const weights = [...this.weights];
          weights[tap] = Math.max(-99, Math.min(99, value));
          this.edit(weights, false);
        },
        onchange: () => this.write(),
      }),
    );
    const cells = (parts) => node("div", { class: "cells" }, ...parts);
    const sign = (letter) => node("span", { "aria-hidden": "true" }, letter);
    const tables = node(
      "div",
      { class: "tables" },
      cells(this.weights.map((_, tap) => this.inputs[tap])),
      sign("×"),
      cells(this.pixels),
      sign("="),
      cells(this.products),
      node("span", { class: "note" }, text.weights),
      node("span"),
      node("span", { class: "note" }, text.window),
      node("span"),
      node("span", { class: "note" }, text.products),
    );
    this.sum = node("p", { class: "sum" });
    this.size = node("p", { role: "status" });
    this.spoken = node("p", { class: "unseen", "aria-live": "polite" });
    const words = node(
      "div",
      {},
      this.sum,
      this.size,
      node("p", { class: "note hint", id: "hint" }, text.hint),
      this.spoken,
    );
    this.compute(false);
    this.write();
    return [
      node(
        "div",
        { class: "layout" },
        choose,
        options,
        shown("picture", this.titles[0], this.pad),
        shown("map", this.titles[1], this.mapPad),
        node("div", { class: "sums" }, tables, words),
      ),
    ];
  }

  /** Take a filter from the list. */
  pick(index) {
    this.preset = index;
    const { weights, mode } = this.filters[index];
    this.weights = [...weights];
    this.mode = mode;
    this.modes.inputs[mode === "tones" ? 0 : 1].checked = true;
    this.compute();
    this.write();
  }

  /** Take weights of the reader's own. */
  edit(weights, write = true) {
    this.weights = weights;
    this.select.value = -1;
    this.compute();
    if (write) this.write();
  }

  /** Put the weights into their fields. */
  write() {
    this.inputs.forEach((input, tap) => {
      input.value = +this.weights[tap].toFixed(2);
    });
  }

  compute(paint = true) {
    const { chosen, text, options } = this;
    this.result = this.forward(chosen.values, chosen.rows, chosen.columns, this.weights, options);
    const { rows, columns } = this.result;
    if (this.row < 0) {
      this.row = Math.floor(rows / 2);
      this.column = Math.floor(columns / 2);
    }
    this.move(this.row, this.column);
    this.titles[0].textContent = fill(text.input, chosen);
    this.titles[1].textContent = fill(text.output, this.result);
    const said = fill(text.size, { ...options, size: chosen.rows, rows, columns });
    if (this.size.textContent !== said) this.size.textContent = said;
    if (paint) this.paint();
  }

  move(row, column) {
    this.row = Math.max(0, Math.min(this.result.rows - 1, row));
    this.column = Math.max(0, Math.min(this.result.columns - 1, column));
  }

  /** Move the window to where the pointer is, on the picture (its middle) or on the map. */
  point(event, onmap) {
    const box = event.currentTarget.getBoundingClientRect();
    const [x, y] = [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
    const { stride, dilation, padding } = this.options;
    if (onmap) {
      this.move(Math.floor(y * this.result.rows), Math.floor(x * this.result.columns));
    } else {
      const at = (part, size) =>
        Math.round((Math.floor(part * (size + 2 * padding)) - dilation) / stride);
      this.move(at(y, this.chosen.rows), at(x, this.chosen.columns));
    }
    this.window();
  }

  key(event) {
    const [down, right] = arrows(event);
    if (!down && !right) return;
    event.preventDefault();
    this.move(this.row + down, this.column + right);
    this.window();
    const sum = this.number(this.result.values[this.row * this.result.columns + this.column]);
    const at = { row: this.row + 1, column: this.column + 1, sum };
    this.spoken.textContent = fill(this.text.cursor, at);
  }

  paint() {
    const { chosen, colors, result } = this;
    const { padding } = this.options;
    const [rows, columns] = [chosen.rows + 2 * padding, chosen.columns + 2 * padding];
    const padded = new Float32Array(rows * columns);
    for (let u = 0; u < chosen.rows; u++) {
      padded.set(
        chosen.values.subarray(u * chosen.columns, (u + 1) * chosen.columns),
        (u + padding) * columns + padding,
      );
    }
    const tones = { high: WHITE, paper: BLACK };
    picture(this.canvas, padded, rows, columns, tones);
    this.pad.style.aspectRatio = `${columns} / ${rows}`;
    this.mapPad.style.aspectRatio = `${result.columns} / ${result.rows}`;
    if (this.mode === "tones") {
      const clipped = result.values.map((value) => Math.max(0, Math.min(1, value)));
      picture(this.map, clipped, result.rows, result.columns, tones);
    } else {
      const blue = { high: colors.family, low: colors.gray, paper: colors.paper };
      picture(this.map, result.values, result.rows, result.columns, blue, this.top());
    }
    this.window();
  }

  /** The largest sum of a window that lies inside the picture: padding makes edges of its own. */
  top() {
    const { columns, values } = this.result;
    const { stride, dilation, padding } = this.options;
    const inside = (place, size) =>
      place * stride >= padding && place * stride - padding + 2 * dilation < size;
    let top = 1e-6;
    values.forEach((value, place) => {
      const [m, n] = [Math.floor(place / columns), place % columns];
      if (inside(m, this.chosen.rows) && inside(n, this.chosen.columns)) {
        top = Math.max(top, Math.abs(value));
      }
    });
    return top;
  }

  /** The nine products at the place chosen. */
  window() {
    const { chosen, colors, options, result, text, weights } = this;
    const { stride, dilation, padding } = options;
    const blue = { high: colors.family, low: colors.gray, paper: colors.paper };
    const tones = { high: WHITE, paper: BLACK };
    const largest = weights.reduce((a, b) => Math.max(a, Math.abs(b)), 1e-6);
    const write = (cell, value, color, readers) => {
      cell.textContent = this.number(value).replace(/^(−?)0(?=\D)/, "$1");
      cell.style.background = css(color);
      cell.style.color = css(readable(color, readers));
    };
    const [top, left] = [this.row * stride, this.column * stride]; // of the padded picture
    for (let tap = 0; tap < 9; tap++) {
      const u = top + dilation * Math.floor(tap / 3);
      const v = left + dilation * (tap % 3);
      const [i, j] = [u - padding, v - padding];
      const inside = i >= 0 && j >= 0 && i < chosen.rows && j < chosen.columns;
      const value = inside ? chosen.values[i * chosen.columns + j] : 0;
      write(this.pixels[tap], value, shade(value, tones), { ink: WHITE, paper: BLACK });
      const made = value * weights[tap];
      write(this.products[tap], made, shade(made / largest, blue), colors);
      this.lay(this.taps[tap], u, v, 1, chosen, padding);
      this.taps[tap].hidden = dilation === 1;
    }
    this.lay(this.field, top, left, 2 * dilation + 1, chosen, padding);
    this.lay(this.spot, this.row, this.column, 1, result, 0);
    const sum = this.number(result.values[this.row * result.columns + this.column]);
    const at = { row: this.row + 1, column: this.column + 1, sum };
    this.sum.textContent = fill(text.sum, at);
  }

  /** Lay a mark over some cells of a picture. */
  lay(mark, row, column, side, { rows, columns }, padding) {
    const part = (value, size) => `${(100 * value) / (size + 2 * padding)}%`;
    mark.style.top = part(row, rows);
    mark.style.left = part(column, columns);
    mark.style.height = part(side, rows);
    mark.style.width = part(side, columns);
  }
}

customElements.define("trivium-filter", FilterWidget);
