/**
 * <trivium-detector>: compose a scene of garments, and see what a detector finds on it.
 *
 * Data: classes (names), layers (a Detector as `trivium.models.page_layers` writes it), garments
 * (uint8 [G, 28, 28]), kinds (the class of each garment), scenes (lists of [garment, scale, top,
 * left], the last in front; scale 1 or 2, places in pixels of the scene), text.
 *
 * `element.compose(items)` draws a scene, `element.look(values)` gives the detector's maps, and
 * `element.find(maps, threshold)` the boxes on them.
 */

import { image, mapsOfObjects, objects, overlap, readLayers } from "./residual.js";
import { Widget, arrows, button, drawn, fill, list, node, picture, unpack } from "./trivium.js";

const SIDE = 96;
const PIECE = 28;
const FAINTEST = 8; // as in trivium.data.compose: fainter pixels are noise
const MOST = 6;
const REST = 150; // milliseconds that a garment rests before the detector looks

export class DetectorWidget extends Widget {
  static family = "convolution";

  static text = {
    name: "A detector on scenes that you compose",
    pick: "Scene",
    option: "{number}: {names}",
    own: "composed here",
    scene: "Scene",
    heat: "Heat of",
    any: "any class",
    stage: "A scene of {count} garments; each can be moved",
    item: "{class}, garment {number} of {count}, at row {top}, column {left}",
    heat_picture: "Heat map of {class}, highest value {highest}",
    add: "Add",
    garment: "Garment to add",
    piece: "{class} {number}",
    size: "Size",
    front: "To the front",
    remove: "Remove",
    truth: "True boxes",
    least: "Score from",
    suppress: "Overlap up to",
    least_long: "Show boxes with at least this score",
    suppress_long: "Two boxes of one class may overlap up to this IoU",
    hint:
      "Drag a garment, or choose it and use the arrow keys (Shift: farther); + and − change its size, " +
      "Delete removes it. Solid: the detector's boxes. Dotted: the true ones.",
    status: "Boxes shown: {shown}. Garments with a box of the right name: {found} of {count}.",
    one: "{class} {score}",
    empty: "There is no garment on the scene. Boxes shown: {shown}.",
    hidden: "A garment of which nothing is seen has no box.",
    waiting: "The detector is looking.",
  };

  static style = `
    .layout { display: grid; gap: 10px 16px; grid-template-columns: minmax(0, 1fr);
      justify-items: center; --side: min(320px, 100cqi - 30px); }
    .layout > * { width: 100%; }
    .pick label { display: flex; align-items: center; gap: 6px; flex: 1; min-width: 0; }
    select { min-width: 0; }
    .pick select, .heat select { flex: 1; min-width: 0; }
    .view { width: var(--side); display: grid; gap: 6px; align-content: start; }
    .view .top { min-height: 34px; display: flex; gap: 6px; align-items: center;
      justify-content: space-between; }
    .view .top label { display: flex; gap: 6px; align-items: center; flex: 1; min-width: 0; }
    .field { position: relative; width: var(--side); height: var(--side);
      box-shadow: 0 0 0 1px var(--grid); overflow: hidden; }
    .field canvas { width: 100%; height: 100%; }
    .field svg { position: absolute; inset: 0; width: 100%; height: 100%; pointer-events: none; }
    .field .item { position: absolute; min-width: 0; min-height: 0; padding: 0; border: 0;
      background: none; cursor: move; touch-action: none; border-radius: 0; }
    .field .item.chosen { box-shadow: inset 0 0 0 1px var(--gray); }
    .field .item:focus-visible { outline-offset: -2px; }
    rect { fill: none; vector-effect: non-scaling-stroke; }
    rect.found { stroke: var(--family); stroke-width: 2.2px; }
    rect.true { stroke: var(--ink); stroke-width: 1.6px; stroke-dasharray: 1.5 3; }
    .stale rect.found, .stale text { opacity: 0.35; }
    svg text { font-size: 4px; fill: var(--family); stroke: var(--paper); stroke-width: 1.2px;
      paint-order: stroke; font-weight: 600; }
    .limits { display: grid; gap: 2px 16px; grid-template-columns: minmax(0, 1fr); }
    .limits label { display: grid; grid-template-columns: 7.5em minmax(0, 1fr) 2.6em; gap: 8px;
      align-items: center; }
    .limits output { text-align: right; font-variant-numeric: tabular-nums; }
    button[aria-pressed="true"] { background: var(--family); border-color: var(--family);
      color: var(--paper); }
    .answers { list-style: none; margin: 0; padding: 0; display: flex; flex-wrap: wrap;
      gap: 2px 14px; height: 3.9em; overflow-y: auto; font-variant-numeric: tabular-nums;
      align-content: start; }
    [role="status"] { min-height: 2.8em; }
    @container (min-width: 580px) {
      .layout { grid-template-columns: repeat(2, minmax(0, 1fr));
        --side: min(340px, 50cqi - 24px); }
      .layout > * { grid-column: 1 / 3; }
      .layout > .view { grid-column: auto; }
      .limits { grid-template-columns: repeat(2, minmax(0, 1fr)); }
      .answers { height: 2.7em; }
    }
  `;

