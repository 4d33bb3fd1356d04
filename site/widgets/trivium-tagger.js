/**
 * <trivium-tagger>: an address, labeled in the page by the trained LSTM with its random field.
 *
 * Data: weights (each parameter of the Tagger by name, float16 as uint8 [..., 2]); words (those the
 * encoder knows, in order); letters (the characters it knows, as one text); labels (names);
 * examples, a list of {tokens, truth (places in labels)}; text.
 * `element.analyze(text, transitions)` is the whole of it: tokens, best path, scores, marginals.
 */

import { Widget, choice, fill, list, node, ranking, unpack } from "./trivium.js";

const LETTERS = 16; // of a token that are looked at
const WIDTH = 3; // letters that a filter sees at once
const LONGEST = 200; // characters that can be typed

/** The numbers of a half-precision array, float16 as pairs of bytes. */
function halves(packed, name, shape) {
  const bytes = unpack(packed, name, [...shape, 2]).values;
  return Float32Array.from({ length: bytes.length / 2 }, (_, i) => {
    const bits = bytes[2 * i] | (bytes[2 * i + 1] << 8);
    const sign = bits & 0x8000 ? -1 : 1;
    const exponent = (bits >> 10) & 31;
    const fraction = bits & 1023;
    if (exponent === 31) throw new Error(`${name}: expected finite numbers`);
    return sign * (exponent ? (1 + fraction / 1024) * 2 ** (exponent - 15) : fraction * 2 ** -24);
  });
}

/** Logarithm of the sum of exponentials of values, without overflow. */
function logSum(values) {
  const top = values.reduce((a, b) => Math.max(a, b));
  return top + Math.log(values.reduce((sum, value) => sum + Math.exp(value - top), 0));
}

export class TaggerWidget extends Widget {
  static family = "recurrence";

  static text = {
    name: "A trained tagger of addresses",
    example: "Address of the test set",
    own: "your own",
    type: "Or type one",
    transitions: "Transition scores",
    on: "on: best path",
    off: "off: each token alone",
    token: "Token",
    label: "Label",
    rows: "Labels of all tokens",
    next: "then {label} {share}",
    truth: "label of the data: {label}",
    differs_on: "with transitions: {label}",
    differs_off: "without transitions: {label}",
    unknown: "word not known",
    status:
      "{count} tokens. Score of this path: {score}; logarithm of the sum over all paths: {partition}; so its probability is {share}.",
    judged: "{right} of {count} labels are those of the data.",
    changed: "Labels that the transitions change: {changed}.",
    empty: "No token, no label. Type an address.",
    key: "The fuller the orange bar, the more probable the label, all paths considered.",
  };

  static style = `
    .layout { display: grid; gap: 10px; grid-template-columns: minmax(0, 1fr); }
    .pick label { display: flex; flex-wrap: wrap; align-items: center; gap: 2px 8px; flex: 1; min-width: 0; }
    .pick label > span { flex: 0 0 100%; }
    .pick select, .pick input { flex: 1; min-width: 0; width: 100%; }
    .pick input { font: inherit; color: var(--ink); background: var(--paper); min-height: 34px;
      padding: 2px 9px; border: 1px solid var(--gray); border-radius: 4px; }
    .scroll { height: 432px; overflow-y: auto; }
    table { width: 100%; border-collapse: collapse; table-layout: fixed; margin: 0; }
    th, td { text-align: start; font-weight: 400; padding: 4px 8px 4px 0; vertical-align: top;
      border-bottom: 1px solid var(--grid); overflow-wrap: anywhere; }
    thead th { color: var(--muted); font-size: 0.8125rem; }
    tbody th { font-weight: 600; }
    th:first-child { width: 30%; }
    td b { font-weight: 600; }
    td .shown { display: flex; gap: 8px; justify-content: space-between; align-items: baseline; }
    td i { display: block; height: 4px; margin-top: 2px; border-radius: 2px;
      background: linear-gradient(to right, var(--family) calc(var(--share) * 100%), var(--grid) 0); }
    td small { display: block; color: var(--muted); font-size: 0.75rem; }
    td small.strong { color: var(--ink); font-weight: 600; }
    .cell { display: grid; gap: 2px 16px; align-items: start; }
    [role="status"] { min-height: 7em; font-variant-numeric: tabular-nums; }
    @container (min-width: 560px) {
      .pick label > span { flex: 0 0 11.5em; }
      th:first-child { width: 24%; }
      .cell { grid-template-columns: minmax(0, 1.3fr) minmax(0, 1fr); }
      [role="status"] { min-height: 4.2em; }
    }
  `;

