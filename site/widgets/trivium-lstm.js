/**
 * <trivium-lstm>: an utterance stepped through the gates of a trained LSTM.
 *
 * Data: w_ih [D, 4H], w_hh [H, 4H], b [4H], dense_kernel [H, classes], dense_bias [classes],
 * sequences (a list of [T, D]), labels [N], classes (names), text.
 * Gates stand in the order input, forget, cell, output; the classifier reads the last hidden state.
 * `element.forward(sequence)` is the whole of it, with the answer it would give after every step.
 */

import {
  Widget,
  button,
  choice,
  drawn,
  fill,
  list,
  node,
  picture,
  ranking,
  softmax,
  unpack,
} from "./trivium.js";

/** What there is to see of a cell, in the order of the choice. */
const KINDS = ["input", "forget", "cell", "output", "c", "h"];
const LETTERS = { input: "i", forget: "f", cell: "g", output: "o", c: "c", h: "h" };

/** Left and right margins of everything that shares the time axis, in pixels. */
const LEFT = 30;
const RIGHT = 26;
const TRACE = 56;
const SPACE = 14;

/** What shares a scale: gates; values that tanh bounds; the state, which has no bound. */
const PANELS = [["input", "forget", "output"], ["cell", "h"], ["c"]];

export class RecurrenceWidget extends Widget {
  static family = "recurrence";

  static text = {
    name: "A trained LSTM, step by step",
    sequence: "Utterance",
    option: "{number}: {class}, {steps} steps",
    back: "One step back",
    forward: "One step forward",
    play: "Play",
    pause: "Pause",
    step: "Step",
    progress: "step {step} of {steps}",
    features: "Input: {count} features",
    features_picture: "The {count} input features up to step {step}",
    show: "Gate or state to show",
    input: "Input gate i of {count} cells",
    forget: "Forget gate f of {count} cells",
    cell: "Candidate g of {count} cells",
    output: "Output gate o of {count} cells",
    c: "Cell state c of {count} cells",
    h: "Hidden state h of {count} cells",
    scale_gate: "The fuller the orange, the nearer to 1.",
    scale_state: "Orange is positive, gray negative; strongest at {top}.",
    picked: "Cell",
    computed: "Cell {number} at step {step}",
    keep: "c = f × c before + i × g",
    keep_numbers: "= {forget} × {before} + {input} × {cell} = {c}",
    give: "h = o × tanh c",
    give_numbers: "= {output} × {tanh} = {h}",
    traces: "Cell {number}",
    traces_picture: "Gates and states of cell {number} over time",
    answer: "Answer if the utterance ended here",
    share: "Share of {class} over time",
    status: "After {step} of {steps} steps the network answers {class} ({share}).",
    truth: "The label says {class}.",
  };

