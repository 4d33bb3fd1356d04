/**
 * <trivium-masks>: a U-Net that names every pixel of a scene which the reader changes.
 *
 * Data: classes (names, the background first), scenes uint8 [N, 96, 96], masks uint8 [N, 96, 96] (the
 * true class of every pixel), layers as `trivium.models.page_layers` writes them, text.
 *
 * `element.segment(values, cut)` gives the logits of all pixels, for values from 0 to 1 row by row and
 * a list of levels, 0 the finest, whose bridges carry nothing.
 */

import { image, readLayers, segment } from "./residual.js";
import {
  Widget,
  arrows,
  button,
  choice,
  css,
  fill,
  node,
  pad,
  picture,
  ranking,
  shade,
  softmax,
  stroke,
  unpack,
} from "./trivium.js";

const SIDE = 96;
const PIXELS = SIDE * SIDE;
const ZOOM = 4;
const UNKNOWN = 255; // the true class of what was drawn
const LEAST = 60; // pixels of a part that gets a name
const WAIT = 180; // milliseconds after the last change before the network looks
const TOOLS = ["move", "draw", "erase"];
const SHOWN = ["said", "truth", "wrong"];

export class MasksWidget extends Widget {
  static family = "convolution";

  static text = {
    name: "A scene, segmented in the page",
    pick: "Test scene",
    option: "Scene {number}: {classes}",
    tool: "Pointer",
    move: "Move",
    draw: "Draw",
    erase: "Erase",
    reset: "As it was",
    canvas: "Scene, 96 by 96 pixels",
    hint:
      "Drag a garment, draw or erase with a pointer or a finger. With keys: arrows move the " +
      "cursor, Space draws, erases, or picks a garment up and puts it down.",
    scene: "Scene",
    said: "Answer",
    truth: "Truth",
    wrong: "Wrong pixels",
    said_picture: "The network's answer: {classes}",
    truth_picture: "The true classes: {classes}",
    wrong_picture: "Where the answer is wrong: {count} pixels",
    nothing: "nothing",
    bridges: "Bridges, by cells",
    bridge: "Bridge at {cells} by {cells} cells",
    cells: "{cells} × {cells}",
    shares: "Probabilities at row {row}, column {column}",
    looking: "The network looks at the changed scene.",
    status:
      "At row {row}, column {column} the network says {class} ({share}), then {second} " +
      "({second_share}).",
    is: "True is {class}.",
    drawn: "This pixel was drawn, so nothing is true of it.",
    score: "Of the garments' pixels {right} are named rightly; mean IoU of the classes here: {iou}.",
    none: "There is no garment with a true class.",
    cut: "Bridges cut: {count}.",
    carried: "Picked up; arrows move it, Space puts it down.",
  };