  load(data) {
    this.labels = data.labels;
    const count = this.labels.length;
    this.words = new Map(data.words.map((word, i) => [word, i + 2]));
    this.letters = new Map(Array.from(data.letters, (letter, i) => [letter, i + 2]));
    const punctuation = Array.from(data.letters).filter((letter) => !/[\p{L}\p{Nd}]/u.test(letter));
    this.punctuation = new Set(punctuation);
    const size = (name, axis) => {
      const shape = data.weights?.[name]?.shape;
      if (!shape) throw new Error(`weights.${name}: expected a packed array`);
      return shape[axis];
    };
    const [width, letter, filters] = [size("words", 1), size("letters", 1), size("filters", 3)];
    const hidden = size("forth.w_hh", 0);
    this.sizes = { count, width, letter, filters, hidden };
    const shapes = {
      words: [data.words.length + 2, width],
      letters: [this.letters.size + 2, letter],
      filters: [WIDTH, 1, letter, filters],
      filter_bias: [filters],
      "answer.kernel": [2 * hidden, count],
      "answer.bias": [count],
      transitions: [count, count],
      start: [count],
      end: [count],
    };
    for (const way of ["forth", "back"]) {
      shapes[`${way}.w_ih`] = [width + filters, 4 * hidden];
      shapes[`${way}.w_hh`] = [hidden, 4 * hidden];
      shapes[`${way}.b`] = [4 * hidden];
    }
    this.weights = Object.fromEntries(
      Object.entries(shapes).map(([name, shape]) => [
        name,
        halves(data.weights[name], `weights.${name}`, shape),
      ]),
    );
    this.examples = data.examples.map(({ tokens, truth }, i) => {
      const labels = list(truth, `examples[${i}].truth`);
      if (labels.length !== tokens.length) {
        throw new Error(`examples[${i}]: expected a label for each of ${tokens.length} tokens`);
      }
      return { tokens, truth: labels };
    });
    this.transitions = true;
    this.example = 0;
  }