  static style = `
    .layout { display: grid; gap: 12px 20px; grid-template-columns: minmax(0, 1fr);
      grid-template-areas: "pick" "step" "answer" "time" "cell" "sum"; }
    .pick { grid-area: pick; } .step { grid-area: step; } .time { grid-area: time; }
    .cell { grid-area: cell; } .sum { grid-area: sum; font-variant-numeric: tabular-nums; }
    .pick select { flex: 1; min-width: 0; max-width: 300px; margin-left: 6px; }
    .pick label { display: flex; align-items: center; flex: 1; }
    .step input { order: 1; flex: 1 0 100%; }
    .step output { margin-left: auto; min-width: 8.5em; text-align: right;
      font-variant-numeric: tabular-nums; }
    .step .play { min-width: 72px; }
    .time { display: grid; gap: 8px; align-content: start; }
    .time > .bar { justify-content: space-between; }
    .strip { position: relative; margin: 0 ${RIGHT}px 0 ${LEFT}px; }
    .strip canvas { width: 100%; box-shadow: 0 0 0 1px var(--grid); }
    .features canvas { height: 72px; }
    .cells canvas { height: 256px; cursor: pointer; touch-action: pan-y; }
    .strip::before, .strip::after { position: absolute; right: calc(100% + 4px);
      color: var(--muted); font-size: 0.75rem; line-height: 1; }
    .strip::before { content: attr(data-first); top: 0; }
    .strip::after { content: attr(data-last); bottom: 0; }
    .now { position: absolute; top: -3px; bottom: -3px; border: solid var(--ink);
      border-width: 0 1.5px; pointer-events: none; }
    .chosen { position: absolute; left: -3px; right: -3px; border: 1.5px solid var(--ink);
      pointer-events: none; }
    svg { display: block; width: 100%; overflow: visible; }
    .cell svg { height: ${3 * (TRACE + SPACE)}px; }
    svg text { font-size: 12px; fill: var(--muted); }
    svg .axis { stroke: var(--grid); fill: none; }
    svg .line { fill: none; stroke: var(--gray); stroke-width: 1.5; }
    svg .line.on { stroke: var(--family); stroke-width: 2.5; }
    svg text.on { fill: var(--family); font-weight: 600; }
    svg .forget, svg .h { stroke-dasharray: 6 3; } svg .output { stroke-dasharray: 2 3; }
    svg .line.on { stroke-dasharray: none; }
    svg .tick { stroke: var(--ink); }
    .cellbar label { display: flex; gap: 8px; align-items: center; flex: 1; }
    .cellbar input { flex: 1; max-width: 220px; }
    .sum p { margin-top: 4px; }
    .sum .numbers { color: var(--muted); }
    .answer { grid-area: answer; display: grid; gap: 6px; align-content: start; }
    .answer ol { list-style: none; margin: 0; padding: 0; }
    .answer li { display: grid; grid-template-columns: 82px minmax(0, 1fr) 46px; gap: 8px;
      align-items: center; height: 30px; white-space: nowrap; }
    .answer li span { overflow: hidden; text-overflow: ellipsis; }
    .answer li span:last-child { text-align: right; font-variant-numeric: tabular-nums; }
    .answer .first { font-weight: 600; }
    .answer svg { height: 24px; overflow: hidden; }
    .answer path { fill: var(--gray); } .answer .first path { fill: var(--family); }
    .answer [role="status"] { min-height: 4.1em; }
    @media (prefers-reduced-motion: reduce) { .play { display: none; } }
    @container (min-width: 580px) {
      .layout { grid-template-columns: minmax(0, 1.5fr) minmax(200px, 1fr);
        grid-template-areas: "pick pick" "step step" "time answer" "cell sum"; }
      .step input { order: 0; flex: 1; }
      .sum { padding-top: 42px; }
    }
  `;

  load(data) {
    const input = unpack(data.w_ih, "w_ih", [null, null]);
    const [features, columns] = input.shape;
    const hidden = columns / 4;
    if (!Number.isInteger(hidden))
      throw new Error(`w_ih: expected four gates, got [${input.shape}]`);
    this.features = features;
    this.hidden_size = hidden;
    this.wIh = input.values;
    this.wHh = unpack(data.w_hh, "w_hh", [hidden, columns]).values;
    this.b = unpack(data.b, "b", [columns]).values;
    this.classes = data.classes;
    this.dense = unpack(data.dense_kernel, "dense_kernel", [hidden, this.classes.length]).values;
    this.denseBias = unpack(data.dense_bias, "dense_bias", [this.classes.length]).values;
    this.sequences = data.sequences.map(
      (packed, i) => unpack(packed, `sequences[${i}]`, [null, features]).values,
    );
    this.labels = list(data.labels, "labels");
    this.scale = this.sequences.flatMap((values) => Array.from(values, Math.abs));
    this.scale = this.scale.reduce((a, b) => Math.max(a, b), 1e-6);
    this.kind = "c";
    this.cell = 0;
    this.select(0);
    // Begin with the cell whose state moves most.
    const reach = Array.from({ length: hidden }, (_, cell) => {
      const states = Array.from({ length: this.steps }, (_, t) => this.result.c[t * hidden + cell]);
      return Math.max(...states) - Math.min(...states);
    });
    this.cell = ranking(reach)[0];
  }

