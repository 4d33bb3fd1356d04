/**
 * <trivium-cnn>: a trained convolutional classifier that answers in the page.
 *
 * Data: kernel [3, 3, 1, F], bias [F], dense_kernel [13 * 13 * F, classes], dense_bias [classes],
 * images uint8 [N, 28, 28], labels [N], classes (names), text.
 * The network: 3x3 convolution without padding, ReLU, 2x2 max-pooling, flattened as [H, W, C],
 * one dense layer, softmax. `element.forward(image)` is the whole of it.
 */

import {
  Widget,
  arrows,
  brush,
  button,
  choice,
  css,
  fill,
  list,
  node,
  pad,
  picture,
  ranking,
  readable,
  redrawn,
  shade,
  softmax,
  stroke,
  unpack,
} from "./trivium.js";

const SIZE = 28;
const CONV = SIZE - 2;
const POOL = CONV / 2;

export class ConvolutionWidget extends Widget {
  static family = "convolution";

  static text = {
    name: "A trained convolutional network",
    pick: "Test image",
    picture: "{class}, test image {number}",
    input: "Input, 28 × 28",
    draw: "Draw",
    erase: "Erase",
    tool: "Pointer",
    clear: "Clear",
    invert: "Invert",
    shift: "Shift",
    left: "Shift left by one pixel",
    right: "Shift right by one pixel",
    up: "Shift up by one pixel",
    down: "Shift down by one pixel",
    canvas: "Drawing area, 28 by 28 pixels",
    hint:
      "Draw with a pointer or a finger. With keys: arrows move the window, Space paints, " +
      "Shift with an arrow paints a line.",
    cursor: "Row {row}, column {column}, value {value}",
    answer: "The network answers {class} ({share}), then {second} ({second_share}).",
    truth: "The label says {class}.",
    changed: "The picture has been changed, so there is no label.",
    probabilities: "Probability of each class",
    maps: "{count} feature maps, one scale",
    stage: "Show the maps",
    conv: "after ReLU",
    pool: "after pooling",
    map: "Feature map {number}",
    filter: "Filter {number}",
    weights: "3 × 3 weights",
    window: "window",
    sum: "Σ weight × pixel + bias = {sum}, after ReLU {value}",
    largest: "Largest of four windows: Σ weight × pixel + bias = {sum}, after ReLU {value}",
    enlarged: "Feature map {number}, enlarged; arrow keys move the window",
  };

