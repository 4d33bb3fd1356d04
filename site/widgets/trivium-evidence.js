/**
 * <trivium-evidence>: pixels of a garment turn black in the order that an explanation gives, and the
 * network's probability of the right class falls.
 *
 * Data: images uint8 [N, 28, 28], ranks int32 [N, M, 784] (0 is removed first), falls float32
 * [N, M, S] (the probability with a share s / (S - 1) of the pixels removed), names [N], methods [M],
 * text. All of it was computed by the run.
 */

import { Widget, choice, drawn, fill, node, picture, unpack } from "./trivium.js";

const WIDTH = 420;
const HEIGHT = 200;
const LEFT = 40;
const BOTTOM = 30;

export class EvidenceWidget extends Widget {
  static family = "convolution";

  static text = {
    name: "Take the evidence away",
    garment: "Garment",
    method: "Order of the pixels",
    share: "Share of pixels removed",
    share_shown: "{share} removed",
    shown: "What the network sees",
    shown_picture: "The garment with {share} of its pixels black, in the order of {method}",
    fall: "Probability of the right class",
    fall_picture: "Probability of {garment} as pixels are removed; the present order in color",
    axis: "share of pixels removed",
    note: "Gray: the other orders. The pixels that went are drawn as a wash of color.",
    status:
      "{garment}, in the order of {method}: with {share} removed, the network gives it {probability}.",
  };

  static style = `
    .layout { display: grid; gap: 12px 24px; grid-template-columns: minmax(0, 1fr); }
    .methods .segments { flex-wrap: wrap; row-gap: 4px; }
    .see canvas { width: 100%; max-width: 250px; aspect-ratio: 1; margin: 4px auto;
      box-shadow: 0 0 0 1px var(--grid); }
    .garments .segments { flex-wrap: wrap; row-gap: 4px; }
    .share { display: flex; gap: 8px; align-items: center; }
    .share input { flex: 1; }
    output { font-variant-numeric: tabular-nums; min-width: 7em; }
    svg { display: block; width: 100%; height: auto; }
    svg text { font-size: 12px; fill: var(--ink); }
    svg .grid { stroke: var(--grid); }
    svg .other { stroke: var(--gray); fill: none; stroke-width: 1.2; }
    svg .own { stroke: var(--family); fill: none; stroke-width: 3; }
    svg .at { fill: var(--family); }
    .status { min-height: 2.7em; }
    .wide { grid-column: 1 / -1; }
    @container (min-width: 640px) {
      .layout { grid-template-columns: minmax(0, 250px) minmax(0, 1fr); }
    }
  `;

  load(data) {
    const images = unpack(data.images, "images", [null, 28, 28]);
    const [count, methods] = [images.shape[0], data.methods?.length];
    this.images = images.values;
    this.ranks = unpack(data.ranks, "ranks", [count, methods, 784]).values;
    const falls = unpack(data.falls, "falls", [count, methods, null]);
    this.falls = falls.values;
    this.levels = falls.shape[2];
    if (data.names?.length !== count) throw new Error(`names: expected ${count} of them`);
    this.names = data.names;
    this.methods = data.methods;
    this.garment = 0;
    this.method = 0;
    this.step = Math.round((this.levels - 1) / 4);
  }

  /** The probabilities of one garment in one order, by the share removed. */
  fallOf(garment, method) {
    const start = (garment * this.methods.length + method) * this.levels;
    return this.falls.subarray(start, start + this.levels);
  }

  /** Pixels 0 to 1 that remain, and -1 for each that was removed and was not black before. */
  remaining(garment, method, step) {
    const start = (garment * this.methods.length + method) * 784;
    const share = step / (this.levels - 1);
    return Float32Array.from({ length: 784 }, (_, i) => {
      const value = this.images[garment * 784 + i] / 255;
      if (this.ranks[start + i] >= share * 784) return value;
      return value > 0 ? -0.4 : -0.15;
    });
  }

  build() {
    const { text } = this;
    const garments = choice(
      text.garment,
      this.names.map((label) => ({ label })),
      (index) => this.change({ garment: index }),
    );
    const methods = choice(
      text.method,
      this.methods.map((label) => ({ label })),
      (index) => this.change({ method: index }),
    );
    this.slider = node("input", {
      type: "range",
      min: 0,
      max: this.levels - 1,
      "aria-label": text.share,
      oninput: () => this.change({ step: +this.slider.value }),
    });
    this.slider.value = this.step;
    this.shown = node("output", { "aria-hidden": "true" });
    this.canvas = node("canvas", { role: "img" });
    this.drawing = drawn("svg", { role: "img", viewBox: `0 0 ${WIDTH} ${HEIGHT}` });
    this.status = node("p", { class: "status wide", role: "status" });
    return [
      node(
        "div",
        { class: "layout" },
        node("div", { class: "wide garments" }, node("h3", {}, text.garment), garments),
        node("div", { class: "wide methods" }, node("h3", {}, text.method), methods),
        node("label", { class: "wide share" }, this.slider, this.shown),
        node("div", { class: "see" }, node("h3", {}, text.shown), this.canvas),
        node(
          "div",
          {},
          node("h3", {}, text.fall),
          this.drawing,
          node("p", { class: "note" }, text.note),
        ),
        this.status,
      ),
    ];
  }

  change(what) {
    Object.assign(this, what);
    this.paint();
  }

  paint() {
    if (!this.colors) return;
    const { text, colors, garment, method, step } = this;
    const percent = (part) => `${Math.round(100 * part)}%`;
    const words = {
      garment: this.names[garment],
      method: this.methods[method],
      share: percent(step / (this.levels - 1)),
      probability: percent(this.fallOf(garment, method)[step]),
    };
    const ink = { high: colors.ink, low: colors.family, paper: colors.paper };
    picture(this.canvas, this.remaining(garment, method, step), 28, 28, ink);
    this.canvas.setAttribute("aria-label", fill(text.shown_picture, words));
    this.shown.textContent = fill(text.share_shown, words);
    this.slider.setAttribute("aria-valuetext", this.shown.textContent);
    this.drawing.setAttribute("aria-label", fill(text.fall_picture, words));
    this.status.textContent = fill(text.status, words);

    const x = (at) => LEFT + (at / (this.levels - 1)) * (WIDTH - LEFT - 12);
    const y = (p) => 10 + (1 - p) * (HEIGHT - BOTTOM - 20);
    const line = (values) => `M${Array.from(values, (p, i) => `${x(i)} ${y(p)}`).join("L")}`;
    const parts = [0, 0.5, 1].flatMap((p) => [
      drawn("path", { class: "grid", d: `M${LEFT} ${y(p)}H${WIDTH - 12}` }),
      drawn("text", { x: LEFT - 6, y: y(p) + 4, "text-anchor": "end" }, percent(p)),
    ]);
    this.methods.forEach((_, other) => {
      if (other === method) return;
      parts.push(drawn("path", { class: "other", d: line(this.fallOf(garment, other)) }));
    });
    const own = this.fallOf(garment, method);
    parts.push(
      drawn("path", { class: "own", d: line(own) }),
      drawn("circle", { class: "at", cx: x(step), cy: y(own[step]), r: 6 }),
      drawn("text", { x: WIDTH / 2, y: HEIGHT - 6, "text-anchor": "middle" }, text.axis),
    );
    this.drawing.replaceChildren(...parts);
  }
}

customElements.define("trivium-evidence", EvidenceWidget);