  static style = `
    .layout { display: grid; gap: 12px 16px; grid-template-columns: minmax(0, 1fr);
      grid-template-areas: "pick" "tools" "input" "bridges" "shares" "panels" "status"; }
    .pick { grid-area: pick; display: flex; gap: 2px; overflow-x: auto; padding: 3px 24px 8px 3px;
      scrollbar-width: thin; scrollbar-color: var(--gray) transparent; }
    .pick label { flex: none; }
    .pick span { display: block; padding: 2px; border: 2px solid transparent; border-radius: 4px; }
    .pick canvas { width: 52px; height: 52px; }
    .pick input:checked + span { border-color: var(--family); }
    .tools { grid-area: tools; } .bridges { grid-area: bridges; }
    .bridges { display: grid; gap: 6px; align-content: start; }
    .bridges button[aria-pressed="true"] { background: var(--family); border-color: var(--family);
      color: var(--paper); }
    .bridges button[aria-pressed="false"] { border-style: dashed; text-decoration: line-through; }
    .input { grid-area: input; display: grid; gap: 6px; justify-content: center; }
    .pad { position: relative; width: var(--side); height: var(--side);
      --side: min(288px, 100cqi - 26px); }
    .pad canvas { width: 100%; height: 100%; box-shadow: 0 0 0 1px var(--grid); cursor: crosshair; }
    .input canvas { touch-action: none; }
    .panels { grid-area: panels; display: grid; gap: 10px; max-width: 340px;
      grid-template-columns: repeat(2, minmax(0, 1fr)); }
    .panels figure { margin: 0; min-width: 0; }
    .panels .pad { --side: 100%; height: auto; aspect-ratio: 1; overflow: hidden;
      border: 1px solid var(--grid); }
    .panels canvas { image-rendering: auto; }
    figcaption { color: var(--muted); font-size: 0.75rem; margin-bottom: 2px; }
    .pad span { position: absolute; transform: translate(-50%, -140%); pointer-events: none;
      font-size: 0.6875rem; line-height: 1; white-space: nowrap; }
    .pad i { position: absolute; pointer-events: none; width: 9px; height: 9px;
      margin: -4.5px 0 0 -4.5px; border: 1px solid var(--paper); outline: 1px solid var(--ink); }
    .input canvas:focus-visible ~ i { outline-width: 2px; }
    .shares { grid-area: shares; display: grid; gap: 6px; align-content: start; }
    .shares ol { list-style: none; margin: 0; padding: 0; }
    .shares li { display: grid; grid-template-columns: 92px minmax(0, 1fr) 48px; gap: 8px; height: 21px;
      align-items: center; white-space: nowrap; }
    .shares li span:last-child { text-align: right; font-variant-numeric: tabular-nums; }
    .shares li i { height: 12px; background: var(--gray); transform-origin: left; }
    .shares .first { font-weight: 600; } .shares .first i { background: var(--family); }
    [role="status"] { grid-area: status; min-height: 9.6em; }
    .busy .panels { opacity: 0.55; }
    @container (min-width: 580px) {
      .layout { grid-template-columns: 288px minmax(0, 1fr);
        grid-template-areas: "pick pick" "tools tools" "input shares" "input bridges"
          "panels panels" "status status"; grid-template-rows: auto auto auto 1fr; }
      .panels { grid-template-columns: repeat(3, minmax(0, 1fr)); max-width: none; }
      [role="status"] { min-height: 4.1em; }
    }
  `;

  load(data) {
    if (!Array.isArray(data.classes)) throw new Error("classes: expected a list");
    this.classes = data.classes;
    this.layers = readLayers(data.layers);
    const scenes = unpack(data.scenes, "scenes", [null, SIDE, SIDE]);
    const masks = unpack(data.masks, "masks", [scenes.shape[0], SIDE, SIDE]);
    const part = ({ values }, i) => values.slice(i * PIXELS, (i + 1) * PIXELS);
    this.scenes = Array.from({ length: scenes.shape[0] }, (_, i) => ({
      values: Float32Array.from(part(scenes, i), (value) => value / 255),
      truth: part(masks, i),
    }));
    this.levels = Object.keys(this.layers).filter((name) => name.endsWith(".join")).length;
    this.cut = [];
    this.tool = "move";
    this.take(0);
  }

  /** The logits of every pixel, [96 * 96 * classes]. */
  segment(values, cut = []) {
    return segment(this.layers, image(values, SIDE, SIDE), cut).values;
  }

  /** Begin with a scene as it was composed. */
  take(index) {
    this.index = index;
    const { values, truth } = this.scenes[index];
    this.values = values.slice();
    this.truth = truth.slice();
    this.held = null;
    const bright = this.truth.findIndex((kind) => kind > 0);
    const [first] = this.parts(this.truth);
    const at = first ? first.middle : Math.max(0, bright);
    this.row = Math.floor(at / SIDE);
    this.column = at % SIDE;
    this.result = null;
  }