  static style = `
    .layout { display: grid; gap: 14px 16px; grid-template-columns: minmax(0, 1fr);
      grid-template-areas: "pick" "input" "answer" "maps" "detail"; }
    .pick { grid-area: pick; display: flex; gap: 2px; overflow-x: auto; padding: 3px 24px 8px 3px;
      mask-image: linear-gradient(to left, transparent, #000 24px); scrollbar-width: thin;
      scrollbar-color: var(--gray) transparent; }
    .pick label { flex: none; }
    .pick span { display: block; padding: 2px; border: 2px solid transparent; border-radius: 4px; }
    .pick canvas { width: 42px; height: 42px; }
    .pick input:checked + span, .maps input:checked + span { border-color: var(--family); }
    .input { grid-area: input; display: grid; gap: 8px; justify-content: center; }
    .answer { grid-area: answer; display: grid; gap: 8px; align-content: start; }
    .detail { grid-area: detail; display: grid; gap: 8px 12px; align-content: start;
      justify-content: center; grid-template-columns: 188px 130px;
      grid-template-areas: "title map" "windows map" "sum sum"; }
    .detail h3 { grid-area: title; } .windows { grid-area: windows; } .sum { grid-area: sum; }
    .detail > figure { grid-area: map; } .detail .pad { --side: 130px; }
    .detail figure { margin: 0; }
    figcaption { color: var(--muted); font-size: 0.75rem; margin-top: 2px; }
    .pad { position: relative; width: var(--side); height: var(--side);
      --side: min(280px, 100cqi - 26px); }
    .pad > canvas { width: 100%; height: 100%; touch-action: none; cursor: crosshair;
      box-shadow: 0 0 0 1px var(--grid); }
    .mark { position: absolute; pointer-events: none; border: 2px solid var(--family);
      box-shadow: 0 0 0 1px var(--paper), inset 0 0 0 1px var(--paper); }
    .mark.faint { border: 1px dashed var(--family); box-shadow: none; }
    .spot { position: absolute; pointer-events: none; outline: 2px solid var(--ink);
      outline-offset: 3px; }
    .input canvas:focus-visible ~ .cursor { border: 1px solid var(--ink); }
    .cursor { position: absolute; pointer-events: none; border: 1px solid transparent; }
    .answer ol { list-style: none; margin: 0; padding: 0; }
    .answer li { display: grid; grid-template-columns: 86px 1fr 44px; gap: 8px; height: 26px;
      align-items: center; white-space: nowrap; }
    .answer li span:last-child { text-align: right; font-variant-numeric: tabular-nums; }
    .answer li i { height: 14px; background: var(--gray); transform-origin: left; }
    .answer .first { font-weight: 600; } .answer .first i { background: var(--family); }
    .answer [role="status"] { min-height: 4.1em; }
    .maps { grid-area: maps; display: grid; gap: 8px; }
    .maps > .bar { justify-content: space-between; }
    .grid { display: grid; gap: 2px; grid-template-columns: repeat(8, minmax(0, 1fr));
      max-width: 360px; }
    .grid span { display: block; padding: 1px; border: 2px solid var(--grid); }
    .grid canvas { width: 100%; height: auto; aspect-ratio: 1; }
    .windows { display: flex; gap: 8px; }
    .cells { display: grid; grid-template-columns: repeat(3, 30px);
      box-shadow: 0 0 0 1px var(--grid); }
    .cells span { height: 30px; display: grid; place-items: center; font-size: 0.6875rem;
      font-variant-numeric: tabular-nums; }
    .sum { min-height: 4.1em; }
    .segments span { padding: 2px 8px; }
    @media (prefers-reduced-motion: no-preference) { .answer i { transition: transform 0.12s; } }
    @container (max-width: 355px) {
      .detail { justify-content: start; grid-template-columns: 188px;
        grid-template-areas: "title" "windows" "map" "sum"; }
    }
    @container (min-width: 580px) {
      .layout { grid-template-columns: 252px minmax(0, 1fr);
        grid-template-areas: "pick pick" "input answer" "maps maps" "detail detail"; }
      .pad { --side: 252px; }
      .grid { grid-template-columns: repeat(16, minmax(0, 1fr)); max-width: none; }
      .detail { justify-content: start; grid-template-columns: 188px 130px minmax(0, 1fr);
        grid-template-areas: "title map sum" "windows map sum"; gap: 8px 16px; }
    }
    @container (min-width: 690px) {
      .layout { grid-template-columns: 252px 188px minmax(0, 1fr);
        grid-template-areas: "pick pick pick" "input detail answer" "maps maps maps"; }
      .detail { grid-template-columns: 188px; grid-template-areas: "title" "windows" "map" "sum"; }
    }
  `;

  load(data) {
    const kernel = unpack(data.kernel, "kernel", [3, 3, 1, null]);
    this.filters = kernel.shape[3];
    this.kernel = kernel.values;
    this.bias = unpack(data.bias, "bias", [this.filters]).values;
    this.classes = data.classes;
    const dense = [POOL * POOL * this.filters, this.classes.length];
    this.dense = unpack(data.dense_kernel, "dense_kernel", dense).values;
    this.denseBias = unpack(data.dense_bias, "dense_bias", [this.classes.length]).values;
    const images = unpack(data.images, "images", [null, SIZE, SIZE]);
    this.images = Array.from({ length: images.shape[0] }, (_, i) =>
      Float32Array.from(
        images.values.subarray(i * SIZE * SIZE, (i + 1) * SIZE * SIZE),
        (value) => value / 255,
      ),
    );
    this.labels = list(data.labels, "labels");
    this.picked = 0;
    this.image = this.images[0].slice();
    this.tool = 1;
    this.stage = "conv";
    // Begin with the window and the filter that answer this image most strongly.
    const { conv } = this.forward(this.image);
    const strongest = ranking(conv)[0];
    const place = Math.floor(strongest / this.filters);
    this.filter = strongest % this.filters;
    this.shown = this.filter;
    this.row = Math.floor(place / CONV) + 1;
    this.column = (place % CONV) + 1;
  }

