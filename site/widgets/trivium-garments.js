/**
 * <trivium-garments>: the chapter's residual network, answering in the page.
 *
 * Data: layers (as `trivium.models.page_layers` writes a ResNet), images uint8 [N, 28, 28], labels [N],
 * classes (names), text.
 *
 * `element.forward(image)` is the whole network: 784 values in [0, 1], row by row -> {maps, logits,
 * probabilities}, maps the list of all stages' maps, the finest first.
 */

import { classify, image as asImage, readLayers } from "./residual.js";
import {
  Widget,
  arrows,
  brush,
  button,
  choice,
  fill,
  list,
  node,
  pad,
  picture,
  ranking,
  redrawn,
  softmax,
  stroke,
  unpack,
} from "./trivium.js";

const SIZE = 28;
const PATCH = 8;
const SHOWN = 16;
const NOISE = 0.1;
const TOOLS = ["draw", "erase", "cover"];

export class GarmentsWidget extends Widget {
  static family = "convolution";

  static text = {
    name: "A residual network, answering",
    pick: "Test image",
    picture: "{class}, test image {number}",
    input: "Input, 28 × 28",
    tool: "Pointer",
    draw: "Draw",
    erase: "Erase",
    cover: "Cover",
    clear: "Clear",
    restore: "Restore",
    mirror: "Mirror",
    noise: "Add noise",
    shift: "Shift",
    left: "Shift left by one pixel",
    right: "Shift right by one pixel",
    up: "Shift up by one pixel",
    down: "Shift down by one pixel",
    turn: "Turn",
    degrees: "{degrees} degrees",
    canvas: "Drawing area, 28 by 28 pixels",
    hint:
      "Draw with a pointer or a finger. With keys: arrows move the square, Space uses the tool, " +
      "Shift with an arrow draws a line.",
    cursor: "Row {row}, column {column}, value {value}",
    answer: "The network answers {class} ({share}), then {second} ({second_share}).",
    truth: "The label says {class}.",
    changed: "The picture has been changed; its label was {class}.",
    drawn: "The picture is empty, and gets an answer all the same.",
    probabilities: "Share of each class",
    maps: "The {count} strongest maps",
    stage: "Maps of",
    stage_name: "{size} × {size}",
    map: "Map {number} of {count}",
    maps_note: "Stage {stage}: {channels} maps of {size} × {size} cells. A fuller blue is a larger value.",
  };

  static style = `
    .layout { display: grid; gap: 14px 20px; grid-template-columns: minmax(0, 1fr);
      grid-template-areas: "pick" "input" "answer" "maps"; }
    .pick { grid-area: pick; display: flex; gap: 2px; overflow-x: auto; padding: 3px 24px 8px 3px;
      mask-image: linear-gradient(to left, transparent, #000 24px); scrollbar-width: thin;
      scrollbar-color: var(--gray) transparent; }
    .pick label { flex: none; }
    .pick span { display: block; padding: 2px; border: 2px solid transparent; border-radius: 4px; }
    .pick canvas { width: 42px; height: 42px; }
    .pick input:checked + span { border-color: var(--family); }
    .input { grid-area: input; display: grid; gap: 8px; justify-content: center;
      justify-items: start; }
    .pad { position: relative; width: var(--side); height: var(--side);
      --side: min(280px, 100cqi - 26px); }
    .pad > canvas { width: 100%; height: 100%; touch-action: none; cursor: crosshair;
      box-shadow: 0 0 0 1px var(--grid); }
    .cursor { position: absolute; pointer-events: none; border: 1px solid transparent; }
    .pad canvas:focus-visible ~ .cursor { border-color: var(--ink);
      box-shadow: 0 0 0 1px var(--paper); }
    .turn { width: 100%; flex-wrap: nowrap; }
    .turn input { flex: 1; }
    .turn output { min-width: 3em; text-align: right; font-variant-numeric: tabular-nums; }
    .answer { grid-area: answer; display: grid; gap: 8px; align-content: start; }
    .answer ol { list-style: none; margin: 0; padding: 0; }
    .answer li { display: grid; grid-template-columns: 86px 1fr 44px; gap: 8px; height: 26px;
      align-items: center; white-space: nowrap; }
    .answer li span:last-child { text-align: right; font-variant-numeric: tabular-nums; }
    .answer li i { height: 14px; background: var(--gray); transform-origin: left; }
    .answer .first { font-weight: 600; } .answer .first i { background: var(--family); }
    .answer [role="status"] { min-height: 5.4em; }
    .maps { grid-area: maps; display: grid; gap: 8px; }
    .maps ol { list-style: none; margin: 0; padding: 0; display: grid; gap: 4px;
      grid-template-columns: repeat(8, minmax(0, 1fr)); }
    .maps ol canvas { width: 100%; height: auto; aspect-ratio: 1;
      box-shadow: 0 0 0 1px var(--grid); }
    .maps .note { min-height: 2.7em; }
    .segments span { padding: 2px 8px; }
    @media (prefers-reduced-motion: no-preference) { .answer i { transition: transform 0.12s; } }
    @container (min-width: 580px) {
      .layout { grid-template-columns: 280px minmax(0, 1fr);
        grid-template-areas: "pick pick" "input answer" "maps maps"; }
      .maps ol { grid-template-columns: repeat(16, minmax(0, 1fr)); }
      .maps .note { min-height: 1.4em; }
    }
  `;

