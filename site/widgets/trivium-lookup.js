/**
 * <trivium-lookup>: attention as a lookup, with queries and keys that can be moved in the plane.
 *
 * Data: queries [T, 2], keys [T, 2], values [T], scale, text. Query t is the t-th place of a
 * sequence, so that a causal mask leaves it the keys 1 to t.
 * `element.attend(...)` is the whole of it, `element.online(scores, values)` the same one key at a
 * time.
 */

import { Widget, button, choice, drawn, fill, list, node, picture, unpack } from "./trivium.js";

/** The plane shows -REACH to REACH in both directions, in a drawing of SIZE units. */
const REACH = 3;
const SIZE = 300;
/** Where a dragged point may come to lie. */
const GRID = 0.05;
/** The slider's middle is a scale of 1, its ends are 1/16 and 16. */
const OCTAVES = 4;

export class LookupWidget extends Widget {
  static family = "attention";

  static text = {
    name: "A soft lookup, by hand",
    query: "Query",
    pick: "Query {number}",
    mask: "Mask",
    open: "no mask",
    causal: "causal",
    scale: "Scale",
    scale_shown: "scale {scale}",
    reset: "Reset",
    plane: "Queries and keys in the plane",
    plane_picture:
      "The plane: query {number} as an arrow, and the keys as disks that grow with their weight",
    hint: "Drag the arrow's tip or a key, or type numbers.",
    map: "All weights: queries down, keys across",
    map_picture: "The weights of {count} queries (rows) over {count} keys (columns)",
    key: "Key",
    x: "x",
    y: "y",
    value: "Value",
    score: "Score",
    weight: "Weight",
    of_query: "Query {number}, {axis}",
    of_key: "Key {number}, {axis}",
    of_value: "Value {number}",
    hidden: "masked",
    line: "Values, and their weighted mean",
    line_picture: "The values on a line, as disks that grow with their weight, and their mean",
    online: "Online softmax: one key at a time",
    read: "Keys read",
    back: "One key back",
    forward: "One key on",
    progress: "{read} of {count} keys",
    state: "largest score m = {peak}, sum ℓ = {total}, mean so far o = {mean}",
    nothing: "Nothing is read yet: m = −∞, ℓ = 0, o = 0.",
    skipped: "Key {number} is masked: nothing changes.",
    first: "Key {number}: score {score} is the first, so ℓ = 1 and o = its value.",
    kept: "Key {number}: score {score} is not above m, so what was summed stays.",
    raised: "Key {number}: score {score} is the new m; the old sum is multiplied by {factor}.",
    status:
      "Query {number} gives its largest weight, {share}, to key {key}. The mean of the values is {mean}.",
  };