  /**
   * The network's answer to one image.
   *
   * @param {ArrayLike<number>} image 784 values in [0, 1], row by row
   * @returns {{conv: Float32Array, pool: Float32Array, logits: Float32Array,
   *     probabilities: Float32Array}} maps after ReLU [26, 26, F] and after pooling [13, 13, F]
   */
  forward(image) {
    const { filters, kernel, bias, dense, denseBias } = this;
    const conv = new Float32Array(CONV * CONV * filters);
    const pool = new Float32Array(POOL * POOL * filters);
    for (let row = 0; row < CONV; row++) {
      for (let column = 0; column < CONV; column++) {
        const at = (row * CONV + column) * filters;
        const into = ((row >> 1) * POOL + (column >> 1)) * filters;
        conv.set(bias, at);
        for (let tap = 0; tap < 9; tap++) {
          const pixel = image[(row + ((tap / 3) | 0)) * SIZE + column + (tap % 3)];
          if (pixel === 0) continue;
          for (let f = 0; f < filters; f++) conv[at + f] += pixel * kernel[tap * filters + f];
        }
        for (let f = 0; f < filters; f++) {
          const value = Math.max(0, conv[at + f]);
          conv[at + f] = value;
          if (value > pool[into + f]) pool[into + f] = value;
        }
      }
    }
    const count = denseBias.length;
    const sums = Float64Array.from(denseBias);
    for (let i = 0; i < pool.length; i++) {
      if (pool[i] === 0) continue;
      for (let c = 0; c < count; c++) sums[c] += pool[i] * dense[i * count + c];
    }
    const logits = Float32Array.from(sums);
    return { conv, pool, logits, probabilities: softmax(logits) };
  }

  build() {
    const { text } = this;
    this.thumbs = this.images.map(() => node("canvas"));
    const names = this.thumbs.map((show, i) => ({
      label: fill(text.picture, { class: this.classes[this.labels[i]], number: i + 1 }),
      show,
    }));
    const pick = choice(text.pick, names, (i) => this.pick(i), { className: "pick" });

    this.canvas = pad(this, text.canvas);
    this.field = node("span", { class: "mark" });
    this.inner = node("span", { class: "mark faint" });
    this.cursor = node("span", { class: "cursor" });
    this.spoken = node("p", { class: "unseen", "aria-live": "polite" });
    const tools = choice(
      text.tool,
      [{ label: text.draw }, { label: text.erase }],
      (i) => (this.tool = 1 - i),
    );
    const input = node(
      "div",
      { class: "input" },
      node("h3", {}, text.input),
      node("div", { class: "pad" }, this.canvas, this.field, this.inner, this.cursor),
      node(
        "div",
        { class: "bar" },
        tools,
        button(text.clear, () => this.edit(() => 0)),
        button(text.invert, () => this.edit((row, column, at) => 1 - at(row, column))),
      ),
      node(
        "div",
        { class: "bar" },
        node("span", { "aria-hidden": "true" }, text.shift),
        button(text.left, () => this.edit((row, column, at) => at(row, column + 1)), { show: "←" }),
        button(text.right, () => this.edit((row, column, at) => at(row, column - 1)), { show: "→" }),
        button(text.up, () => this.edit((row, column, at) => at(row + 1, column)), { show: "↑" }),
        button(text.down, () => this.edit((row, column, at) => at(row - 1, column)), { show: "↓" }),
      ),
      this.spoken,
    );

    this.bars = this.classes.map((name) =>
      node("li", {}, node("span", {}, name), node("i"), node("span")),
    );
    this.status = node("p", { role: "status" });
    const answer = node(
      "div",
      { class: "answer" },
      node("h3", {}, text.probabilities),
      node("ol", {}, ...this.bars),
      this.status,
    );

    this.maps = Array.from({ length: this.filters }, () => node("canvas"));
    const labels = this.maps.map((show, f) => ({
      label: fill(text.map, { number: f + 1 }),
      show,
    }));
    const grid = choice(
      fill(text.maps, { count: this.filters }),
      labels,
      (f) => {
        this.filter = f;
        this.look(f);
      },
      { className: "grid", chosen: this.filter },
    );
    grid.addEventListener("pointermove", (event) => this.hover(event, grid));
    grid.addEventListener("pointerleave", () => this.look(this.filter));
    const stage = choice(text.stage, [{ label: text.conv }, { label: text.pool }], (i) => {
      this.stage = ["conv", "pool"][i];
      this.paint();
    });
    const maps = node(
      "div",
      { class: "maps" },
      node(
        "div",
        { class: "bar" },
        node("h3", {}, fill(text.maps, { count: this.filters })),
        stage,
      ),
      grid,
      node("p", { class: "note", id: "hint" }, text.hint),
    );

    this.heading = node("h3");
    this.weights = Array.from({ length: 9 }, () => node("span"));
    this.pixels = Array.from({ length: 9 }, () => node("span"));
    this.sum = node("p", { class: "sum note" });
    this.large = node("canvas", {
      tabindex: 0,
      role: "application",
      onpointermove: (event) => this.aim(event),
      onpointerdown: (event) => this.aim(event),
      onkeydown: (event) => this.key(event, true),
    });
    this.spot = node("span", { class: "spot" });
    this.caption = node("figcaption");
    const cells = (spans, caption) =>
      node(
        "figure",
        {},
        node("div", { class: "cells" }, ...spans),
        node("figcaption", {}, caption),
      );
    const detail = node(
      "div",
      { class: "detail" },
      this.heading,
      node(
        "div",
        { class: "windows" },
        cells(this.weights, text.weights),
        cells(this.pixels, text.window),
      ),
      node("figure", {}, node("div", { class: "pad" }, this.large, this.spot), this.caption),
      this.sum,
    );

    return [node("div", { class: "layout" }, pick, input, answer, maps, detail)];
  }