  load(data) {
    const { shape, values } = unpack(data.garments, "garments", [null, PIECE, PIECE]);
    const size = PIECE * PIECE;
    this.garments = Array.from({ length: shape[0] }, (_, i) =>
      values.subarray(i * size, (i + 1) * size),
    );
    this.kinds = list(data.kinds, "kinds");
    this.classes = data.classes;
    if (!this.kinds.every((kind) => kind in this.classes) || this.kinds.length !== shape[0]) {
      throw new Error(`kinds: expected a class for each of ${shape[0]} garments`);
    }
    this.scenes = data.scenes.map((items, i) =>
      items.map(([garment, scale, top, left]) => {
        const most = SIDE - PIECE * scale;
        const fits = [1, 2].includes(scale) && [top, left].every((at) => at >= 0 && at <= most);
        if (!(garment in this.garments) || !fits) {
          throw new Error(`scenes: number ${i} has a garment that is none, or not on the scene`);
        }
        return { garment, scale, top, left };
      }),
    );
    this.layers = readLayers(data.layers);
    this.least = 0.3;
    this.threshold = 0.5;
    this.kind = -1; // the class whose heat is shown; -1: the highest of any
    this.truths = true;
    this.take(0);
  }

  /** The scene of some items: 96 x 96 values, and what is seen of each as a box, or null. */
  compose(items) {
    const values = new Float32Array(SIDE * SIDE);
    const owner = new Int8Array(SIDE * SIDE).fill(-1);
    items.forEach(({ garment, scale, top, left }, number) => {
      const pixels = this.garments[garment];
      for (let y = 0; y < PIECE * scale; y++) {
        for (let x = 0; x < PIECE * scale; x++) {
          const pixel = pixels[Math.floor(y / scale) * PIECE + Math.floor(x / scale)];
          if (pixel < FAINTEST) continue;
          const at = (top + y) * SIDE + left + x;
          values[at] = pixel / 255;
          owner[at] = number;
        }
      }
    });
    const boxes = items.map(() => null);
    owner.forEach((number, at) => {
      if (number < 0) return;
      const [y, x] = [Math.floor(at / SIDE), at % SIDE];
      const box = (boxes[number] ??= [y, x, y + 1, x + 1]);
      box[0] = Math.min(box[0], y);
      box[1] = Math.min(box[1], x);
      box[2] = Math.max(box[2], y + 1);
      box[3] = Math.max(box[3], x + 1);
    });
    return { values, boxes };
  }

  /** The detector's maps of a scene. */
  look(values) {
    return mapsOfObjects(this.layers, image(values, SIDE, SIDE));
  }

  /** The boxes on maps: what is left after suppression, the best first. */
  find(maps, threshold = this.threshold) {
    return objects(maps, { count: 20, threshold });
  }

  take(index) {
    this.index = index;
    this.items = this.scenes[index].map((item) => ({ ...item }));
    this.chosen = this.items.length - 1;
    this.scene = this.compose(this.items);
    this.stale = true;
  }