  static style = `
    .layout { display: grid; gap: 12px 24px; grid-template-columns: minmax(0, 1fr);
      grid-template-areas: "bar" "plane" "table" "line" "status" "map" "online"; }
    .controls { grid-area: bar; gap: 8px 18px; }
    .controls > div { display: flex; gap: 8px; align-items: center; }
    .controls label.scale { display: flex; gap: 8px; align-items: center; flex: 1 1 190px; }
    .scale input { flex: 1; }
    output { font-variant-numeric: tabular-nums; white-space: nowrap; }
    .scale output { min-width: 5.8em; }
    .plane { grid-area: plane; max-width: 330px; width: 100%; justify-self: center; }
    .plane svg { display: block; width: 100%; aspect-ratio: 1; border: 1px solid var(--grid); }
    .numbers { grid-area: table; min-height: 264px; }
    .line { grid-area: line; }
    .map { grid-area: map; }
    .online { grid-area: online; }
    .status { grid-area: status; min-height: 4.05em; }
    table { border-collapse: collapse; width: 100%; table-layout: fixed;
      font-variant-numeric: tabular-nums; }
    th { font-weight: 400; color: var(--muted); font-size: 0.8125rem; text-align: right;
      padding: 0 4px 2px; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
    th:first-child { text-align: left; padding-left: 0; width: 34px; }
    td { padding: 1px 3px; text-align: right; height: 38px; }
    tbody th { color: var(--ink); font-weight: 600; }
    td input { font: inherit; font-size: 0.8125rem; width: 100%; min-height: 34px; padding: 0 3px;
      color: var(--ink); background: transparent; border: 1px solid var(--gray);
      border-radius: 4px; text-align: right; appearance: textfield; -moz-appearance: textfield; }
    td input::-webkit-inner-spin-button { display: none; }
    td.bar { background: linear-gradient(var(--wash), var(--wash)) no-repeat 0 50%;
      background-size: calc(100% * var(--share, 0)) 24px; }
    .masked { color: var(--muted); }
    svg text { font-size: 13px; fill: var(--ink); }
    svg .axis { stroke: var(--grid); }
    svg .foot { stroke: var(--gray); stroke-dasharray: 3 3; }
    svg .ray { stroke: var(--gray); }
    svg .arrow { stroke: var(--ink); stroke-width: 2.5; fill: none; }
    svg .tip { fill: var(--ink); }
    svg .disk { fill: var(--family); }
    svg .rim { fill: none; stroke: var(--family); stroke-width: 1.5; }
    svg .off .rim { stroke: var(--gray); stroke-dasharray: 2 2; }
    svg .off text { fill: var(--muted); }
    svg .grip { fill: transparent; cursor: grab; touch-action: none; }
    .line svg { display: block; width: 100%; height: 74px; overflow: visible; }
    svg .mean { fill: var(--ink); }
    .grid5 { display: grid; grid-template-columns: 18px minmax(0, 180px); gap: 2px; }
    .grid5 .names { display: grid; color: var(--muted); font-size: 0.8125rem; }
    .grid5 .down { grid-row: 2; align-items: center; }
    .grid5 .across { grid-column: 2; grid-auto-flow: column; grid-auto-columns: 1fr;
      text-align: center; }
    .grid5 .sheet { position: relative; }
    .sheet canvas { width: 100%; aspect-ratio: 1; box-shadow: 0 0 0 1px var(--grid);
      cursor: pointer; }
    .chosen { position: absolute; left: -2px; right: -2px; border: 2px solid var(--ink);
      pointer-events: none; }
    .online .bar { margin: 4px 0; }
    .online input { flex: 1; }
    .online p { font-variant-numeric: tabular-nums; }
    .online .what { min-height: 4.05em; }
    .online .state { min-height: 2.7em; }
    @container (min-width: 640px) {
      .layout { grid-template-columns: minmax(0, 310px) minmax(0, 1fr);
        grid-template-areas: "bar bar" "plane table" "line line" "map status" "map online";
        grid-template-rows: auto auto auto auto 1fr; }
      .plane { justify-self: start; }
      .status { min-height: 2.7em; }
    }
  `;

  load(data) {
    const pairs = (packed, name) => {
      const { shape, values } = unpack(packed, name, [null, 2]);
      return Array.from({ length: shape[0] }, (_, i) => [values[2 * i], values[2 * i + 1]]);
    };
    const start = {
      queries: pairs(data.queries, "queries"),
      keys: pairs(data.keys, "keys"),
      values: list(data.values, "values"),
      scale: data.scale,
    };
    this.count = start.values.length;
    if (start.queries.length !== this.count || start.keys.length !== this.count) {
      throw new Error(`queries, keys: expected ${this.count} of each, as many as values`);
    }
    this.start = start;
    this.restore();
  }

  restore() {
    Object.assign(this, structuredClone(this.start));
    this.causal = false;
    this.row = 0;
    this.read = this.count;
  }