  /** Show a test image as it is. */
  pick(index) {
    this.picked = index;
    this.image = this.images[index].slice();
    this.answer();
  }

  /** Replace every pixel; `rule(row, column, at)` may read the old ones, zero outside. */
  edit(rule) {
    this.image = redrawn(this.image, SIZE, rule);
    this.picked = null;
    this.answer();
  }

  /** Touch the picture with a soft brush at a place given in pixels. */
  touch(x, y) {
    brush(this.image, SIZE, x, y, !this.tool);
    this.picked = null;
  }

  place(event) {
    const box = event.currentTarget.getBoundingClientRect();
    return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
  }

  move(row, column) {
    this.row = Math.max(0, Math.min(SIZE - 1, row));
    this.column = Math.max(0, Math.min(SIZE - 1, column));
  }

  press(event) {
    if (event.button) return;
    event.currentTarget.setPointerCapture(event.pointerId);
    const [x, y] = this.place(event).map((part) => part * SIZE);
    this.last = [x, y];
    this.touch(x, y);
    this.move(Math.floor(y), Math.floor(x));
    this.answer(false);
  }

  drag(event) {
    const [x, y] = this.place(event).map((part) => part * SIZE);
    this.move(Math.floor(y), Math.floor(x));
    if (!this.last) {
      this.window();
      return;
    }
    stroke(this.last, [x, y], (...place) => this.touch(...place));
    this.last = [x, y];
    this.answer(false);
  }

  lift() {
    if (!this.last) return;
    this.last = null;
    this.say();
  }

  key(event, map = false) {
    const step = map && this.stage === "pool" ? 2 : 1;
    const [down, right] = arrows(event, step);
    const paint = !map && (event.key === " " || (event.shiftKey && (down || right)));
    if (!down && !right && !paint) return;
    event.preventDefault();
    // The enlarged map has no border: its window stays where a whole window fits.
    if (map) this.move(...this.corner().map((at) => at + 1));
    this.move(this.row + down, this.column + right);
    if (paint) {
      this.touch(this.column + 0.5, this.row + 0.5);
      this.answer();
    } else {
      this.window();
    }
    const value = this.number(this.image[this.row * SIZE + this.column]);
    const at = { row: this.row + 1, column: this.column + 1, value };
    this.spoken.textContent = fill(this.text.cursor, at);
  }