  /**
   * The LSTM over one sequence, with the answer after every step.
   *
   * @param {ArrayLike<number>} sequence [T, D], step by step
   * @returns {{gates: {input: Float32Array, forget: Float32Array, cell: Float32Array,
   *     output: Float32Array}, c: Float32Array, h: Float32Array, logits: Float32Array[]}} gates and
   *     states [T, H], and for every step the logits of a sequence that ends there
   */
  forward(sequence) {
    const { features, hidden_size: hidden, wIh, wHh, b, dense, denseBias } = this;
    const steps = sequence.length / features;
    const rows = () => new Float32Array(steps * hidden);
    const gates = { input: rows(), forget: rows(), cell: rows(), output: rows() };
    const c = rows();
    const h = rows();
    const logits = [];
    const sigmoid = (x) => 1 / (1 + Math.exp(-x));
    for (let t = 0; t < steps; t++) {
      const sums = Float64Array.from(b);
      for (let d = 0; d < features; d++) {
        const x = sequence[t * features + d];
        for (let j = 0; j < sums.length; j++) sums[j] += x * wIh[d * sums.length + j];
      }
      for (let k = 0; t > 0 && k < hidden; k++) {
        const before = h[(t - 1) * hidden + k];
        for (let j = 0; j < sums.length; j++) sums[j] += before * wHh[k * sums.length + j];
      }
      const answer = Float64Array.from(denseBias);
      for (let k = 0; k < hidden; k++) {
        const at = t * hidden + k;
        gates.input[at] = sigmoid(sums[k]);
        gates.forget[at] = sigmoid(sums[hidden + k]);
        gates.cell[at] = Math.tanh(sums[2 * hidden + k]);
        gates.output[at] = sigmoid(sums[3 * hidden + k]);
        const kept = t > 0 ? gates.forget[at] * c[at - hidden] : 0;
        c[at] = kept + gates.input[at] * gates.cell[at];
        h[at] = gates.output[at] * Math.tanh(c[at]);
        for (let j = 0; j < answer.length; j++) answer[j] += h[at] * dense[k * answer.length + j];
      }
      logits.push(Float32Array.from(answer));
    }
    return { gates, c, h, logits };
  }

  build() {
    const { text, hidden_size: hidden } = this;
    const options = this.sequences.map((values, i) =>
      node(
        "option",
        { value: i },
        fill(text.option, {
          number: i + 1,
          class: this.classes[this.labels[i]],
          steps: values.length / this.features,
        }),
      ),
    );
    const pick = node(
      "div",
      { class: "bar pick" },
      node(
        "label",
        {},
        text.sequence,
        node(
          "select",
          {
            onchange: (event) => {
              this.select(+event.target.value);
              this.update();
            },
          },
          ...options,
        ),
      ),
    );

    this.slider = node("input", {
      type: "range",
      min: 1,
      "aria-label": text.step,
      oninput: () => {
        this.pause();
        this.go(+this.slider.value);
      },
    });
    this.output = node("output", { "aria-hidden": "true" });
    this.button = button(text.play, () => (this.timer ? this.pause() : this.play()), {
      class: "play",
    });
    const arrow = (label, step, show) =>
      button(
        label,
        () => {
          this.pause();
          this.go(this.step + step);
        },
        { show },
      );
    const step = node(
      "div",
      { class: "bar step" },
      arrow(text.back, -1, "←"),
      this.button,
      arrow(text.forward, 1, "→"),
      this.slider,
      this.output,
    );

    this.inputs = node("canvas", { role: "img" });
    this.cells = node("canvas", {
      role: "img",
      onpointerdown: (event) => this.point(event),
      onpointermove: (event) => event.buttons && this.point(event),
    });
    this.nows = [node("span", { class: "now" }), node("span", { class: "now" })];
    this.row = node("span", { class: "chosen" });
    this.heading = node("h3");
    this.key = node("span", { class: "note" });
    const kinds = choice(
      text.show,
      KINDS.map((kind) => ({ label: fill(text[kind], { count: hidden }), show: LETTERS[kind] })),
      (i) => {
        this.kind = KINDS[i];
        this.update();
      },
      { chosen: KINDS.indexOf(this.kind) },
    );
    this.cellSlider = node("input", {
      type: "range",
      min: 1,
      max: hidden,
      value: this.cell + 1,
      oninput: () => {
        this.cell = this.cellSlider.value - 1;
        this.update();
      },
    });
    this.cellName = node("h3");
    this.traces = drawn("svg", { role: "img" });
    new ResizeObserver(() => this.draw()).observe(this.traces);
    this.sum = node("div", { class: "sum" });
    const time = node(
      "div",
      { class: "time" },
      node("h3", {}, fill(text.features, { count: this.features })),
      node(
        "div",
        { class: "strip features", "data-first": 1, "data-last": this.features },
        this.inputs,
        this.nows[0],
      ),
      node("div", { class: "bar" }, this.heading, kinds),
      node(
        "div",
        { class: "strip cells", "data-first": 1, "data-last": hidden },
        this.cells,
        this.nows[1],
        this.row,
      ),
      this.key,
    );
    const cell = node(
      "div",
      { class: "cell" },
      node(
        "div",
        { class: "bar cellbar" },
        this.cellName,
        node("label", {}, node("span", { class: "unseen" }, text.picked), this.cellSlider),
      ),
      this.traces,
    );

    this.rows = this.classes.map((name) => {
      const path = drawn("path");
      const row = node(
        "li",
        {},
        node("span", { title: name }, name),
        drawn("svg", { preserveAspectRatio: "none", "aria-hidden": "true" }, path),
        node("span"),
      );
      return { row, path, chart: row.children[1], share: row.children[2] };
    });
    this.status = node("p", { role: "status" });
    const answer = node(
      "div",
      { class: "answer" },
      node("h3", {}, text.answer),
      node("ol", {}, ...this.rows.map(({ row }) => row)),
      this.status,
    );
    return [node("div", { class: "layout" }, pick, step, answer, time, cell, this.sum)];
  }