  /**
   * Attention of all queries: scores, weights and weighted means.
   *
   * @param {{queries: number[][], keys: number[][], values: number[], scale: number,
   *     causal: boolean}} given what to attend with; a masked score is -Infinity
   * @returns {{scores: number[][], weights: number[][], means: number[]}}
   */
  attend({ queries, keys, values, scale, causal } = this) {
    const scores = queries.map((q, t) =>
      keys.map((k, s) => (causal && s > t ? -Infinity : scale * (q[0] * k[0] + q[1] * k[1]))),
    );
    const weights = scores.map((row) => {
      const peak = Math.max(...row);
      const parts = row.map((score) => Math.exp(score - peak));
      const total = parts.reduce((a, b) => a + b, 0);
      return parts.map((part) => part / total);
    });
    const means = weights.map((row) => row.reduce((sum, w, s) => sum + w * values[s], 0));
    return { scores, weights, means };
  }

  /**
   * One row of attention, a key at a time: what is known before the first key and after each.
   *
   * @param {number[]} scores of one query
   * @param {number[]} values
   * @returns {{peak: number, total: number, mean: number, factor: number}[]} the largest score,
   *     the sum of exponentials relative to it, the mean of the values so far, and by what the
   *     old sum was multiplied
   */
  online(scores, values) {
    let state = { peak: -Infinity, total: 0, mean: 0, factor: 1 };
    const steps = [state];
    scores.forEach((score, s) => {
      if (score > -Infinity) {
        const peak = Math.max(state.peak, score);
        const factor = Math.exp(state.peak - peak);
        const part = Math.exp(score - peak);
        const total = state.total * factor + part;
        const mean = (state.mean * state.total * factor + values[s] * part) / total;
        state = { peak, total, mean, factor };
      }
      steps.push(state);
    });
    return steps;
  }

