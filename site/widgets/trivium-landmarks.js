/**
 * <trivium-landmarks>: landmark models in a plane whose axes the reader chooses.
 *
 * Data: models (a list of {name, year, family, note, values {parameters, examples, compute}, shown
 * (the same as text)}; null where unknown), text. Families are dense, convolution, recurrence,
 * attention and mixed. `element.places()` gives what is drawn.
 */

import { Widget, button, drawn, fill, node } from "./trivium.js";

const FAMILIES = ["dense", "convolution", "recurrence", "attention", "mixed"];
const AXES = ["year", "parameters", "examples", "compute"];
const HEIGHT = 340;
const MARGIN = { left: 40, right: 14, top: 12, bottom: 30 };

/** A mark for each family, of about one area, around the origin. */
const MARKS = {
  dense: "M-4.5 -4.5H4.5V4.5H-4.5Z",
  convolution: "M-5 0A5 5 0 1 0 5 0A5 5 0 1 0 -5 0Z",
  recurrence: "M0 -6L5.6 4.5H-5.6Z",
  attention: "M0 -6.2L6.2 0L0 6.2L-6.2 0Z",
  mixed: "M-2 -6H2V-2H6V2H2V6H-2V2H-6V-2H-2Z",
};

export class LandmarksWidget extends Widget {
  static family = "none";

  static text = {
    name: "Landmark models, by axes of your choice",
    across: "Across",
    up: "Up",
    year: "Year",
    parameters: "Parameters",
    examples: "Examples read",
    compute: "Training FLOP",
    families: "Families",
    dense: "dense",
    convolution: "convolution",
    recurrence: "recurrence",
    attention: "attention",
    mixed: "mixed",
    model: "Model",
    back: "Model before",
    forward: "Next model",
    chart: "{count} of {all} models have both, {up} above {across}",
    unknown: "not stated",
    status: "{name}, {year}, {family}. Parameters: {parameters}. Examples read: {examples}. Training FLOP: {compute}.",
  };

  static style = `
    .layout { display: grid; gap: 10px; grid-template-columns: minmax(0, 1fr); }
    .axes { display: grid; gap: 6px 16px; grid-template-columns: minmax(0, 1fr); }
    .axes label, .model label { display: flex; align-items: center; gap: 6px; }
    .axes select { flex: 1; min-width: 0; max-width: 200px; }
    .model label { flex: 1; min-width: 0; }
    .model select { flex: 1; min-width: 0; max-width: 260px; }
    .families button { display: flex; align-items: center; gap: 5px; padding: 2px 7px;
      font-size: 0.8125rem; }
    .families button[aria-pressed="false"] { color: var(--muted); border-style: dashed; }
    .families svg { width: 14px; height: 14px; overflow: visible; }
    .families button[aria-pressed="false"] svg { opacity: 0.35; }
    .chart { display: block; width: 100%; height: ${HEIGHT}px; overflow: visible;
      cursor: pointer; touch-action: pan-y; }
    .chart text { font-size: 12px; fill: var(--muted); }
    .chart .name { fill: var(--ink); font-weight: 600; }
    .axis { stroke: var(--grid); fill: none; }
    .ring { fill: none; stroke: var(--ink); stroke-width: 1.5; }
    .dense { fill: var(--muted); } .convolution { fill: var(--convolution); }
    .recurrence { fill: var(--recurrence); } .attention { fill: var(--attention); }
    .mixed { fill: var(--ink); }
    [role="status"] { min-height: 5.5em; }
    @container (min-width: 580px) {
      .axes { grid-template-columns: repeat(2, minmax(0, 1fr)); }
      [role="status"] { min-height: 4.1em; }
    }
  `;

  load(data) {
    if (!Array.isArray(data.models)) throw new Error("models: expected a list");
    this.models = data.models;
    for (const { name, family } of this.models) {
      if (!FAMILIES.includes(family)) throw new Error(`${name}: no family ${family}`);
    }
    this.across = "examples";
    this.up = "parameters";
    this.shown = new Set(FAMILIES);
    this.index = Math.max(0, this.models.length - 1);
  }

  build() {
    const { text } = this;
    const axis = (which) =>
      node(
        "label",
        {},
        text[which],
        node(
          "select",
          {
            onchange: (event) => {
              this[which] = event.target.value;
              this.update();
            },
          },
          ...AXES.map((name) =>
            node("option", { value: name, selected: name === this[which] }, text[name]),
          ),
        ),
      );
    const axes = node("div", { class: "axes" }, axis("across"), axis("up"));
    const families = node(
      "div",
      { class: "bar families", role: "group", "aria-label": text.families },
      ...FAMILIES.map((family) =>
        node(
          "button",
          {
            type: "button",
            "aria-pressed": "true",
            onclick: (event) => {
              const on = !this.shown.delete(family);
              if (on) this.shown.add(family);
              event.currentTarget.setAttribute("aria-pressed", String(on));
              this.update();
            },
          },
          drawn(
            "svg",
            { viewBox: "-7 -7 14 14", "aria-hidden": "true" },
            drawn("path", { class: family, d: MARKS[family] }),
          ),
          text[family],
        ),
      ),
    );
    this.chart = drawn("svg", { class: "chart", role: "img", onclick: (event) => this.point(event) });
    new ResizeObserver(() => this.draw()).observe(this.chart);
    this.select = node(
      "select",
      {
        onchange: () => {
          this.index = +this.select.value;
          this.update();
        },
      },
      ...this.models.map(({ name }, i) => node("option", { value: i }, name)),
    );
    const step = (label, by, show) =>
      button(
        label,
        () => {
          const count = this.models.length;
          this.index = (this.index + by + count) % count;
          this.update();
        },
        { show },
      );
    const model = node(
      "div",
      { class: "bar model" },
      node("label", {}, text.model, this.select),
      step(text.back, -1, "←"),
      step(text.forward, 1, "→"),
    );
    this.status = node("p", { role: "status" });
    return [node("div", { class: "layout" }, axes, families, this.chart, model, this.status)];
  }