  /** What the network makes of the scene as it is now. */
  compute() {
    clearTimeout(this.timer);
    this.timer = null;
    const count = this.classes.length;
    const logits = this.segment(this.values, this.cut);
    const said = new Uint8Array(PIXELS);
    for (let i = 0; i < PIXELS; i++) {
      let best = 0;
      for (let k = 1; k < count; k++) {
        if (logits[i * count + k] > logits[i * count + best]) best = k;
      }
      said[i] = best;
    }
    this.result = { logits, said, ...this.score(said) };
  }

  /** The share of right garment pixels, the mean IoU of the classes that occur, the wrong pixels. */
  score(said) {
    const count = this.classes.length;
    const both = new Float64Array(count);
    const either = new Float64Array(count);
    const wrong = new Uint8Array(PIXELS);
    let garments = 0;
    let right = 0;
    for (let i = 0; i < PIXELS; i++) {
      const kind = this.truth[i];
      if (kind === UNKNOWN) continue;
      either[kind]++;
      if (kind) garments++;
      if (said[i] === kind) {
        both[kind]++;
        if (kind) right++;
      } else {
        either[said[i]]++;
        wrong[i] = 1;
      }
    }
    const present = Array.from(either, (_, k) => k).filter((k) => either[k]);
    const sum = present.reduce((total, k) => total + both[k] / either[k], 0);
    return {
      wrong,
      right: garments ? right / garments : null,
      iou: present.length ? sum / present.length : 0,
    };
  }

  /** The connected parts of one class: {kind, size, middle}, the largest first. */
  parts(mask) {
    const seen = new Uint8Array(PIXELS);
    const found = [];
    for (let start = 0; start < PIXELS; start++) {
      const kind = mask[start];
      if (!kind || kind === UNKNOWN || seen[start]) continue;
      const pixels = this.flood(start, (i) => mask[i] === kind, seen);
      if (pixels.length < LEAST) continue;
      const y = pixels.reduce((sum, i) => sum + Math.floor(i / SIDE), 0) / pixels.length;
      const x = pixels.reduce((sum, i) => sum + (i % SIDE), 0) / pixels.length;
      const far = (i) => (Math.floor(i / SIDE) - y) ** 2 + ((i % SIDE) - x) ** 2;
      const middle = pixels.reduce((best, i) => (far(i) < far(best) ? i : best));
      found.push({ kind, size: pixels.length, middle });
    }
    return found.sort((a, b) => b.size - a.size);
  }

  /** The pixels that are joined to one, through pixels that belong. */
  flood(start, belongs, seen = new Uint8Array(PIXELS)) {
    const pixels = [start];
    seen[start] = 1;
    for (let next = 0; next < pixels.length; next++) {
      const at = pixels[next];
      const x = at % SIDE;
      for (const [i, inside] of [
        [at - SIDE, at >= SIDE],
        [at + SIDE, at < PIXELS - SIDE],
        [at - 1, x > 0],
        [at + 1, x < SIDE - 1],
      ]) {
        if (!inside || seen[i] || !belongs(i)) continue;
        seen[i] = 1;
        pixels.push(i);
      }
    }
    return pixels;
  }

  /** Pick up what is seen of the garment under the cursor. */
  hold() {
    const at = this.row * SIDE + this.column;
    const kind = this.truth[at];
    if (!kind) return;
    const pixels = this.flood(at, (i) => this.truth[i] === kind);
    const values = this.values.slice();
    const truth = this.truth.slice();
    const lifted = pixels.map((i) => ({
      down: Math.floor(i / SIDE) - this.row,
      right: (i % SIDE) - this.column,
      value: values[i],
    }));
    for (const i of pixels) values[i] = truth[i] = 0;
    this.held = { values, truth, lifted, kind };
  }

  /** Lay what is held down at the cursor. */
  carry() {
    const { values, truth, lifted, kind } = this.held;
    this.values = values.slice();
    this.truth = truth.slice();
    for (const { down, right, value } of lifted) {
      const [y, x] = [this.row + down, this.column + right];
      if (y < 0 || x < 0 || y >= SIDE || x >= SIDE) continue;
      this.values[y * SIDE + x] = value;
      this.truth[y * SIDE + x] = kind;
    }
  }