  build() {
    const { text, count } = this;
    const numbers = Array.from({ length: count }, (_, i) => i + 1);
    const pick = choice(
      text.query,
      numbers.map((number) => ({ label: fill(text.pick, { number }), show: `${number}` })),
      (index) => {
        this.row = index;
        this.update();
      },
    );
    const mask = choice(text.mask, [{ label: text.open }, { label: text.causal }], (index) => {
      this.causal = index === 1;
      this.update();
    });
    this.slider = node("input", {
      type: "range",
      min: -OCTAVES,
      max: OCTAVES,
      step: 0.05,
      "aria-label": text.scale,
      oninput: () => {
        this.scale = 2 ** +this.slider.value;
        this.update();
      },
    });
    this.scaleShown = node("output", { "aria-hidden": "true" });
    const again = () => {
      this.restore();
      pick.inputs[0].checked = mask.inputs[0].checked = true;
      this.update();
    };
    const reset = button(text.reset, again, { class: "reset" });
    const controls = node(
      "div",
      { class: "bar controls" },
      node("div", { class: "query" }, node("span", {}, text.query), pick),
      mask,
      node("label", { class: "scale" }, this.slider, this.scaleShown),
      reset,
    );

    this.planeDrawing = drawn("svg", {
      role: "img",
      viewBox: `0 0 ${SIZE} ${SIZE}`,
      onpointerdown: (event) => this.grasp(event),
      onpointermove: (event) => this.drag(event),
      onpointerup: () => (this.held = null),
      onpointercancel: () => (this.held = null),
    });
    const plane = node(
      "div",
      { class: "plane" },
      node("h3", {}, text.plane),
      this.planeDrawing,
      node("p", { class: "note" }, text.hint),
    );

    this.fields = [];
    const field = (label, get, set, limit) => {
      const input = node("input", {
        type: "number",
        "aria-label": label,
        step: 0.25,
        min: -limit,
        max: limit,
        oninput: () => {
          const value = input.valueAsNumber;
          if (!Number.isFinite(value)) return;
          set(Math.max(-limit, Math.min(limit, value)));
          this.update(input);
        },
        onchange: () => this.update(),
      });
      this.fields.push({ input, get });
      return node("td", {}, input);
    };
    const coordinates = (of, label) =>
      ["x", "y"].map((axis, i) =>
        field(
          label(text[axis]),
          () => of()[i],
          (value) => (of()[i] = value),
          REACH,
        ),
      );
    this.queryName = node("th", { scope: "row" });
    const queryRow = node(
      "tr",
      {},
      this.queryName,
      ...coordinates(
        () => this.queries[this.row],
        (axis) => fill(text.of_query, { number: "", axis }),
      ),
      node("td", { colspan: 3 }),
    );
    this.queryFields = this.fields.slice();
    this.rows = numbers.map((number, s) => {
      const score = node("td");
      const weight = node("td", { class: "bar" });
      const row = node(
        "tr",
        {},
        node("th", { scope: "row" }, `${number}`),
        ...coordinates(
          () => this.keys[s],
          (axis) => fill(text.of_key, { number, axis }),
        ),
        field(
          fill(text.of_value, { number }),
          () => this.values[s],
          (value) => (this.values[s] = value),
          99,
        ),
        score,
        weight,
      );
      return { row, score, weight };
    });
    const heads = ["key", "x", "y", "value", "score", "weight"];
    const table = node(
      "div",
      { class: "numbers" },
      node(
        "table",
        {},
        node(
          "thead",
          {},
          node("tr", {}, ...heads.map((name) => node("th", { scope: "col" }, text[name]))),
        ),
        node("tbody", {}, queryRow, ...this.rows.map(({ row }) => row)),
      ),
    );

    this.lineDrawing = drawn("svg", { role: "img", "aria-label": text.line_picture });
    new ResizeObserver(() => this.colors && this.drawLine()).observe(this.lineDrawing);
    const line = node("div", { class: "line" }, node("h3", {}, text.line), this.lineDrawing);

    this.canvas = node("canvas", {
      role: "img",
      "aria-label": fill(text.map_picture, { count }),
      onpointerdown: (event) => {
        const box = this.canvas.getBoundingClientRect();
        const row = Math.floor(((event.clientY - box.top) / box.height) * count);
        this.row = Math.max(0, Math.min(count - 1, row));
        pick.inputs[this.row].checked = true;
        this.update();
      },
    });
    this.frameOfRow = node("span", { class: "chosen" });
    const names = (className) =>
      node(
        "div",
        { class: `names ${className}`, "aria-hidden": "true" },
        ...numbers.map((number) => node("span", {}, `${number}`)),
      );
    const map = node(
      "div",
      { class: "map" },
      node("h3", {}, text.map),
      node(
        "div",
        { class: "grid5" },
        names("across"),
        names("down"),
        node("div", { class: "sheet" }, this.canvas, this.frameOfRow),
      ),
    );

    this.reader = node("input", {
      type: "range",
      min: 0,
      max: count,
      "aria-label": text.read,
      oninput: () => this.go(+this.reader.value),
    });
    const arrow = (label, step, show) => button(label, () => this.go(this.read + step), { show });
    this.progress = node("output", { "aria-hidden": "true" });
    this.what = node("p", { class: "what" });
    this.state = node("p", { class: "state" });
    const online = node(
      "div",
      { class: "online" },
      node("h3", {}, text.online),
      node(
        "div",
        { class: "bar" },
        arrow(text.back, -1, "←"),
        arrow(text.forward, 1, "→"),
        this.reader,
        this.progress,
      ),
      this.state,
      this.what,
    );
    this.status = node("p", { class: "status", role: "status" });
    return [
      node("div", { class: "layout" }, controls, plane, table, line, this.status, map, online),
    ];
  }

  go(read) {
    this.read = Math.max(0, Math.min(this.count, read));
    this.update();
  }

  /** From the plane to the drawing. */
  place([x, y]) {
    return [(x / REACH + 1) * (SIZE / 2), (1 - y / REACH) * (SIZE / 2)];
  }