  /** Tokens of a text: at spaces, with # and & for themselves. */
  split(text) {
    return text.match(/[#&]|[^\s#&]+/gu) ?? [];
  }

  /** A token without case and outer punctuation, every digit a 0. */
  plain(token) {
    const signs = Array.from(token);
    let [first, last] = [0, signs.length];
    while (first < last && this.punctuation.has(signs[first])) first++;
    while (first < last && this.punctuation.has(signs[last - 1])) last--;
    const inner = first < last ? signs.slice(first, last).join("") : token;
    return inner.toLowerCase().replace(/\p{Nd}/gu, "0");
  }

  /** The number of a word, 1 if it is not known. */
  number_of(token) {
    return this.words.get(this.plain(token)) ?? 1;
  }

  /** What the convolution reads from a token's letters: the strongest answer of each filter. */
  spell(token) {
    const { letter, filters } = this.sizes;
    const { letters: table, filters: kernel, filter_bias: bias } = this.weights;
    let signs = Array.from(token);
    if (signs.length > LETTERS) {
      signs = [...signs.slice(0, LETTERS / 2), ...signs.slice(-LETTERS / 2)];
    }
    const numbers = signs.map((sign) => this.letters.get(sign) ?? 1);
    const best = new Float64Array(filters);
    for (let place = 0; place < LETTERS; place++) {
      const sums = Float64Array.from(bias);
      for (let shift = 0; shift < WIDTH; shift++) {
        // The window is centered; what is beyond the token's letters is zero.
        const number = numbers[place + shift - 1];
        if (number === undefined) continue;
        for (let i = 0; i < letter; i++) {
          const x = table[number * letter + i];
          const row = (shift * letter + i) * filters;
          for (let j = 0; j < filters; j++) sums[j] += x * kernel[row + j];
        }
      }
      for (let j = 0; j < filters; j++) best[j] = Math.max(best[j], sums[j]);
    }
    return best;
  }

  /** States [T][H] of one LSTM over inputs [T][D], in their order or from the end. */
  read(inputs, way) {
    const { hidden } = this.sizes;
    const [wIh, wHh, b] = ["w_ih", "w_hh", "b"].map((name) => this.weights[`${way}.${name}`]);
    const columns = 4 * hidden;
    const sigmoid = (x) => 1 / (1 + Math.exp(-x));
    let [h, c] = [new Float64Array(hidden), new Float64Array(hidden)];
    const found = new Array(inputs.length);
    for (let step = 0; step < inputs.length; step++) {
      const t = way === "back" ? inputs.length - 1 - step : step;
      const sums = Float64Array.from(b);
      for (let i = 0; i < inputs[t].length; i++) {
        for (let j = 0; j < columns; j++) sums[j] += inputs[t][i] * wIh[i * columns + j];
      }
      for (let i = 0; i < hidden; i++) {
        for (let j = 0; j < columns; j++) sums[j] += h[i] * wHh[i * columns + j];
      }
      c = c.map((before, k) => {
        const kept = sigmoid(sums[hidden + k]) * before;
        return kept + sigmoid(sums[k]) * Math.tanh(sums[2 * hidden + k]);
      });
      h = c.map((cell, k) => sigmoid(sums[3 * hidden + k]) * Math.tanh(cell));
      found[t] = h;
    }
    return found;
  }

  /** Scores of the labels of each token, [T][K]. */
  emissions(tokens) {
    const { count, width, hidden } = this.sizes;
    const inputs = tokens.map((token) => {
      const row = this.number_of(token) * width;
      return [...this.weights.words.subarray(row, row + width), ...this.spell(token)];
    });
    const [forth, back] = [this.read(inputs, "forth"), this.read(inputs, "back")];
    const kernel = this.weights["answer.kernel"];
    return tokens.map((_, t) => {
      const sums = Float64Array.from(this.weights["answer.bias"]);
      for (let i = 0; i < 2 * hidden; i++) {
        const x = i < hidden ? forth[t][i] : back[t][i - hidden];
        for (let k = 0; k < count; k++) sums[k] += x * kernel[i * count + k];
      }
      return sums;
    });
  }

  /**
   * A text, labeled.
   *
   * @param {string} text
   * @param {boolean} [transitions] false leaves every score out that joins two labels or stands for
   *     a beginning or an end: each token is then labeled by itself
   * @returns {{tokens: string[], labels: number[], score: number, partition: number,
   *     marginals: Float64Array[]}} the best path, its score, the logarithm of the sum over all
   *     paths, and the probability of each label at each token [T][K]
   */
  analyze(text, transitions = true) {
    const tokens = this.split(text);
    if (!tokens.length) return { tokens, labels: [], score: 0, partition: 0, marginals: [] };
    const { count } = this.sizes;
    const emissions = this.emissions(tokens);
    const on = transitions ? 1 : 0;
    const [start, end] = [this.weights.start, this.weights.end].map((a) => a.map((x) => on * x));
    const move = (a, b) => on * this.weights.transitions[a * count + b];
    const all = Array.from({ length: count }, (_, k) => k);
    // Sums and best paths up to each token; which label the best path came from.
    const alpha = [all.map((k) => start[k] + emissions[0][k])];
    let best = alpha[0];
    const before = [];
    for (let t = 1; t < tokens.length; t++) {
      const last = best;
      const from = all.map((b) =>
        all.reduce((a, other) => (last[other] + move(other, b) > last[a] + move(a, b) ? other : a), 0),
      );
      best = all.map((b) => last[from[b]] + move(from[b], b) + emissions[t][b]);
      before.push(from);
      const sums = alpha[t - 1];
      alpha.push(all.map((b) => logSum(sums.map((sum, a) => sum + move(a, b))) + emissions[t][b]));
    }
    const closed = all.map((k) => best[k] + end[k]);
    const labels = [all.reduce((a, b) => (closed[b] > closed[a] ? b : a), 0)];
    for (let t = before.length - 1; t >= 0; t--) labels.unshift(before[t][labels[0]]);
    const partition = logSum(alpha.at(-1).map((sum, k) => sum + end[k]));
    // From the end: what follows each label, all continuations considered.
    let beta = Array.from(end);
    const marginals = new Array(tokens.length);
    for (let t = tokens.length - 1; t >= 0; t--) {
      marginals[t] = Float64Array.from(beta, (sum, k) => Math.exp(alpha[t][k] + sum - partition));
      const after = beta.map((sum, k) => sum + emissions[t][k]);
      beta = all.map((a) => logSum(after.map((sum, b) => sum + move(a, b))));
    }
    const score = closed[labels.at(-1)];
    return { tokens, labels, score, partition, marginals };
  }

  build() {
    const { text } = this;
    const title = (i) => this.examples[i].tokens.join(" ");
    this.select = node(
      "select",
      {
        onchange: () => {
          if (+this.select.value < 0) return;
          this.example = +this.select.value;
          this.input.value = title(this.example);
          this.update();
        },
      },
      ...this.examples.map((_, i) => node("option", { value: i }, title(i))),
      node("option", { value: -1, hidden: true }, text.own),
    );
    this.input = node("input", {
      type: "text",
      maxlength: LONGEST,
      spellcheck: "false",
      autocomplete: "off",
      autocapitalize: "off",
      oninput: () => this.update(),
    });
    this.input.value = title(0);
    const named = (name, control) =>
      node("div", { class: "bar pick" }, node("label", {}, node("span", {}, name), control));
    const mode = choice(text.transitions, [{ label: text.on }, { label: text.off }], (i) => {
      this.transitions = i === 0;
      this.update();
    });
    const bar = node("div", { class: "bar mode" }, node("span", {}, text.transitions), mode);
    this.rows = node("tbody");
    const heads = [text.token, text.label].map((name) =>
      node("th", { scope: "col" }, name),
    );
    const table = node("table", {}, node("thead", {}, node("tr", {}, ...heads)), this.rows);
    const region = { class: "scroll", tabindex: 0, role: "region", "aria-label": text.rows };
    this.status = node("p", { role: "status" });
    return [
      node(
        "div",
        { class: "layout" },
        named(text.example, this.select),
        named(text.type, this.input),
        bar,
        this.status,
        node("div", region, table),
        node("p", { class: "note" }, text.key),
      ),
    ];
  }

  paint() {
    this.update();
  }

  update() {
    const { text, labels: names } = this;
    const typed = this.split(this.input.value);
    const same = ({ tokens }) =>
      tokens.length === typed.length && tokens.every((token, i) => token === typed[i]);
    const chosen = this.examples[this.example];
    const found = same(chosen) ? this.example : this.examples.findIndex(same);
    this.select.value = found;
    const truth = this.examples[found]?.truth;
    const result = this.analyze(this.input.value, this.transitions);
    const other = this.analyze(this.input.value, !this.transitions);
    this.rows.replaceChildren(
      ...result.tokens.map((token, t) => {
        const label = result.labels[t];
        const shares = result.marginals[t];
        const next = ranking(shares).find((k) => k !== label);
        const bar = node("i");
        bar.style.setProperty("--share", shares[label].toFixed(3));
        const notes = [];
        const remark = (template, values, className = "") =>
          notes.push(node("small", { class: className }, fill(template, values)));
        if (truth && truth[t] !== label) remark(text.truth, { label: names[truth[t]] }, "strong");
        if (other.labels[t] !== label) {
          const template = this.transitions ? text.differs_off : text.differs_on;
          remark(template, { label: names[other.labels[t]] }, "strong");
        }
        if (shares[next] >= 0.005) {
          remark(text.next, { label: names[next], share: this.percent(shares[next]) });
        }
        if (this.number_of(token) === 1) remark(text.unknown, {});
        const remarks = node("div", {}, ...notes);
        const shown = node(
          "span",
          { class: "shown" },
          node("b", {}, names[label]),
          node("span", {}, this.percent(shares[label])),
        );
        return node(
          "tr",
          {},
          node("th", { scope: "row" }, token),
          node("td", {}, node("div", { class: "cell" }, node("div", {}, shown, bar), remarks)),
        );
      }),
    );
    const count = result.tokens.length;
    if (!count) {
      this.status.textContent = text.empty;
      return;
    }
    const parts = [
      fill(text.status, {
        count,
        score: this.number(result.score),
        partition: this.number(result.partition),
        share: this.percent(Math.exp(result.score - result.partition)),
      }),
    ];
    if (truth) {
      const right = result.labels.filter((label, t) => label === truth[t]).length;
      parts.push(fill(text.judged, { right, count }));
    }
    const changed = result.labels.filter((label, t) => label !== other.labels[t]).length;
    parts.push(fill(text.changed, { changed }));
    this.status.textContent = parts.join(" ");
  }
}

customElements.define("trivium-tagger", TaggerWidget);