  /** Draw or erase at a place given in pixels. */
  touch(x, y) {
    const reach = this.tool === "draw" ? 1.2 : 2.6;
    for (let row = Math.floor(y) - 3; row <= y + 3; row++) {
      for (let column = Math.floor(x) - 3; column <= x + 3; column++) {
        if (row < 0 || column < 0 || row >= SIDE || column >= SIDE) continue;
        if (Math.hypot(column + 0.5 - x, row + 0.5 - y) > reach) continue;
        const i = row * SIDE + column;
        this.values[i] = this.tool === "draw" ? 0.8 : 0;
        this.truth[i] = this.tool === "draw" ? UNKNOWN : 0;
      }
    }
  }

  build() {
    const { text } = this;
    const names = ({ truth }) => this.named(truth);
    this.thumbs = this.scenes.map(() => node("canvas"));
    const pick = choice(
      text.pick,
      this.scenes.map((scene, i) => ({
        label: fill(text.option, { number: i + 1, classes: names(scene) }),
        show: this.thumbs[i],
      })),
      (i) => {
        this.take(i);
        this.changed();
      },
      { className: "pick" },
    );
    const tools = choice(
      text.tool,
      TOOLS.map((tool) => ({ label: text[tool] })),
      (i) => {
        this.tool = TOOLS[i];
        this.held = null;
      },
    );
    const reset = button(text.reset, () => {
      this.take(this.index);
      this.changed();
    });
    this.canvas = pad(this, text.canvas);
    this.marks = [node("i")];
    const input = node(
      "div",
      { class: "input" },
      node("div", { class: "pad" }, this.canvas, this.marks[0]),
      node("p", { class: "note", id: "hint" }, text.hint),
    );
    this.toggles = Array.from({ length: this.levels }, (_, level) => {
      const cells = SIDE / 2 ** level;
      const turn = () => {
        const cut = this.cut.includes(level);
        this.cut = cut ? this.cut.filter((other) => other !== level) : [...this.cut, level];
        this.toggles[level].setAttribute("aria-pressed", String(cut));
        this.changed();
      };
      const show = fill(text.cells, { cells });
      return button(fill(text.bridge, { cells }), turn, { show, "aria-pressed": "true" });
    });
    const bridges = node(
      "div",
      { class: "bridges", role: "group", "aria-label": text.bridges },
      node("h3", {}, text.bridges),
      node("div", { class: "bar" }, ...this.toggles),
    );
    this.rows = this.classes.map((name) => {
      const bar = node("i");
      const share = node("span");
      return { row: node("li", {}, node("span", {}, name), bar, share), bar, share };
    });
    this.place = node("h3");
    const shares = node(
      "div",
      { class: "shares" },
      this.place,
      node("ol", {}, ...this.rows.map(({ row }) => row)),
    );
    this.panels = Object.fromEntries(
      SHOWN.map((name) => {
        const canvas = node("canvas", {
          role: "img",
          onpointermove: (event) => this.aim(event),
          onpointerdown: (event) => this.aim(event),
        });
        const mark = node("i");
        this.marks.push(mark);
        const pad = node("div", { class: "pad" }, canvas, mark);
        return [name, { canvas, pad, mark }];
      }),
    );
    const panels = node(
      "div",
      { class: "panels" },
      ...SHOWN.map((name) =>
        node("figure", {}, node("figcaption", {}, text[name]), this.panels[name].pad),
      ),
    );
    this.status = node("p", { role: "status" });
    this.layout = node(
      "div",
      { class: "layout" },
      ...[pick, node("div", { class: "bar tools" }, tools, reset), input, shares, bridges, panels],
      this.status,
    );
    return [this.layout];
  }