  grasp(event) {
    const grip = event.target.closest(".grip");
    if (!grip) return;
    this.held = grip.dataset.key === undefined ? "query" : +grip.dataset.key;
    this.planeDrawing.setPointerCapture(event.pointerId);
  }

  drag(event) {
    if (this.held == null) return;
    const box = this.planeDrawing.getBoundingClientRect();
    const along = (part) => {
      const value = Math.round(((2 * part - 1) * REACH) / GRID) * GRID;
      return Math.max(-REACH, Math.min(REACH, +value.toFixed(2)));
    };
    const point = [
      along((event.clientX - box.left) / box.width),
      along(1 - (event.clientY - box.top) / box.height),
    ];
    if (this.held === "query") this.queries[this.row] = point;
    else this.keys[this.held] = point;
    this.update();
  }

  paint() {
    this.update();
  }

  update(typing = null) {
    if (!this.colors) return;
    const { text, colors, count, row, read } = this;
    this.result = this.attend();
    const { scores, weights, means } = this.result;
    const wash = colors.paper.map((from, i) => from + 0.28 * (colors.family[i] - from));
    this.room.style.setProperty("--wash", `rgb(${wash.map(Math.round).join(" ")})`);

    const scaleText = fill(text.scale_shown, { scale: this.number(this.scale) });
    this.slider.value = Math.log2(this.scale);
    this.slider.setAttribute("aria-valuetext", scaleText);
    this.scaleShown.textContent = scaleText;
    this.queryName.textContent = `q${row + 1}`;
    this.queryFields.forEach(({ input }, i) => {
      const axis = text[["x", "y"][i]];
      input.setAttribute("aria-label", fill(text.of_query, { number: row + 1, axis }));
    });
    for (const { input, get } of this.fields) {
      if (input !== typing) input.value = +get().toFixed(2);
    }
    this.rows.forEach((each, s) => {
      const seen = scores[row][s] > -Infinity;
      each.row.className = seen ? "" : "masked";
      each.score.textContent = seen ? this.number(scores[row][s]) : text.hidden;
      each.weight.textContent = this.percent(weights[row][s]);
      each.weight.style.setProperty("--share", weights[row][s].toFixed(4));
    });
    this.drawPlane();
    this.drawLine();
    const green = { high: colors.family, paper: colors.paper };
    picture(this.canvas, weights.flat(), count, count, green);
    this.frameOfRow.style.top = `calc(${(100 * row) / count}% - 2px)`;
    this.frameOfRow.style.height = `calc(${100 / count}% + 4px)`;

    const progress = fill(text.progress, { read, count });
    this.reader.value = read;
    this.reader.setAttribute("aria-valuetext", progress);
    this.progress.textContent = progress;
    const steps = this.online(scores[row], this.values);
    const now = steps[read];
    const shown = { peak: this.number(now.peak), total: this.number(now.total, 3) };
    this.state.textContent =
      now.peak === -Infinity
        ? text.nothing
        : fill(text.state, { ...shown, mean: this.number(now.mean) });
    this.what.textContent = this.happened(steps, scores[row]);

    const key = weights[row].indexOf(Math.max(...weights[row]));
    this.status.textContent = fill(text.status, {
      number: row + 1,
      key: key + 1,
      share: this.percent(weights[row][key]),
      mean: this.number(means[row]),
    });
  }

  /** What the key read last did, in words. */
  happened(steps, scores) {
    const { text, read } = this;
    if (read === 0) return "";
    const score = scores[read - 1];
    const words = { number: read, score: this.number(score) };
    if (score === -Infinity) return fill(text.skipped, words);
    const before = steps[read - 1];
    if (before.peak === -Infinity) return fill(text.first, words);
    if (score <= before.peak) return fill(text.kept, words);
    return fill(text.raised, { ...words, factor: this.number(steps[read].factor, 3) });
  }

