/**
 * <trivium-sentiment>: a snippet, read by a bag of embeddings and by an LSTM, word by word.
 *
 * Data: classes (names of negative, positive), limit (words that are read), words (entry i has the
 * number i + 2; 1 is any other word, 0 stands for nothing), bag and lstm: embeddings (uint8 [V, D], a
 * number is (code - 128) * scale), scale, dense_kernel [_, 2], dense_bias [2]; the LSTM also w_ih
 * [D, 4H], w_hh [H, 4H], b [4H], gates in the order input, forget, cell, output; snippets, a list of
 * {text, rating, orders, minilm}: orders are permutations of its words, minilm the share of positive
 * for the text as it stands and then for each order; text.
 *
 * `element.tokens(text)` gives words, `element.ids(words)` their numbers, `element.bag(ids)` {logits,
 * contributions}, `element.lstm(ids)` the logits after 0, 1, … words.
 */

import { Widget, button, choice, drawn, fill, node, softmax, unpack } from "./trivium.js";

const WORD = /[a-z0-9à-öø-ÿ]+(?:'[a-z]+)?|[!?.,;:]/g;
const CHART = 150;
const LEFT = 40;
const RIGHT = 64;

const VIEWS = ["bag", "lstm"];

export class SentimentWidget extends Widget {
  static family = "recurrence";

  static text = {
    name: "A snippet, classified word by word",
    pick: "Snippet",
    own: "Your own words",
    option: "{number}: {snippet}",
    write: "Change it, or write your own (in English)",
    shuffle: "Shuffle the words",
    restore: "Order as written",
    color: "Color the words by",
    bag: "bag of embeddings",
    lstm: "LSTM",
    minilm: "MiniLM",
    bag_short: "bag",
    lstm_short: "LSTM",
    bag_key: "Under each word its share in the bag's log odds; plain is for, hatched against.",
    lstm_key: "Under each word the change of the LSTM's log odds; plain is for, hatched against.",
    read: "The words as they are read",
    unknown: "not in the vocabulary",
    step: "Words read",
    back: "One word back",
    forward: "One word forward",
    progress: "{step} of {count}",
    chart: "Share of positive after each word",
    chart_picture: "Share of positive after each word: bag {bag}, LSTM {lstm} at the end",
    answers: "Share of positive",
    none: "only for a whole snippet of the list",
    status: "After {step} of {count} words the bag says {bag} ({bag_share}), the LSTM says {lstm} ({lstm_share}).",
    empty: "There is no word: both answer from their bias alone, {bag_share} and {lstm_share} positive.",
    moved: "Shuffling moved the bag by {bag_points} points and the LSTM by {lstm_points}.",
    rating: "People rated it {rating} on the scale from −4 to 4.",
    cut: "Only the first {limit} words are read.",
  };

  static style = `
    .layout { display: grid; gap: 10px; grid-template-columns: minmax(0, 1fr); }
    .pick label { display: flex; align-items: center; gap: 6px; flex: 1; min-width: 0; }
    .pick select { flex: 1; min-width: 0; }
    textarea { font: inherit; font-size: 1rem; color: var(--ink); background: var(--paper);
      width: 100%; height: 92px; padding: 5px 8px; border: 1px solid var(--gray);
      border-radius: 4px; resize: none; display: block; }
    .words { display: flex; flex-wrap: wrap; gap: 3px; align-content: start; list-style: none;
      margin: 0; padding: 0; height: 228px; overflow-y: auto; }
    .words li { display: grid; justify-items: center; padding: 2px 5px; border-radius: 4px;
      border: 1px solid var(--grid); font-size: 0.875rem; height: 42px; }
    .words small { font-size: 0.6875rem; font-variant-numeric: tabular-nums; }
    .words li.later { border-style: dotted; }
    .words li.unknown { border: 1px dashed var(--gray); font-style: italic; }
    .words li.for { background: color-mix(in srgb, var(--shade) calc(var(--part) * 30%),
      transparent); }
    .words li.against { background: repeating-linear-gradient(45deg,
      color-mix(in srgb, var(--shade) calc(var(--part) * 30%), transparent) 0 4px,
      transparent 4px 8px); }
    .step input { flex: 1; }
    .step output { min-width: 5em; text-align: right; font-variant-numeric: tabular-nums; }
    .chart svg { display: block; width: 100%; height: ${CHART}px; overflow: visible; }
    .chart text { font-size: 12px; fill: var(--muted); }
    .chart .axis { stroke: var(--grid); fill: none; }
    .chart .half { stroke: var(--gray); fill: none; stroke-dasharray: 2 3; }
    .chart .now { stroke: var(--ink); stroke-width: 1; }
    .chart .bag { stroke: var(--muted); fill: none; stroke-width: 2; stroke-dasharray: 6 3; }
    .chart .lstm { stroke: var(--family); fill: none; stroke-width: 2; }
    .chart .minilm { fill: var(--attention); }
    .chart text.bag { stroke: none; fill: var(--muted); }
    .chart text.lstm { stroke: none; fill: var(--family); }
    .answers ol { list-style: none; margin: 4px 0 0; padding: 0; }
    .answers li { display: grid; grid-template-columns: 10.2em minmax(0, 1fr) 3.6em; gap: 8px;
      align-items: center; min-height: 22px; }
    .answers li > div { height: 12px; border: 1px solid var(--grid); }
    .answers i { display: block; height: 10px; }
    .answers .bag i { background: repeating-linear-gradient(45deg, var(--ink) 0 3px,
      var(--gray) 3px 6px); }
    .answers .lstm i { background: var(--family); }
    .answers .minilm i { background: var(--attention); }
    .answers li span:last-child { text-align: right; font-variant-numeric: tabular-nums; }
    .answers .none span:last-child { grid-column: 2 / 4; text-align: left; color: var(--muted); }
    .answers .none > div { display: none; }
    [role="status"] { min-height: 8.2em; }
    @container (min-width: 580px) {
      .words { height: 135px; }
      textarea { height: 66px; }
      [role="status"] { min-height: 4.1em; }
    }
  `;

  load(data) {
    if (!Array.isArray(data.words)) throw new Error("words: expected a list");
    this.classes = data.classes;
    this.limit = data.limit;
    this.vocabulary = new Map(data.words.map((word, i) => [word, i + 2]));
    const rows = data.words.length + 2;
    const table = (packed, scale, name) => {
      const { shape, values } = unpack(packed, `${name}.embeddings`, [rows, null]);
      return { width: shape[1], vectors: Float64Array.from(values, (code) => (code - 128) * scale) };
    };
    const { bag, lstm } = data;
    this.bagWeights = table(bag.embeddings, bag.scale, "bag");
    const { width } = this.bagWeights;
    this.bagWeights.kernel = unpack(bag.dense_kernel, "bag.dense_kernel", [width, 2]).values;
    this.bagWeights.bias = unpack(bag.dense_bias, "bag.dense_bias", [2]).values;
    const read = table(lstm.embeddings, lstm.scale, "lstm");
    const hidden = lstm.w_hh.shape[0];
    this.lstmWeights = {
      ...read,
      hidden,
      wIh: unpack(lstm.w_ih, "lstm.w_ih", [read.width, 4 * hidden]).values,
      wHh: unpack(lstm.w_hh, "lstm.w_hh", [hidden, 4 * hidden]).values,
      b: unpack(lstm.b, "lstm.b", [4 * hidden]).values,
      kernel: unpack(lstm.dense_kernel, "lstm.dense_kernel", [hidden, 2]).values,
      bias: unpack(lstm.dense_bias, "lstm.dense_bias", [2]).values,
    };
    this.snippets = data.snippets;
    this.view = "bag";
    this.seed = 1;
    this.take(0);
  }

  /** The words of a text, as they are counted in training: lower case, some signs. */
  tokens(text) {
    return text.toLowerCase().replaceAll("’", "'").match(WORD) ?? [];
  }

  /** The number of each word, 1 where it is not known. */
  ids(words) {
    return words.map((word) => this.vocabulary.get(word) ?? 1);
  }

  /**
   * The bag of embeddings: a mean, and a dense layer.
   *
   * @param {number[]} ids
   * @returns {{logits: number[], contributions: number[]}} and what each word adds to the log odds
   *     of positive; with the bias they sum to it
   */
  bag(ids) {
    const { width, vectors, kernel, bias } = this.bagWeights;
    const logits = Array.from(bias);
    const contributions = ids.map((id) => {
      const sums = [0, 0];
      for (let d = 0; d < width; d++) {
        const value = vectors[id * width + d];
        sums[0] += value * kernel[2 * d];
        sums[1] += value * kernel[2 * d + 1];
      }
      logits[0] += sums[0] / ids.length;
      logits[1] += sums[1] / ids.length;
      return (sums[1] - sums[0]) / ids.length;
    });
    return { logits, contributions };
  }

  /**
   * The LSTM, and its answer after every word.
   *
   * @param {number[]} ids
   * @returns {number[][]} logits after 0, 1, … words
   */
  lstm(ids) {
    const { width, vectors, hidden, wIh, wHh, b, kernel, bias } = this.lstmWeights;
    const columns = 4 * hidden;
    const sigmoid = (x) => 1 / (1 + Math.exp(-x));
    const c = new Float64Array(hidden);
    const h = new Float64Array(hidden);
    const answer = () => {
      const logits = Array.from(bias);
      h.forEach((value, k) => {
        logits[0] += value * kernel[2 * k];
        logits[1] += value * kernel[2 * k + 1];
      });
      return logits;
    };
    const answers = [answer()];
    for (const id of ids) {
      const sums = Float64Array.from(b);
      for (let d = 0; d < width; d++) {
        const x = vectors[id * width + d];
        for (let j = 0; j < columns; j++) sums[j] += x * wIh[d * columns + j];
      }
      for (let k = 0; k < hidden; k++) {
        const before = h[k];
        for (let j = 0; before && j < columns; j++) sums[j] += before * wHh[k * columns + j];
      }
      for (let k = 0; k < hidden; k++) {
        const kept = sigmoid(sums[hidden + k]) * c[k];
        c[k] = kept + sigmoid(sums[k]) * Math.tanh(sums[2 * hidden + k]);
        h[k] = sigmoid(sums[3 * hidden + k]) * Math.tanh(c[k]);
      }
      answers.push(answer());
    }
    return answers;
  }

  /** Take a snippet of the list. */
  take(index) {
    this.index = index;
    this.read(this.snippets[index].text);
  }

  /** Read a text, its words in the order in which they stand. */
  read(text) {
    this.written = text;
    const words = this.tokens(text);
    this.cut = words.length > this.limit;
    this.ordered = words.slice(0, this.limit);
    this.order = null; // null: as written; else the number of an order
    this.words = this.ordered;
    this.compute();
    this.first = { bag: this.share(this.bag(this.numbers).logits), lstm: this.last() };
  }

  compute() {
    this.numbers = this.ids(this.words);
    this.states = this.lstm(this.numbers);
    this.at = this.words.length;
  }

  share(logits) {
    return softmax(logits)[1];
  }

  last() {
    return this.share(this.states.at(-1));
  }

  /** Another order: one of those that came with the snippet, else one by chance. */
  shuffle() {
    const orders = this.index === null ? [] : this.snippets[this.index].orders;
    this.order = this.order === null ? 0 : this.order + 1;
    let places = this.ordered.map((_, i) => i);
    if (orders.length) {
      this.order %= orders.length;
      places = orders[this.order];
    } else {
      for (let i = places.length - 1; i > 0; i--) {
        this.seed = (this.seed * 48271) % 2147483647;
        const j = this.seed % (i + 1);
        [places[i], places[j]] = [places[j], places[i]];
      }
    }
    this.words = places.map((place) => this.ordered[place]);
    this.compute();
  }

  restore() {
    this.order = null;
    this.words = this.ordered;
    this.compute();
  }

  build() {
    const { text } = this;
    const options = this.snippets.map(({ text: snippet }, i) =>
      node("option", { value: i }, fill(text.option, { number: i + 1, snippet })),
    );
    this.select = node(
      "select",
      {
        onchange: () => {
          if (this.select.value !== "own") this.take(+this.select.value);
          else {
            this.index = null;
            this.read("");
          }
          this.area.value = this.written;
          this.update();
        },
      },
      ...options,
      node("option", { value: "own" }, text.own),
    );
    const pick = node("div", { class: "bar pick" }, node("label", {}, text.pick, this.select));
    this.area = node("textarea", {
      "aria-label": text.write,
      placeholder: text.write,
      maxlength: 2000,
      spellcheck: "false",
      oninput: () => {
        this.index = null;
        this.select.value = "own";
        this.read(this.area.value);
        this.update();
      },
    });
    this.area.value = this.written;
    const press = (name, act) =>
      button(
        text[name],
        () => {
          act();
          this.update();
        },
        { class: name },
      );
    this.restoring = press("restore", () => this.restore());
    const order = node(
      "div",
      { class: "bar order" },
      press("shuffle", () => this.shuffle()),
      this.restoring,
    );
    const views = node(
      "div",
      { class: "bar" },
      node("span", {}, text.color),
      choice(
        text.color,
        VIEWS.map((view) => ({ label: text[view] })),
        (i) => {
          this.view = VIEWS[i];
          this.update();
        },
      ),
    );
    this.list = node("ol", { class: "words", tabindex: 0, "aria-label": text.read });
    this.key = node("p", { class: "note" });
    const step = (label, by, show) => button(label, () => this.go(this.at + by), { show });
    this.slider = node("input", {
      type: "range",
      min: 0,
      step: 1,
      "aria-label": text.step,
      oninput: () => this.go(+this.slider.value),
    });
    this.progress = node("output", { "aria-hidden": "true" });
    const steps = node(
      "div",
      { class: "bar step" },
      step(text.back, -1, "←"),
      this.slider,
      step(text.forward, 1, "→"),
      this.progress,
    );
    this.curve = drawn("svg", { role: "img" });
    new ResizeObserver(() => this.draw()).observe(this.curve);
    const chart = node("div", { class: "chart" }, node("h3", {}, text.chart), this.curve);
    this.rows = ["bag", "lstm", "minilm"].map((name) => {
      const bar = node("i");
      const share = node("span");
      const row = node(
        "li",
        { class: name },
        node("span", {}, text[name]),
        node("div", { "aria-hidden": "true" }, bar),
        share,
      );
      return { name, row, bar, share };
    });
    const answers = node(
      "div",
      { class: "answers" },
      node("h3", {}, text.answers),
      node("ol", {}, ...this.rows.map(({ row }) => row)),
    );
    this.status = node("p", { role: "status" });
    return [
      node(
        "div",
        { class: "layout" },
        ...[pick, this.area, order, views, this.list, this.key, steps, chart, answers, this.status],
      ),
    ];
  }

  go(step) {
    this.at = Math.max(0, Math.min(this.words.length, step));
    this.update();
  }

  /** MiniLM's share of positive for what is shown, or null where the build has not computed it. */
  known() {
    if (this.index === null) return null;
    return this.snippets[this.index].minilm[this.order === null ? 0 : this.order + 1];
  }

  paint() {
    this.update();
  }

  update() {
    if (!this.colors) return;
    const { text, classes, at, view } = this;
    const count = this.words.length;
    const { logits, contributions } = this.bag(this.numbers.slice(0, at));
    const odds = this.states.map(([no, yes]) => yes - no);
    const values = view === "bag" ? contributions : odds.slice(1).map((each, i) => each - odds[i]);
    const top = Math.max(view === "bag" ? 0.3 : 1, ...values.slice(0, at).map(Math.abs));
    this.list.replaceChildren(
      ...this.words.map((word, i) => {
        const later = i >= at;
        const unknown = this.numbers[i] === 1;
        const kind = later ? "later" : values[i] < 0 ? "against" : "for";
        const shown = later ? "\u00a0" : `${values[i] > 0 ? "+" : ""}${this.number(values[i])}`;
        const item = node(
          "li",
          { class: unknown ? `${kind} unknown` : kind, title: unknown && text.unknown },
          node("span", {}, word),
          node("small", {}, shown),
        );
        if (!later) item.style.setProperty("--part", (Math.abs(values[i]) / top).toFixed(3));
        return item;
      }),
    );
    this.list.style.setProperty("--shade", view === "bag" ? "var(--ink)" : "var(--family)");
    this.key.textContent = text[`${view}_key`];
    this.restoring.disabled = this.order === null;

    this.slider.max = count;
    this.slider.value = at;
    const progress = fill(text.progress, { step: at, count });
    this.slider.setAttribute("aria-valuetext", progress);
    this.progress.textContent = progress;

    const shares = { bag: this.share(logits), lstm: this.share(this.states[at]) };
    shares.minilm = at === count ? this.known() : null;
    for (const { name, row, bar, share } of this.rows) {
      const value = shares[name];
      row.className = value === null ? `${name} none` : name;
      bar.style.width = `${100 * (value ?? 0)}%`;
      share.textContent = value === null ? text.none : this.percent(value);
    }
    this.draw();

    const verdict = (share) => classes[share >= 0.5 ? 1 : 0];
    const words = {
      step: at,
      count,
      bag: verdict(shares.bag),
      bag_share: this.percent(shares.bag),
      lstm: verdict(shares.lstm),
      lstm_share: this.percent(shares.lstm),
    };
    const said = [fill(at ? text.status : text.empty, words)];
    if (this.order !== null && at === count) {
      const points = (now, before) => this.number(100 * Math.abs(now - before), 0);
      said.push(
        fill(text.moved, {
          bag_points: points(shares.bag, this.first.bag),
          lstm_points: points(shares.lstm, this.first.lstm),
        }),
      );
    }
    if (this.index !== null) {
      const { rating } = this.snippets[this.index];
      said.push(fill(text.rating, { rating: `${rating > 0 ? "+" : ""}${this.number(rating, 1)}` }));
    }
    if (this.cut) said.push(fill(text.cut, { limit: this.limit }));
    this.status.textContent = said.join(" ");
  }

  /** The share of positive after each word, by both. */
  draw() {
    if (!this.colors) return;
    const { text, at } = this;
    const count = this.words.length;
    const width = this.curve.clientWidth;
    const bottom = CHART - 12;
    const x = (i) => LEFT + (i / Math.max(1, count)) * (width - LEFT - RIGHT);
    const y = (share) => 10 + (1 - share) * (bottom - 10);
    const parts = [0, 0.5, 1].flatMap((level) => [
      drawn("path", {
        class: level === 0.5 ? "half" : "axis",
        d: `M${LEFT} ${y(level)}H${width - RIGHT}`,
      }),
      drawn("text", { x: LEFT - 5, y: y(level) + 4, "text-anchor": "end" }, this.percent(level)),
    ]);
    parts.push(drawn("path", { class: "now", d: `M${x(at)} 10V${bottom}` }));
    const lines = {
      bag: this.numbers.map((_, i) => this.share(this.bag(this.numbers.slice(0, i + 1)).logits)),
      lstm: this.states.map((logits) => this.share(logits)),
    };
    lines.bag.unshift(this.share(this.bag([]).logits));
    const ends = VIEWS.map((name) => ({ name, place: y(lines[name].at(-1)) }));
    ends.sort((a, b) => a.place - b.place);
    const apart = Math.max(0, 14 - (ends[1].place - ends[0].place)) / 2;
    ends.forEach(({ name, place }, i) => {
      const points = lines[name].map((share, k) => `${x(k).toFixed(1)} ${y(share).toFixed(1)}`);
      parts.push(
        drawn("path", { class: name, d: `M${points.join("L")}` }),
        drawn(
          "text",
          { class: name, x: x(count) + 10, y: place + 4 + (i ? apart : -apart) },
          text[`${name}_short`],
        ),
      );
    });
    const known = this.known();
    if (known !== null) {
      parts.push(drawn("circle", { class: "minilm", r: 5, cx: x(count), cy: y(known) }));
    }
    this.curve.replaceChildren(...parts);
    const share = Object.fromEntries(VIEWS.map((name) => [name, this.percent(lines[name].at(-1))]));
    this.curve.setAttribute("aria-label", fill(text.chart_picture, share));
  }
}

customElements.define("trivium-sentiment", SentimentWidget);