  quit() {
    clearTimeout(this.timer);
    this.timer = null;
  }

  /** The names of the classes of a mask. */
  named(mask) {
    const kinds = [...new Set(mask)].filter((kind) => kind && kind !== UNKNOWN);
    const names = kinds.sort((a, b) => a - b).map((kind) => this.classes[kind]);
    return names.join(", ") || this.text.nothing;
  }

  /** The scene has changed: show it at once, and let the network look when the hand rests. */
  changed() {
    this.result = null;
    clearTimeout(this.timer);
    this.timer = setTimeout(() => {
      this.compute();
      this.paint();
    }, WAIT);
    this.paint();
  }

  spot(event) {
    const box = event.currentTarget.getBoundingClientRect();
    const x = (SIDE * (event.clientX - box.left)) / box.width;
    const y = (SIDE * (event.clientY - box.top)) / box.height;
    this.go(Math.floor(y), Math.floor(x));
    return [x, y];
  }

  go(row, column) {
    this.row = Math.max(0, Math.min(SIDE - 1, row));
    this.column = Math.max(0, Math.min(SIDE - 1, column));
  }

  press(event) {
    if (event.button) return;
    event.currentTarget.setPointerCapture(event.pointerId);
    this.last = this.spot(event);
    if (this.tool === "move") this.hold();
    else {
      this.touch(...this.last);
      this.changed();
    }
    this.read();
  }

  drag(event) {
    const to = this.spot(event);
    if (this.last && this.tool === "move" && this.held) {
      this.carry();
      this.changed();
    } else if (this.last && this.tool !== "move") {
      stroke(this.last, to, (x, y) => this.touch(x, y), 1);
      this.changed();
    }
    if (this.last) this.last = to;
    this.read();
  }

  lift() {
    this.last = null;
    this.held = null;
    this.say();
  }

  aim(event) {
    this.spot(event);
    this.read();
    if (event.type === "pointerdown") this.say();
  }

  key(event) {
    const [down, right] = arrows(event, event.shiftKey ? 8 : 1);
    const act = event.key === " ";
    if (!act && !down && !right) return;
    event.preventDefault();
    this.go(this.row + down, this.column + right);
    if (act && this.tool === "move") {
      if (this.held) this.held = null;
      else this.hold();
    } else if (act) {
      this.touch(this.column + 0.5, this.row + 0.5);
      this.changed();
    } else if (this.held) {
      this.carry();
      this.changed();
    }
    this.read();
    this.say();
  }

  /** Show where the cursor is, and the probabilities there. */
  read() {
    const { text, row, column } = this;
    for (const mark of this.marks) {
      mark.style.left = `${(100 * (column + 0.5)) / SIDE}%`;
      mark.style.top = `${(100 * (row + 0.5)) / SIDE}%`;
    }
    this.place.textContent = fill(text.shares, { row: row + 1, column: column + 1 });
    if (!this.result) return;
    const shares = this.shares();
    const [first] = ranking(shares);
    this.rows.forEach((each, kind) => {
      each.row.className = kind === first ? "first" : "";
      each.bar.style.transform = `scaleX(${shares[kind]})`;
      each.share.textContent = this.percent(shares[kind]);
    });
  }

  /** The probabilities of the classes under the cursor. */
  shares() {
    const count = this.classes.length;
    const at = (this.row * SIDE + this.column) * count;
    return softmax(this.result.logits.subarray(at, at + count));
  }

  say() {
    const { text, classes, result, row, column } = this;
    if (!result) {
      this.status.textContent = this.held ? text.carried : text.looking;
      return;
    }
    const shares = this.shares();
    const [first, second] = ranking(shares);
    const kind = this.truth[row * SIDE + column];
    const said = [
      fill(text.status, {
        row: row + 1,
        column: column + 1,
        class: classes[first],
        share: this.percent(shares[first]),
        second: classes[second],
        second_share: this.percent(shares[second]),
      }),
      kind === UNKNOWN ? text.drawn : fill(text.is, { class: classes[kind] }),
      result.right === null
        ? text.none
        : fill(text.score, { right: this.percent(result.right), iou: this.number(result.iou) }),
    ];
    if (this.cut.length) said.push(fill(text.cut, { count: this.cut.length }));
    if (this.held) said.push(text.carried);
    this.status.textContent = said.join(" ");
  }