  load(data) {
    this.layers = readLayers(data.layers);
    this.classes = data.classes;
    if (this.layers.dense?.filters !== this.classes.length) {
      throw new Error("layers: expected a dense layer with an answer for each class");
    }
    const { shape, values } = unpack(data.images, "images", [null, SIZE, SIZE]);
    this.images = Array.from({ length: shape[0] }, (_, i) =>
      Float32Array.from(values.subarray(i * SIZE * SIZE, (i + 1) * SIZE * SIZE), (v) => v / 255),
    );
    this.labels = list(data.labels, "labels");
    this.tool = "draw";
    this.stage = 0;
    this.row = SIZE / 2;
    this.column = SIZE / 2;
    this.seed = 1;
    this.take(0);
  }

  /**
   * The network's answer to one picture.
   *
   * @param {ArrayLike<number>} values 784 numbers in [0, 1], row by row
   * @returns {{maps: object[], logits: Float32Array, probabilities: Float32Array}}
   * @throws {Error} for another number of values
   */
  forward(values) {
    if (values.length !== SIZE * SIZE) {
      throw new Error(`image: expected ${SIZE * SIZE} values, got ${values.length}`);
    }
    const { maps, logits } = classify(this.layers, asImage(values, SIZE, SIZE));
    return { maps, logits, probabilities: softmax(logits) };
  }

  /** Take a test picture as it is. */
  take(index) {
    this.picked = index;
    this.base = this.images[index].slice();
    this.angle = 0;
    this.image = this.base;
    this.changed = false;
  }