  build() {
    const { text, classes } = this;
    const names = (items) => items.map(({ garment }) => classes[this.kinds[garment]]).join(", ");
    this.select = node(
      "select",
      {
        onchange: () => {
          if (this.select.value === "own") return;
          this.take(+this.select.value);
          this.arrange();
          this.rest(0);
        },
      },
      ...this.scenes.map((items, i) =>
        node("option", { value: i }, fill(text.option, { number: i + 1, names: names(items) })),
      ),
      node("option", { value: "own", disabled: true }, text.own),
    );
    const pick = node("div", { class: "bar pick" }, node("label", {}, text.pick, this.select));

    this.canvas = node("canvas", { "aria-hidden": "true" });
    this.overlay = drawn("svg", { viewBox: `0 0 ${SIDE} ${SIDE}`, "aria-hidden": "true" });
    this.handles = node("div", { role: "group" });
    const turn = () => {
      this.truths = !this.truths;
      this.truthButton.setAttribute("aria-pressed", this.truths);
      this.show();
    };
    this.truthButton = button(text.truth, turn, { class: "truth", "aria-pressed": "true" });
    const stage = node(
      "div",
      { class: "view stage" },
      node("div", { class: "top" }, node("h3", {}, text.scene), this.truthButton),
      node("div", { class: "field" }, this.canvas, this.handles, this.overlay),
    );

    this.heatCanvas = node("canvas", { role: "img" });
    this.kindSelect = node(
      "select",
      {
        onchange: () => {
          this.kind = +this.kindSelect.value;
          this.warm();
        },
      },
      node("option", { value: -1 }, text.any),
      ...classes.map((name, i) => node("option", { value: i }, name)),
    );
    const heat = node(
      "div",
      { class: "view heat" },
      node("div", { class: "top" }, node("label", {}, text.heat, this.kindSelect)),
      node("div", { class: "field" }, this.heatCanvas),
    );

    const press = (name, act) => button(text[name], act, { class: name });
    this.toAdd = node(
      "select",
      { "aria-label": text.garment },
      ...this.garments.map((_, i) => {
        const kind = this.kinds[i];
        const number = this.kinds.slice(0, i + 1).filter((each) => each === kind).length;
        return node("option", { value: i }, fill(text.piece, { class: classes[kind], number }));
      }),
    );
    this.adding = press("add", () => this.add(+this.toAdd.value));
    this.acts = [
      press("size", () => this.resize()),
      press("front", () => this.bring()),
      press("remove", () => this.drop()),
    ];
    const tools = node("div", { class: "bar tools" }, this.toAdd, this.adding, ...this.acts);

    const limit = (name, value, act) => {
      const output = node("output", { "aria-hidden": "true" }, this.number(value));
      const input = node("input", {
        type: "range",
        class: name,
        min: name === "least" ? 0.05 : 0,
        max: name === "least" ? 0.95 : 1,
        step: 0.05,
        value,
        "aria-label": text[`${name}_long`],
        oninput: () => {
          output.textContent = this.number(+input.value);
          act(+input.value);
          this.show();
        },
      });
      return node("label", { title: text[`${name}_long`] }, node("span", {}, text[name]), input, output);
    };
    const limits = node(
      "div",
      { class: "limits" },
      limit("least", this.least, (value) => (this.least = value)),
      limit("suppress", this.threshold, (value) => (this.threshold = value)),
    );

    this.answers = node("ol", { class: "answers" });
    this.status = node("p", { role: "status" }, text.waiting);
    const hint = node("p", { class: "note" }, text.hint);
    this.arrange();
    // Looking takes a good part of a second: not before somebody comes near.
    const near = new IntersectionObserver(
      (entries) => {
        if (!entries.some((entry) => entry.isIntersecting)) return;
        near.disconnect();
        this.awake = true;
        this.rest(0);
      },
      { rootMargin: "300px" },
    );
    near.observe(this);
    const parts = [pick, stage, heat, limits, tools, this.answers, this.status, hint];
    return [node("div", { class: "layout" }, ...parts)];
  }