  select(index) {
    this.pause();
    this.index = index;
    this.result = this.forward(this.sequences[index]);
    this.steps = this.result.logits.length;
    this.step = this.steps;
  }

  go(step) {
    this.step = Math.max(1, Math.min(this.steps, step));
    this.update();
  }

  play() {
    if (this.step === this.steps) this.go(1);
    // Read aloud only where it stops.
    this.status.setAttribute("aria-live", "off");
    this.button.textContent = this.text.pause;
    this.timer = setInterval(() => {
      this.go(this.step + 1);
      if (this.step === this.steps) this.pause();
    }, 350);
  }

  pause() {
    if (!this.timer) return;
    clearInterval(this.timer);
    this.timer = null;
    this.button.textContent = this.text.play;
    this.status.removeAttribute("aria-live");
    this.say();
  }

  quit() {
    this.pause();
  }

  point(event) {
    const box = this.cells.getBoundingClientRect();
    const cell = Math.floor(((event.clientY - box.top) / box.height) * this.hidden_size);
    this.cell = Math.max(0, Math.min(this.hidden_size - 1, cell));
    this.cellSlider.value = this.cell + 1;
    this.update();
  }

  values(kind) {
    return this.result.gates[kind] ?? this.result[kind];
  }

  say() {
    const { text, classes, step, steps } = this;
    const shares = softmax(this.result.logits[step - 1]);
    const first = ranking(shares)[0];
    const words = { step, steps, class: classes[first], share: this.percent(shares[first]) };
    const truth = fill(text.truth, { class: classes[this.labels[this.index]] });
    this.status.textContent = `${fill(text.status, words)} ${truth}`;
  }

  paint() {
    this.update();
  }

  update() {
    if (!this.colors) return;
    const { text, colors, step, steps, hidden_size: hidden, features, kind, cell } = this;
    const orange = { high: colors.family, low: colors.gray, paper: colors.paper };
    const progress = fill(text.progress, { step, steps });
    this.slider.max = steps;
    this.slider.value = step;
    this.slider.setAttribute("aria-valuetext", progress);
    this.output.textContent = progress;

    const turned = (values, rows) =>
      Float32Array.from(
        { length: rows * steps },
        (_, i) => values[(i % steps) * rows + Math.floor(i / steps)],
      );
    const sequence = this.sequences[this.index];
    picture(this.inputs, turned(sequence, features), features, steps, orange, this.scale, step);
    this.inputs.setAttribute("aria-label", fill(text.features_picture, { count: features, step }));
    const gate = ["input", "forget", "output"].includes(kind);
    const values = this.values(kind);
    const top = gate ? 1 : values.reduce((a, b) => Math.max(a, Math.abs(b)), 1e-6);
    picture(this.cells, turned(values, hidden), hidden, steps, orange, top, step);
    this.heading.textContent = fill(text[kind], { count: hidden });
    this.cells.setAttribute("aria-label", this.heading.textContent);
    this.key.textContent = gate
      ? text.scale_gate
      : fill(text.scale_state, { top: this.number(top) });
    for (const now of this.nows) {
      now.style.left = `${(100 * (step - 1)) / steps}%`;
      now.style.width = `${100 / steps}%`;
    }
    this.row.style.top = `calc(${(100 * cell) / hidden}% - 1.5px)`;
    this.row.style.height = `calc(${100 / hidden}% + 3px)`;

    this.cellName.textContent = fill(text.traces, { number: cell + 1 });
    this.compute();
    this.draw();

    const shares = this.result.logits.map(softmax);
    const first = ranking(shares[step - 1])[0];
    this.rows.forEach(({ row, path, chart, share }, i) => {
      row.className = i === first ? "first" : "";
      chart.setAttribute("viewBox", `0 0 ${steps} 1`);
      const columns = shares.slice(0, step).map((at, t) => `M${t} 1V${1 - at[i]}h1V1z`);
      path.setAttribute("d", columns.join(""));
      share.textContent = this.percent(shares[step - 1][i]);
    });
    this.say();
  }