  build() {
    const { text } = this;
    this.thumbs = this.images.map(() => node("canvas"));
    const names = this.thumbs.map((show, i) => ({
      label: fill(text.picture, { class: this.classes[this.labels[i]], number: i + 1 }),
      show,
    }));
    const again = (i) => {
      this.take(i);
      this.answer();
    };
    const pick = choice(text.pick, names, again, { className: "pick" });

    this.canvas = pad(this, text.canvas);
    this.cursor = node("span", { class: "cursor" });
    this.spoken = node("p", { class: "unseen", "aria-live": "polite" });
    const tools = choice(
      text.tool,
      TOOLS.map((tool) => ({ label: text[tool] })),
      (i) => (this.tool = TOOLS[i]),
    );
    this.slider = node("input", {
      type: "range",
      min: -90,
      max: 90,
      step: 5,
      "aria-label": text.turn,
      oninput: () => this.turn(+this.slider.value),
    });
    this.degrees = node("output", { "aria-hidden": "true" });
    const shift = (down, right) => () =>
      this.edit((row, column, at) => at(row - down, column - right));
    const input = node(
      "div",
      { class: "input" },
      node("h3", {}, text.input),
      node("div", { class: "pad" }, this.canvas, this.cursor),
      node("div", { class: "bar" }, tools),
      node(
        "div",
        { class: "bar" },
        node("span", { "aria-hidden": "true" }, text.shift),
        button(text.left, shift(0, -1), { show: "←" }),
        button(text.right, shift(0, 1), { show: "→" }),
        button(text.up, shift(-1, 0), { show: "↑" }),
        button(text.down, shift(1, 0), { show: "↓" }),
      ),
      node(
        "div",
        { class: "bar" },
        button(text.mirror, () =>
          this.edit((row, column, at) => at(row, SIZE - 1 - column)),
        ),
        button(text.noise, () => this.addNoise()),
      ),
      node(
        "div",
        { class: "bar turn" },
        node("span", { "aria-hidden": "true" }, text.turn),
        this.slider,
        this.degrees,
      ),
      node(
        "div",
        { class: "bar" },
        button(text.clear, () => this.edit(() => 0)),
        button(text.restore, () => again(this.picked)),
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
      node("p", { class: "note", id: "hint" }, text.hint),
    );

    this.shown = Array.from({ length: SHOWN }, () => node("canvas", { role: "img" }));
    const sizes = this.forward(this.image).maps.map(({ height }) => ({
      label: fill(text.stage_name, { size: height }),
    }));
    const stages = choice(text.stage, sizes, (i) => {
      this.stage = i;
      this.paint();
    });
    this.note = node("p", { class: "note" });
    const maps = node(
      "div",
      { class: "maps" },
      node(
        "div",
        { class: "bar" },
        node("h3", {}, fill(text.maps, { count: SHOWN })),
        stages,
      ),
      node("ol", {}, ...this.shown.map((canvas) => node("li", {}, canvas))),
      this.note,
    );
    return [node("div", { class: "layout" }, pick, input, answer, maps)];
  }

  /** Make what is seen the picture that is changed from here on. */
  settle() {
    this.base = this.image.slice();
    this.image = this.base;
    this.angle = 0;
    this.changed = true;
  }

  /** Replace every pixel; `rule(row, column, at)` may read the old ones, zero outside. */
  edit(rule) {
    this.image = redrawn(this.image, SIZE, rule);
    this.settle();
    this.answer();
  }

  /** Turn the picture clockwise by degrees from how it was; between pixels, in proportion. */
  turn(degrees) {
    const [cosine, sine] = [Math.cos, Math.sin].map((of) => of((degrees * Math.PI) / 180));
    const middle = (SIZE - 1) / 2;
    this.angle = degrees;
    this.changed = this.changed || degrees !== 0;
    this.image = redrawn(this.base, SIZE, (toRow, toColumn, at) => {
      const [y, x] = [toRow - middle, toColumn - middle];
      const row = middle + cosine * y - sine * x;
      const column = middle + sine * y + cosine * x;
      const [top, left] = [Math.floor(row), Math.floor(column)];
      const [down, right] = [row - top, column - left];
      return (
        (1 - down) * ((1 - right) * at(top, left) + right * at(top, left + 1)) +
        down * ((1 - right) * at(top + 1, left) + right * at(top + 1, left + 1))
      );
    });
    this.answer();
  }

  /** Add normal noise to every pixel, within 0 and 1. */
  addNoise() {
    const uniform = () => {
      this.seed = (this.seed * 48271) % 2147483647;
      return this.seed / 2147483647;
    };
    this.edit((row, column, at) => {
      const normal = Math.sqrt(-2 * Math.log(uniform())) * Math.cos(2 * Math.PI * uniform());
      return Math.min(1, Math.max(0, at(row, column) + NOISE * normal));
    });
  }

  /** Use the tool at a place given in pixels. */
  touch(x, y) {
    if (this.tool === "cover") {
      const [top, left] = [Math.floor(y) - PATCH / 2, Math.floor(x) - PATCH / 2];
      const [from, to] = [left, left + PATCH].map((at) => Math.max(0, Math.min(SIZE, at)));
      for (let row = Math.max(0, top); row < Math.min(SIZE, top + PATCH); row++) {
        this.image.fill(0, row * SIZE + from, row * SIZE + to);
      }
      return;
    }
    brush(this.image, SIZE, x, y, this.tool === "erase");
  }

  place(event) {
    const box = this.canvas.getBoundingClientRect();
    return [
      ((event.clientX - box.left) / box.width) * SIZE,
      ((event.clientY - box.top) / box.height) * SIZE,
    ];
  }

  move(row, column) {
    this.row = Math.max(0, Math.min(SIZE - 1, row));
    this.column = Math.max(0, Math.min(SIZE - 1, column));
    this.mark();
  }

  press(event) {
    if (event.button) return;
    this.canvas.setPointerCapture(event.pointerId);
    const [x, y] = this.place(event);
    this.last = [x, y];
    this.settle();
    this.touch(x, y);
    this.move(Math.floor(y), Math.floor(x));
    this.later();
  }

  drag(event) {
    if (!this.last) return;
    const [x, y] = this.place(event);
    stroke(this.last, [x, y], (...place) => this.touch(...place));
    this.last = [x, y];
    this.move(Math.floor(y), Math.floor(x));
    this.later();
  }

  lift() {
    if (!this.last) return;
    this.last = null;
    this.answer();
  }

  key(event) {
    const [down, right] = arrows(event);
    const paint = event.key === " " || (event.shiftKey && (down || right));
    if (!down && !right && !paint) return;
    event.preventDefault();
    this.move(this.row + down, this.column + right);
    if (paint) {
      this.settle();
      this.touch(this.column + 0.5, this.row + 0.5);
      this.answer();
    }
    const value = this.number(this.image[this.row * SIZE + this.column]);
    const at = { row: this.row + 1, column: this.column + 1, value };
    this.spoken.textContent = fill(this.text.cursor, at);
  }

  /** While a finger moves, one answer a frame and no words. */
  later() {
    this.waiting ??= requestAnimationFrame(() => {
      this.waiting = null;
      this.result = this.forward(this.image);
      this.paint();
    });
  }

  answer() {
    this.result = this.forward(this.image);
    this.paint();
    this.say();
  }

  say() {
    const { text, classes, result } = this;
    const [first, second] = ranking(result.probabilities);
    const label = { class: classes[this.labels[this.picked]] };
    const empty = this.image.every((value) => value === 0);
    const state = empty ? text.drawn : fill(this.changed ? text.changed : text.truth, label);
    const words = fill(text.answer, {
      class: classes[first],
      share: this.percent(result.probabilities[first]),
      second: classes[second],
      second_share: this.percent(result.probabilities[second]),
    });
    this.status.textContent = `${words} ${state}`;
  }

  paint() {
    const { colors, text } = this;
    if (!colors) return;
    if (!this.result) {
      this.result = this.forward(this.image);
      this.say();
    }
    const gray = { high: colors.ink, paper: colors.paper };
    const blue = { high: colors.family, paper: colors.paper };
    if (this.painted !== colors) {
      this.thumbs.forEach((canvas, i) => picture(canvas, this.images[i], SIZE, SIZE, gray));
      this.painted = colors;
    }
    picture(this.canvas, this.image, SIZE, SIZE, gray);
    this.mark();
    const degrees = fill(text.degrees, { degrees: this.number(this.angle, 0) });
    this.slider.value = this.angle;
    this.slider.setAttribute("aria-valuetext", degrees);
    this.degrees.textContent = `${this.number(this.angle, 0)}°`;

    const { probabilities } = this.result;
    const first = ranking(probabilities)[0];
    this.bars.forEach((bar, i) => {
      bar.className = i === first ? "first" : "";
      bar.children[1].style.transform = `scaleX(${probabilities[i]})`;
      bar.children[2].textContent = this.percent(probabilities[i]);
    });

    const { height, width, channels, values } = this.result.maps[this.stage];
    const peaks = new Float32Array(channels);
    values.forEach((value, i) => {
      if (value > peaks[i % channels]) peaks[i % channels] = value;
    });
    const strongest = ranking(peaks).slice(0, SHOWN);
    const top = Math.max(peaks[strongest[0]], 1e-6);
    this.shown.forEach((canvas, place) => {
      const channel = strongest[place];
      const map = Float32Array.from(
        { length: height * width },
        (_, i) => values[i * channels + channel],
      );
      picture(canvas, map, height, width, blue, top);
      const number = { number: channel + 1, count: channels };
      canvas.setAttribute("aria-label", fill(text.map, number));
    });
    const at = { stage: this.stage + 1, channels, size: height };
    this.note.textContent = fill(text.maps_note, at);
  }

  mark() {
    const part = (value) => `${(100 * value) / SIZE}%`;
    const place = { top: this.row, left: this.column, width: 1, height: 1 };
    for (const [name, value] of Object.entries(place)) this.cursor.style[name] = part(value);
  }

  quit() {
    if (this.waiting != null) cancelAnimationFrame(this.waiting);
    this.waiting = null;
  }
}

customElements.define("trivium-garments", GarmentsWidget);