  hover(event, grid) {
    if (event.pointerType === "touch") return;
    const f = grid.inputs.indexOf(event.target);
    if (f < 0) return;
    const box = this.maps[f].getBoundingClientRect();
    this.toMap((event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height);
    this.look(f);
  }

  aim(event) {
    this.toMap(...this.place(event));
    this.window();
  }

  /** Put the window where a place of the map, as parts of its sides, looks. */
  toMap(x, y) {
    const size = this.stage === "conv" ? CONV : POOL;
    const scale = this.stage === "conv" ? 1 : 2;
    const at = (part) => scale * Math.max(0, Math.min(size - 1, Math.floor(part * size))) + 1;
    this.move(at(y), at(x));
  }

  /** The top left pixel of the receptive field. */
  corner() {
    return [this.row, this.column].map((at) => {
      const inside = Math.max(0, Math.min(CONV - 1, at - 1));
      return this.stage === "conv" ? inside : inside & ~1;
    });
  }

  look(filter) {
    this.shown = filter;
    this.window();
  }

  answer(aloud = true) {
    this.result = this.forward(this.image);
    this.paint();
    if (aloud) this.say();
  }

  say() {
    const { text, classes, result } = this;
    const [first, second] = ranking(result.probabilities);
    const words = [
      fill(text.answer, {
        class: classes[first],
        share: this.percent(result.probabilities[first]),
        second: classes[second],
        second_share: this.percent(result.probabilities[second]),
      }),
      this.picked === null
        ? text.changed
        : fill(text.truth, { class: classes[this.labels[this.picked]] }),
    ];
    this.status.textContent = words.join(" ");
  }

  paint() {
    const { colors } = this;
    if (!this.result) {
      this.result = this.forward(this.image);
      this.say();
    }
    const gray = { high: colors.ink, paper: colors.paper };
    const blue = { high: colors.family, low: colors.gray, paper: colors.paper };
    if (this.painted !== colors) {
      this.thumbs.forEach((canvas, i) => picture(canvas, this.images[i], SIZE, SIZE, gray));
      this.painted = colors;
    }
    picture(this.canvas, this.image, SIZE, SIZE, gray);
    const { probabilities } = this.result;
    const first = ranking(probabilities)[0];
    this.bars.forEach((bar, i) => {
      bar.className = i === first ? "first" : "";
      bar.children[1].style.transform = `scaleX(${probabilities[i]})`;
      bar.children[2].textContent = this.percent(probabilities[i]);
    });
    const size = this.stage === "conv" ? CONV : POOL;
    const values = this.result[this.stage];
    this.top = values.reduce((a, b) => Math.max(a, b), 1e-6);
    this.maps.forEach((canvas, f) => {
      picture(canvas, this.map(f), size, size, blue, this.top);
    });
    this.window();
  }

  map(f) {
    const values = this.result[this.stage];
    return Float32Array.from(
      { length: values.length / this.filters },
      (_, i) => values[i * this.filters + f],
    );
  }

  /** The filter shown, the window it looks through, and what it makes of it. */
  window() {
    const { colors, text, shown: f } = this;
    const blue = { high: colors.family, low: colors.gray, paper: colors.paper };
    const gray = { high: colors.ink, paper: colors.paper };
    const [top, left] = this.corner();
    const pooled = this.stage === "pool";
    const product = (row, column) => {
      let sum = this.bias[f];
      for (let tap = 0; tap < 9; tap++) {
        const pixel = this.image[(row + ((tap / 3) | 0)) * SIZE + column + (tap % 3)];
        sum += pixel * this.kernel[tap * this.filters + f];
      }
      return sum;
    };
    let best = [top, left];
    if (pooled) {
      const four = [
        [0, 0],
        [0, 1],
        [1, 0],
        [1, 1],
      ].map(([y, x]) => [top + y, left + x]);
      best = four.reduce((a, b) => (product(...b) > product(...a) ? b : a));
    }
    const sum = product(...best);
    const weights = Float32Array.from(
      { length: 9 },
      (_, tap) => this.kernel[tap * this.filters + f],
    );
    const largest = this.kernel.reduce((a, b) => Math.max(a, Math.abs(b)), 1e-6);
    const write = (cell, value, color) => {
      cell.textContent = this.number(value).replace(/^(−?)0(?=\D)/, "$1");
      cell.style.background = css(color);
      cell.style.color = css(readable(color, colors));
    };
    this.weights.forEach((cell, tap) => {
      write(cell, weights[tap], shade(weights[tap] / largest, blue));
    });
    this.pixels.forEach((cell, tap) => {
      const value = this.image[(best[0] + ((tap / 3) | 0)) * SIZE + best[1] + (tap % 3)];
      write(cell, value, shade(value, gray));
    });
    const values = { sum: this.number(sum), value: this.number(Math.max(0, sum)) };
    this.heading.textContent = fill(text.filter, { number: f + 1 });
    this.caption.textContent = fill(text.map, { number: f + 1 });
    this.sum.textContent = fill(pooled ? text.largest : text.sum, values);
    const size = pooled ? POOL : CONV;
    const scale = pooled ? 2 : 1;
    picture(this.large, this.map(f), size, size, blue, this.top);
    this.large.setAttribute("aria-label", fill(text.enlarged, { number: f + 1 }));
    box(this.field, top, left, pooled ? 4 : 3, SIZE);
    box(this.inner, ...best, 3, SIZE);
    this.inner.hidden = !pooled;
    box(this.cursor, this.row, this.column, 1, SIZE);
    box(this.spot, top / scale, left / scale, 1, size);
  }
}

/** Lay a mark over some pixels of a square picture. */
function box(mark, row, column, side, size) {
  const part = (value) => `${(100 * value) / size}%`;
  const place = { top: row, left: column, width: side, height: side };
  for (const [name, value] of Object.entries(place)) mark.style[name] = part(value);
}

customElements.define("trivium-cnn", ConvolutionWidget);