  paint() {
    const { colors, text } = this;
    if (!colors) return;
    const gray = { high: colors.ink, paper: colors.paper };
    if (this.painted !== colors) {
      this.painted = colors;
      this.thumbs.forEach((canvas, i) => picture(canvas, this.scenes[i].values, SIDE, SIDE, gray));
    }
    picture(this.canvas, this.values, SIDE, SIDE, gray);
    if (!this.result && !this.timer) this.changed(); // the first time
    this.layout.classList.toggle("busy", !this.result);
    this.draw("truth", this.truth);
    if (this.result) {
      const { said, wrong } = this.result;
      this.draw("said", said);
      this.draw("wrong", this.truth, wrong);
      const count = wrong.reduce((sum, each) => sum + each, 0);
      this.panels.wrong.canvas.setAttribute("aria-label", fill(text.wrong_picture, { count }));
    } else {
      for (const name of ["said", "wrong"]) {
        const label = this.panels[name].canvas;
        if (!label.hasAttribute("aria-label")) label.setAttribute("aria-label", text.looking);
      }
    }
    this.read();
    this.say();
  }

  /** A mask with borders and names; or, where wrong pixels are given, these upon its borders. */
  draw(name, mask, wrong = null) {
    const { colors, text } = this;
    const { canvas, pad, mark } = this.panels[name];
    const side = SIDE * ZOOM;
    if (canvas.width !== side) canvas.width = canvas.height = side;
    const context = canvas.getContext("2d");
    const family = { high: colors.family, paper: colors.paper };
    const count = this.classes.length;
    context.fillStyle = css(colors.paper);
    context.fillRect(0, 0, side, side);
    for (let i = 0; i < PIXELS; i++) {
      const kind = mask[i];
      const x = (i % SIDE) * ZOOM;
      const y = Math.floor(i / SIDE) * ZOOM;
      if (wrong ? wrong[i] : kind) {
        // Neighboring classes get tones far apart; a tone has no meaning of its own.
        const tone = 0.12 + (0.3 * ((7 * kind) % count)) / count;
        const fillColor = kind === UNKNOWN ? colors.grid : shade(tone, family);
        context.fillStyle = css(wrong ? colors.ink : fillColor);
        context.fillRect(x, y, ZOOM, ZOOM);
      }
    }
    context.fillStyle = css(wrong ? colors.gray : colors.family);
    for (let i = 0; i < PIXELS; i++) {
      const x = i % SIDE;
      const y = Math.floor(i / SIDE);
      if (x && mask[i] !== mask[i - 1]) context.fillRect(x * ZOOM - 1, y * ZOOM, 2, ZOOM);
      if (y && mask[i] !== mask[i - SIDE]) context.fillRect(x * ZOOM, y * ZOOM - 1, ZOOM, 2);
    }
    if (wrong) return;
    const labels = this.parts(mask).map(({ kind, middle }) => {
      const label = node("span", { "aria-hidden": "true" }, this.classes[kind]);
      const place = (part) => Math.max(15, Math.min(85, (100 * part) / SIDE));
      label.style.left = `${place((middle % SIDE) + 0.5)}%`;
      label.style.top = `${(100 * (Math.floor(middle / SIDE) + 0.5)) / SIDE}%`;
      return label;
    });
    pad.replaceChildren(canvas, ...labels, mark);
    canvas.setAttribute("aria-label", fill(text[`${name}_picture`], { classes: this.named(mask) }));
  }
}

customElements.define("trivium-masks", MasksWidget);