  drawPlane() {
    const { row, keys } = this;
    const weights = this.result.weights[row];
    const scores = this.result.scores[row];
    const q = this.queries[row];
    const [ox, oy] = this.place([0, 0]);
    const [qx, qy] = this.place(q);
    const size = Math.hypot(...q);
    const parts = [
      drawn("path", { class: "axis", d: `M0 ${oy}H${SIZE}M${ox} 0V${SIZE}` }),
    ];
    if (size > 0) {
      // The line along the query, and where each key falls on it: the score is read off there.
      const reach = REACH / Math.max(Math.abs(q[0]), Math.abs(q[1]));
      const [ax, ay] = this.place([q[0] * reach, q[1] * reach]);
      parts.push(drawn("path", { class: "ray", d: `M${2 * ox - ax} ${2 * oy - ay}L${ax} ${ay}` }));
      keys.forEach((k) => {
        const along = (k[0] * q[0] + k[1] * q[1]) / size ** 2;
        const [fx, fy] = this.place([along * q[0], along * q[1]]);
        const [kx, ky] = this.place(k);
        parts.push(drawn("path", { class: "foot", d: `M${kx} ${ky}L${fx} ${fy}` }));
      });
      const [dx, dy] = [q[0] / size, -q[1] / size];
      parts.push(
        drawn("path", { class: "arrow", d: `M${ox} ${oy}L${qx} ${qy}` }),
        drawn("path", {
          class: "tip",
          d: `M${qx + 2 * dx} ${qy + 2 * dy}l${-11 * dx - 6 * dy} ${-11 * dy + 6 * dx}l${12 * dy} ${-12 * dx}z`,
        }),
      );
    }
    keys.forEach((k, s) => {
      const [x, y] = this.place(k);
      const off = scores[s] === -Infinity ? "off" : "";
      parts.push(
        drawn(
          "g",
          { class: off },
          drawn("circle", { class: "disk", cx: x, cy: y, r: 14 * Math.sqrt(weights[s]) }),
          drawn("circle", { class: "rim", cx: x, cy: y, r: 14 }),
          drawn("text", { x: x + 17, y: y + 14 }, `${s + 1}`),
          drawn("circle", { class: "grip", cx: x, cy: y, r: 18, "data-key": s }),
        ),
      );
    });
    parts.push(
      drawn("text", { x: qx + 8, y: qy - 8 }, `q${row + 1}`),
      drawn("circle", { class: "grip", cx: qx, cy: qy, r: 18 }),
    );
    this.planeDrawing.replaceChildren(...parts);
    const label = fill(this.text.plane_picture, { number: row + 1 });
    this.planeDrawing.setAttribute("aria-label", label);
  }

  drawLine() {
    const { row, values, read } = this;
    const width = this.lineDrawing.clientWidth;
    const weights = this.result.weights[row];
    const low = Math.min(...values);
    const high = Math.max(...values, low + 1);
    const x = (value) => 24 + ((value - low) / (high - low)) * (width - 48);
    const parts = [drawn("path", { class: "ray", d: `M8 30H${width - 8}` })];
    values.forEach((value, s) => {
      const off = this.result.scores[row][s] === -Infinity ? "off" : "";
      parts.push(
        drawn(
          "g",
          { class: off },
          drawn("circle", { class: "disk", cx: x(value), cy: 30, r: 14 * Math.sqrt(weights[s]) }),
          drawn("circle", { class: "rim", cx: x(value), cy: 30, r: 14 }),
          drawn("text", { x: x(value), y: 11, "text-anchor": "middle" }, `${s + 1}`),
        ),
      );
    });
    const now = this.online(this.result.scores[row], values)[read];
    if (now.peak > -Infinity) {
      const at = x(now.mean);
      parts.push(
        drawn("path", { class: "mean", d: `M${at} 46l7 12h-14z` }),
        drawn("text", { x: at, y: 72, "text-anchor": "middle" }, this.number(now.mean)),
      );
    }
    this.lineDrawing.replaceChildren(...parts);
  }
}

customElements.define("trivium-lookup", LookupWidget);