  value(model, axis) {
    return axis === "year" ? model.year : model.values[axis];
  }

  /** Where an axis begins and ends: years, or powers of ten. */
  ends(axis) {
    const both = this.models.filter((model) =>
      [this.across, this.up].every((each) => this.value(model, each) != null),
    );
    const values = both.map((model) => this.value(model, axis));
    const [low, high] = [Math.min(...values), Math.max(...values)];
    if (axis === "year") return [low - 2, high + 2];
    return [Math.floor(Math.log10(low)), Math.ceil(Math.log10(high))];
  }

  /** The models that are drawn: their place in the list, and both coordinates, from 0 to 1. */
  places() {
    const scale = (axis) => {
      const [low, high] = this.ends(axis);
      return (value) => ((axis === "year" ? value : Math.log10(value)) - low) / (high - low);
    };
    const [across, up] = [scale(this.across), scale(this.up)];
    return this.models.flatMap((model, index) => {
      const [x, y] = [this.value(model, this.across), this.value(model, this.up)];
      if (x == null || y == null || !this.shown.has(model.family)) return [];
      return [{ index, x: across(x), y: up(y) }];
    });
  }

  /** The nearest model to a click. */
  point(event) {
    const box = this.chart.getBoundingClientRect();
    const near = this.places()
      .map(({ index, x, y }) => {
        const [dx, dy] = [this.x(x) - (event.clientX - box.left), this.y(y) - (event.clientY - box.top)];
        return { index, distance: Math.hypot(dx, dy) };
      })
      .sort((a, b) => a.distance - b.distance)[0];
    if (!near || near.distance > 40) return;
    this.index = near.index;
    this.update();
  }

  x(part) {
    return MARGIN.left + part * (this.chart.clientWidth - MARGIN.left - MARGIN.right);
  }

  y(part) {
    return HEIGHT - MARGIN.bottom - part * (HEIGHT - MARGIN.top - MARGIN.bottom);
  }

  paint() {
    this.update();
  }

  update() {
    if (!this.colors) return;
    const { text } = this;
    const model = this.models[this.index];
    this.select.value = this.index;
    this.status.textContent = fill(text.status, {
      name: model.name,
      year: model.year,
      family: text[model.family],
      parameters: model.shown.parameters || text.unknown,
      examples: model.shown.examples || text.unknown,
      compute: model.shown.compute || text.unknown,
    });
    this.draw();
  }

  /** Lines and labels of one axis: [part from 0 to 1, what to write] for each. */
  ticks(axis, most) {
    const [low, high] = this.ends(axis);
    if (axis === "year") {
      const step = [2, 5, 10, 20, 50].find((each) => (high - low) / each <= most);
      const years = [];
      for (let year = Math.ceil(low / step) * step; year <= high; year += step) years.push(year);
      return years.map((year) => [(year - low) / (high - low), String(year), ""]);
    }
    const step = Math.ceil((high - low) / most);
    const powers = [];
    for (let power = low; power <= high; power += step) powers.push(power);
    return powers.map((power) => [(power - low) / (high - low), "10", String(power)]);
  }

  draw() {
    if (!this.colors || !this.chart.clientWidth) return;
    const { text } = this;
    const [right, bottom] = [this.x(1), this.y(0)];
    const parts = [];
    const label = (attributes, base, power) => {
      const made = drawn("text", attributes, base);
      if (power) made.append(drawn("tspan", { dy: -5, "font-size": 9 }, power));
      return made;
    };
    for (const [part, base, power] of this.ticks(this.up, 6)) {
      const y = this.y(part);
      parts.push(drawn("path", { class: "axis", d: `M${MARGIN.left} ${y}H${right}` }));
      parts.push(label({ x: MARGIN.left - 6, y: y + 4, "text-anchor": "end" }, base, power));
    }
    for (const [part, base, power] of this.ticks(this.across, this.x(1) > 450 ? 7 : 4)) {
      parts.push(drawn("path", { class: "axis", d: `M${this.x(part)} ${bottom}v5` }));
      parts.push(label({ x: this.x(part), y: bottom + 20, "text-anchor": "middle" }, base, power));
    }
    const places = this.places();
    for (const { index, x, y } of places) {
      const model = this.models[index];
      parts.push(
        drawn(
          "path",
          {
            class: model.family,
            d: MARKS[model.family],
            transform: `translate(${this.x(x).toFixed(1)} ${this.y(y).toFixed(1)})`,
          },
          drawn("title", {}, model.name),
        ),
      );
    }
    const chosen = places.find(({ index }) => index === this.index);
    if (chosen) {
      const [x, y] = [this.x(chosen.x), this.y(chosen.y)];
      const left = x > (MARGIN.left + right) / 2;
      parts.push(drawn("circle", { class: "ring", cx: x, cy: y, r: 10 }));
      parts.push(
        drawn(
          "text",
          {
            class: "name",
            x: left ? x - 14 : x + 14,
            y: Math.max(y - 8, MARGIN.top),
            "text-anchor": left ? "end" : "start",
          },
          this.models[this.index].name,
        ),
      );
    }
    this.chart.replaceChildren(...parts);
    const words = { count: places.length, all: this.models.length };
    const names = { across: text[this.across], up: text[this.up] };
    this.chart.setAttribute("aria-label", fill(text.chart, { ...words, ...names }));
  }
}

customElements.define("trivium-landmarks", LandmarksWidget);