  quit() {
    clearTimeout(this.timer);
  }

  /** A handle for each garment, in the order in which they lie. */
  arrange() {
    const { items, text } = this;
    this.handles.setAttribute("aria-label", fill(text.stage, { count: items.length }));
    this.handles.replaceChildren(
      ...items.map((item) =>
        node("button", {
          type: "button",
          class: "item",
          onfocus: () => this.choose(this.items.indexOf(item)),
          onpointerdown: (event) => this.grab(event, item),
          onpointermove: (event) => this.drag(event, item),
          onpointerup: () => this.release(),
          onpointercancel: () => this.release(),
          onkeydown: (event) => this.key(event, item),
        }),
      ),
    );
    this.place();
    this.adding.disabled = items.length >= MOST;
    for (const act of this.acts) act.disabled = !items.length;
    this.select.value = this.index ?? "own";
    this.draw();
  }

  /** Put the handles where the garments are. */
  place() {
    const { items, text, classes } = this;
    Array.from(this.handles.children).forEach((handle, i) => {
      const { garment, scale, top, left } = items[i];
      handle.style.left = `${(100 * left) / SIDE}%`;
      handle.style.top = `${(100 * top) / SIDE}%`;
      handle.style.width = handle.style.height = `${(100 * PIECE * scale) / SIDE}%`;
      handle.classList.toggle("chosen", i === this.chosen);
      const words = { class: classes[this.kinds[garment]], number: i + 1, count: items.length };
      handle.setAttribute("aria-label", fill(text.item, { ...words, top: top + 1, left: left + 1 }));
    });
  }

  choose(index) {
    this.chosen = index;
    this.place();
  }

  /** What is on the scene has changed. */
  changed(delay = REST) {
    this.index = null;
    this.select.value = "own";
    this.scene = this.compose(this.items);
    this.stale = true;
    this.place();
    this.draw();
    this.rest(delay);
  }

  /** Look at the scene once it has rested for some milliseconds. */
  rest(delay) {
    if (!this.awake) return;
    clearTimeout(this.timer);
    this.timer = setTimeout(() => {
      this.maps = this.look(this.scene.values);
      this.stale = false;
      this.show();
      this.warm();
    }, delay);
  }

  /** Move a garment, as far as the scene goes. */
  move(item, top, left) {
    const most = SIDE - PIECE * item.scale;
    const within = (value) => Math.max(0, Math.min(most, Math.round(value)));
    [item.top, item.left] = [within(top), within(left)];
    this.changed();
  }

  resize(item = this.items[this.chosen], scale = 3 - item.scale) {
    if (scale === item.scale) return;
    const grown = (PIECE * (scale - item.scale)) / 2;
    item.scale = scale;
    this.move(item, item.top - grown, item.left - grown);
  }

  bring() {
    this.items.push(...this.items.splice(this.chosen, 1));
    this.chosen = this.items.length - 1;
    this.arrange();
    this.changed();
  }

  drop() {
    this.items.splice(this.chosen, 1);
    this.chosen = Math.min(this.chosen, this.items.length - 1);
    this.arrange();
    this.changed();
  }

  add(garment) {
    if (this.items.length >= MOST) return;
    const at = 8 * (this.items.length + 1);
    this.items.push({ garment, scale: 1, top: at, left: at });
    this.chosen = this.items.length - 1;
    this.arrange();
    this.changed();
  }

  grab(event, item) {
    if (event.button) return;
    event.currentTarget.setPointerCapture(event.pointerId);
    this.choose(this.items.indexOf(item));
    const pixel = SIDE / this.canvas.getBoundingClientRect().width;
    this.held = { x: event.clientX, y: event.clientY, top: item.top, left: item.left, pixel };
  }

  drag(event, item) {
    if (!this.held) return;
    const { x, y, top, left, pixel } = this.held;
    this.move(item, top + (event.clientY - y) * pixel, left + (event.clientX - x) * pixel);
  }