  /** The chosen cell's last step, with its numbers. */
  compute() {
    const { text, step, cell, hidden_size: hidden } = this;
    const at = (step - 1) * hidden + cell;
    const { c } = this.result;
    const numbers = { before: step > 1 ? c[at - hidden] : 0, tanh: Math.tanh(c[at]) };
    for (const kind of KINDS) numbers[kind] = this.values(kind)[at];
    for (const name of Object.keys(numbers)) numbers[name] = this.number(numbers[name]);
    const line = (name, className) =>
      node("p", { class: className }, fill(text[name], { number: cell + 1, step, ...numbers }));
    const title = node("h3", {}, fill(text.computed, { number: cell + 1, step }));
    this.sum.replaceChildren(
      title,
      line("keep"),
      line("keep_numbers", "numbers"),
      line("give"),
      line("give_numbers", "numbers"),
    );
  }

  /** The chosen cell's gates and states up to now, each line named at its end. */
  draw() {
    const { text, step, steps, cell, hidden_size: hidden } = this;
    const width = this.traces.clientWidth;
    const x = (t) => LEFT + ((t + 0.5) / steps) * (width - LEFT - RIGHT);
    const parts = [];
    PANELS.forEach((kinds, panel) => {
      const top = SPACE / 2 + panel * (TRACE + SPACE);
      const reach = kinds.flatMap((kind) =>
        Array.from({ length: steps }, (_, t) => this.values(kind)[t * hidden + cell]),
      );
      const high = Math.max(1, ...(panel === 2 ? reach.map(Math.abs) : [1]));
      const low = panel === 0 ? 0 : -high;
      const y = (value) => top + TRACE * (1 - (value - low) / (high - low));
      const levels = low < 0 ? [low, 0, high] : [low, high];
      for (const level of levels) {
        parts.push(
          drawn("path", { class: "axis", d: `M${LEFT} ${y(level)}H${width - RIGHT}` }),
          drawn(
            "text",
            { x: LEFT - 4, y: y(level) + 4, "text-anchor": "end" },
            this.number(level, Number.isInteger(level) ? 0 : 1),
          ),
        );
      }
      parts.push(drawn("path", { class: "tick", d: `M${x(step - 1)} ${top}v${TRACE}` }));
      const ends = [];
      for (const kind of [...kinds].sort((a, b) => (a === this.kind) - (b === this.kind))) {
        const on = kind === this.kind ? " on" : "";
        const points = Array.from(
          { length: step },
          (_, t) => `${x(t).toFixed(1)} ${y(this.values(kind)[t * hidden + cell]).toFixed(1)}`,
        );
        parts.push(drawn("path", { class: `line ${kind}${on}`, d: `M${points.join("L")}` }));
        ends.push({ kind, on, y: y(this.values(kind)[(step - 1) * hidden + cell]) });
      }
      ends.sort((a, b) => a.y - b.y);
      // Names of lines that end close together are moved apart, down first, then up from the floor.
      ends.forEach((end, i) => (end.y = Math.max(end.y, i ? ends[i - 1].y + 13 : top)));
      ends
        .reverse()
        .forEach((end, i) => (end.y = Math.min(end.y, i ? ends[i - 1].y - 13 : top + TRACE)));
      for (const end of ends) {
        parts.push(
          drawn("text", { class: end.on, x: x(step - 1) + 8, y: end.y + 4 }, LETTERS[end.kind]),
        );
      }
    });
    this.traces.replaceChildren(...parts);
    this.traces.setAttribute("aria-label", fill(text.traces_picture, { number: cell + 1 }));
  }
}

customElements.define("trivium-lstm", RecurrenceWidget);