  release() {
    if (!this.held) return;
    this.held = null;
    if (this.stale) this.rest(0);
  }

  key(event, item) {
    const [down, right] = arrows(event, event.shiftKey ? 8 : 1);
    if (down || right) this.move(item, item.top + down, item.left + right);
    else if (["+", "=", "-", "−"].includes(event.key)) {
      this.resize(item, ["+", "="].includes(event.key) ? 2 : 1);
    } else if (["Delete", "Backspace"].includes(event.key)) {
      this.choose(this.items.indexOf(item));
      this.drop();
      this.handles.children[this.chosen]?.focus();
    } else return;
    event.preventDefault();
  }

  paint() {
    this.draw();
    this.warm();
  }

  /** The scene itself, without boxes of the detector. */
  draw() {
    if (!this.colors) return;
    const { ink, paper } = this.colors;
    picture(this.canvas, this.scene.values, SIDE, SIDE, { high: ink, paper });
    this.outline();
  }

  /** The heat map of a class. */
  warm() {
    if (!this.colors) return;
    const { family, paper } = this.colors;
    const cells = this.maps?.heat ?? { height: 24, width: 24, channels: 1, values: [] };
    const { height, width, channels, values } = cells;
    const shown = Float32Array.from({ length: height * width }, (_, i) => {
      if (!this.maps) return 0;
      const heats = values.subarray(i * channels, (i + 1) * channels);
      return this.kind < 0 ? Math.max(...heats) : heats[this.kind];
    });
    picture(this.heatCanvas, shown, height, width, { high: family, paper });
    const words = {
      class: this.kind < 0 ? this.text.any : this.classes[this.kind],
      highest: this.number(Math.max(...shown)),
    };
    this.heatCanvas.setAttribute("aria-label", fill(this.text.heat_picture, words));
  }

  /** The boxes that the limits leave. */
  shown() {
    if (!this.maps) return [];
    return this.find(this.maps).filter(({ score }) => score >= this.least);
  }

  outline() {
    const parts = [];
    const rect = (name, [top, left, bottom, right]) =>
      drawn("rect", { class: name, x: left, y: top, width: right - left, height: bottom - top });
    if (this.truths) {
      parts.push(...this.scene.boxes.filter(Boolean).map((box) => rect("true", box)));
    }
    const taken = [];
    for (const { box, score, kind } of this.shown()) {
      const words = { class: this.classes[kind], score: this.number(score) };
      const label = fill(this.text.one, words);
      const left = Math.max(0.6, Math.min(box[1] + 0.6, SIDE - 2.1 * label.length));
      let y = box[0] > 5 ? box[0] - 0.9 : box[0] + 4;
      // A word that would lie on another goes below it.
      while (taken.some((at) => Math.abs(at.y - y) < 4 && Math.abs(at.left - left) < 24)) y += 1;
      taken.push({ y, left });
      parts.push(rect("found", box), drawn("text", { x: left, y }, label));
    }
    this.overlay.setAttribute("class", this.stale ? "stale" : "");
    this.overlay.replaceChildren(...parts);
  }

  /** Boxes, the list of them, and the result in words. */
  show() {
    const { text, classes } = this;
    if (!this.maps) return;
    this.outline();
    if (this.stale) return;
    const shown = this.shown();
    this.answers.replaceChildren(
      ...shown.map(({ kind, score }) =>
        node("li", {}, fill(text.one, { class: classes[kind], score: this.number(score) })),
      ),
    );
    const seen = this.items.filter((_, i) => this.scene.boxes[i]);
    const boxes = this.scene.boxes.filter(Boolean);
    const found = seen.filter(({ garment }, i) =>
      shown.some(({ box, kind }) => kind === this.kinds[garment] && overlap(box, boxes[i]) >= 0.5),
    ).length;
    const words = { shown: shown.length, found, count: seen.length };
    const said = [fill(seen.length ? text.status : text.empty, words)];
    if (seen.length < this.items.length) said.push(text.hidden);
    this.status.textContent = said.join(" ");
  }
}

customElements.define("trivium-detector", DetectorWidget);
