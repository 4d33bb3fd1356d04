/**
 * <trivium-translation>: an encoder-decoder Transformer that translates what is typed, step by step.
 *
 * Data: tokens, the vocabulary as texts; merges, int32 [M, 3]: two ids and the id of both joined, the
 * first rule first; special {unknown, begin, end}, ids; heads, positions, beams, power (of the length);
 * matrices {name: {codes, scales}}: uint8 [D, F], 128 standing for zero, times float32 [F], for each
 * column; the three tables of vectors, "embedding", "source_places" and "target_places", lie so that a
 * column is a vector; norms {name: float32 [D]}; examples, a list of {source, target}; text.
 *
 * `element.cut(text)` gives ids, `element.read(ids, targets)` the logits after each target symbol and
 * the weights of every layer and head on the source, `element.search(ids)` the beams of each step.
 */

import { Widget, button, fill, node, unpack } from "./trivium.js";

const EPSILON = 1e-5;
const ASCII_SIGN = /[!-/:-@[-`{-~]/;

export class TranslationWidget extends Widget {
  static family = "attention";

  static text = {
    name: "A Transformer that translates, step by step",
    examples: "Example",
    own: "your own",
    source: "English",
    translate: "Translate",
    target: "Translation",
    reference: "Translation in the test set",
    none: "none: this string is yours",
    weights: "Weights of",
    all: "layer {layer}, mean of the heads",
    one: "layer {layer}, head {head}",
    step: "Step of the translation",
    back: "One step back",
    forward: "One step forward",
    progress: "{step} of {count}",
    table: "Where the decoder looks: rows are pieces of the source, columns are written pieces",
    candidates: "Likeliest next pieces",
    beams: "Beams kept after this step",
    sum: "log probability",
    finished: "finished",
    best: "best finished text: “{text}”, {score} a piece",
    unfinished: "no text is finished yet",
    status:
      "Step {step}: “{piece}”, with {share}. The weights are largest on “{source}”: {weight}.",
    likelier: "Alone, “{piece}” would be likelier here; the beams found a better whole.",
    unknown: "A character of this string is unknown to the model.",
    empty: "There is nothing to translate: write some English.",
    long: "That is {count} pieces, more than the {most} that the model has places for: shorten it.",
  };

  static style = `
    .layout { display: grid; gap: 8px; grid-template-columns: minmax(0, 1fr); }
    .pick label, .write label { display: flex; align-items: center; gap: 6px; flex: 1; min-width: 0; }
    .pick select, .write input { flex: 1; min-width: 0; }
    .write input { font: inherit; color: var(--ink); background: var(--paper); min-height: 34px;
      padding: 2px 9px; border: 1px solid var(--gray); border-radius: 4px; width: 100%; }
    dl { margin: 0; min-height: 5.6em; }
    dt { color: var(--muted); font-size: 0.8125rem; font-weight: 400; margin: 0; }
    dd { margin: 0 0 4px; font-size: 1rem; overflow-wrap: anywhere; }
    .step input { flex: 1; }
    .step output { min-width: 5em; text-align: right; font-variant-numeric: tabular-nums; }
    .scroll { overflow: auto; height: 250px; border: 1px solid var(--grid); border-radius: 4px; }
    table { border-collapse: separate; border-spacing: 2px; font-size: 0.8125rem; line-height: 1.2;
      margin: 0; }
    th { font-weight: 400; padding: 2px 4px; text-align: center; white-space: pre;
      border: 1px solid transparent; border-radius: 3px; }
    tbody th { text-align: right; color: var(--ink); position: sticky; left: 0;
      background: var(--paper); }
    thead th { cursor: pointer; position: sticky; top: 0; background: var(--paper); }
    thead td { position: sticky; top: 0; left: 0; background: var(--paper); z-index: 1; }
    td { min-width: 2.2em; height: 21px; padding: 0 3px; text-align: center;
      font-variant-numeric: tabular-nums; border-radius: 3px; border: 1px solid transparent;
      background: color-mix(in srgb, var(--family) calc(var(--share, 0) * 45%), transparent); }
    .now { border-color: var(--ink); }
    .later { color: var(--muted); background: transparent; }
    thead .later { background: var(--paper); }
    .below { display: grid; gap: 10px; grid-template-columns: minmax(0, 1fr); }
    ol { list-style: none; margin: 4px 0 0; padding: 0; min-height: 118px; }
    li { display: flex; justify-content: space-between; gap: 8px; min-height: 22px; padding: 1px 6px;
      border-radius: 3px; border: 1px solid transparent; }
    li span:first-child { overflow-wrap: anywhere; white-space: pre-wrap; }
    li span:last-child { font-variant-numeric: tabular-nums; white-space: nowrap; }
    .candidates li { background: linear-gradient(to right,
      color-mix(in srgb, var(--family) 30%, transparent) calc(var(--share) * 100%), transparent 0)
      no-repeat border-box; }
    .chosen { border-color: var(--ink); }
    .beams { min-height: 150px; }
    [role="status"] { min-height: 5.5em; }
    @container (min-width: 600px) {
      .below { grid-template-columns: minmax(0, 2fr) minmax(0, 3fr); }
      [role="status"] { min-height: 2.8em; }
      dl { min-height: 5.2em; }
    }
  `;

  load(data) {
    if (!Array.isArray(data.tokens)) throw new Error("tokens: expected a list");
    this.tokens = data.tokens;
    this.ids = new Map(data.tokens.map((token, id) => [token, id]));
    const merges = unpack(data.merges, "merges", [null, 3]);
    this.merges = new Map();
    for (let rank = 0; rank < merges.shape[0]; rank++) {
      const [left, right, both] = merges.values.subarray(3 * rank, 3 * rank + 3);
      this.merges.set(left * data.tokens.length + right, [rank, both]);
    }
    this.special = data.special;
    this.heads = data.heads;
    this.positions = data.positions;
    this.width = data.norms["norm_source.scale"].shape[0];
    this.beams = data.beams;
    this.power = data.power;
    this.matrices = {};
    for (const [name, { codes, scales }] of Object.entries(data.matrices)) {
      const { shape, values } = unpack(codes, name, [null, null]);
      const steps = unpack(scales, `${name}.scales`, [shape[1]]).values;
      const [rows, columns] = shape;
      const table = rows === this.width && /embedding|places/.test(name);
      const full = new Float32Array(rows * columns);
      for (let d = 0; d < rows; d++) {
        for (let f = 0; f < columns; f++) {
          const value = (values[d * columns + f] - 128) * steps[f];
          full[table ? f * rows + d : d * columns + f] = value;
        }
      }
      this.matrices[name] = { rows, columns, values: full };
    }
    this.norms = Object.fromEntries(
      Object.entries(data.norms).map(([name, p]) => [name, unpack(p, name, [this.width]).values]),
    );
    this.depth = 0;
    while (`decoder.${this.depth}.cross.query.kernel` in this.matrices) this.depth++;
    if (!this.depth || !data.examples?.length) throw new Error("matrices, examples: none found");
    this.examples = data.examples;
    this.layer = this.depth - 1;
    this.head = -1;
    this.at = 0;
    this.result = this.translate(this.examples[0].source);
  }

  // Text becomes pieces.

  /** Words as the tokenizer cuts them: before spaces, and around every sign and digit. */
  words(text) {
    if (!text) return [];
    const marked = text.replaceAll(" ", "▁");
    const words = [];
    let word = "";
    const close = () => {
      if (word) words.push(word);
      word = "";
    };
    for (const letter of marked.startsWith("▁") ? marked : `▁${marked}`) {
      if (letter === "▁") {
        close();
        word = letter;
      } else if (ASCII_SIGN.test(letter) || /[\p{P}\p{N}]/u.test(letter)) {
        close();
        words.push(letter);
      } else word += letter;
    }
    close();
    return words;
  }

  /** Ids of a text's pieces: in each word the earliest rule first, until none applies. */
  cut(text) {
    return this.words(text).flatMap((word) => {
      const ids = Array.from(word, (letter) => this.ids.get(letter) ?? this.special.unknown);
      for (;;) {
        let best = null;
        let place = -1;
        for (let i = 0; i + 1 < ids.length; i++) {
          const found = this.merges.get(ids[i] * this.tokens.length + ids[i + 1]);
          if (found && (!best || found[0] < best[0])) [best, place] = [found, i];
        }
        if (!best) return ids;
        ids.splice(place, 2, best[1]);
      }
    });
  }

  /** Pieces as text again; the mark of a space is one, except at the beginning. */
  join(ids) {
    const signs = Object.values(this.special);
    const pieces = ids.filter((id) => !signs.includes(id)).map((id) => this.tokens[id]);
    return pieces.join("").replaceAll("▁", " ").replace(/^ /, "");
  }

  // The model.

  times(x, name) {
    const { rows, columns, values } = this.matrices[`${name}.kernel`];
    const y = new Float32Array(columns);
    for (let d = 0; d < rows; d++) {
      const factor = x[d];
      for (let f = 0, at = d * columns; f < columns; f++, at++) y[f] += factor * values[at];
    }
    return y;
  }

  normalize(x, name) {
    const scale = this.norms[`${name}.scale`];
    const offset = this.norms[`${name}.offset`];
    const mean = x.reduce((a, b) => a + b, 0) / x.length;
    const variance = x.reduce((a, b) => a + (b - mean) ** 2, 0) / x.length;
    const size = Math.sqrt(variance + EPSILON);
    return x.map((value, d) => ((value - mean) / size) * scale[d] + offset[d]);
  }

  embed(id, place, table) {
    const { width } = this;
    const words = this.matrices.embedding.values;
    const places = this.matrices[table].values;
    const factor = Math.sqrt(width);
    return Float32Array.from(
      { length: width },
      (_, d) => words[id * width + d] * factor + places[place * width + d],
    );
  }

  /** One query on lists of keys and values: what is found, and the weights of each head. */
  attend(query, keys, values) {
    const size = this.width / this.heads;
    const found = new Float32Array(this.width);
    const weights = [];
    for (let head = 0; head < this.heads; head++) {
      const from = head * size;
      const scores = keys.map((key) => {
        let sum = 0;
        for (let i = from; i < from + size; i++) sum += query[i] * key[i];
        return sum / Math.sqrt(size);
      });
      const top = Math.max(...scores);
      const shares = scores.map((score) => Math.exp(score - top));
      const sum = shares.reduce((a, b) => a + b, 0);
      weights.push(Float32Array.from(shares, (share) => share / sum));
      values.forEach((value, s) => {
        const weight = shares[s] / sum;
        for (let i = from; i < from + size; i++) found[i] += weight * value[i];
      });
    }
    return { found, weights };
  }

  transform(x, block) {
    const hidden = this.times(this.normalize(x, `${block}.norm_transform`), `${block}.transform.expand`);
    const bent = hidden.map(
      (z) => 0.5 * z * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (z + 0.044715 * z ** 3))),
    );
    return add(x, this.times(bent, `${block}.transform.contract`));
  }

  /** The source, read once: for each layer of the decoder, keys and values to look back at. */
  encode(ids) {
    let states = ids.map((id, place) => this.embed(id, place, "source_places"));
    for (let layer = 0; `encoder.${layer}.attend.query.kernel` in this.matrices; layer++) {
      const block = `encoder.${layer}`;
      const inputs = states.map((x) => this.normalize(x, `${block}.norm_attend`));
      const both = inputs.map((x) => this.times(x, `${block}.attend.key_value`));
      const keys = both.map((pair) => pair.subarray(0, this.width));
      const values = both.map((pair) => pair.subarray(this.width));
      states = states.map((x, s) => {
        const { found } = this.attend(
          this.times(inputs[s], `${block}.attend.query`), keys, values,
        );
        return this.transform(add(x, this.times(found, `${block}.attend.mix`)), block);
      });
    }
    const memory = states.map((x) => this.normalize(x, "norm_source"));
    return Array.from({ length: this.depth }, (_, layer) => {
      const both = memory.map((x) => this.times(x, `decoder.${layer}.cross.key_value`));
      return {
        keys: both.map((pair) => pair.subarray(0, this.width)),
        values: both.map((pair) => pair.subarray(this.width)),
      };
    });
  }

  /**
   * One symbol of the target more.
   *
   * @param {object[]} sources what `encode` returned
   * @param {object[]} cache keys and values of each layer so far; it is not changed
   * @returns {{logits: Float32Array, weights: Float32Array[][], cache: object[]}}
   */
  extend(sources, cache, id) {
    let x = this.embed(id, cache[0].keys.length, "target_places");
    const weights = [];
    const longer = cache.map(({ keys, values }, layer) => {
      const block = `decoder.${layer}`;
      const input = this.normalize(x, `${block}.norm_attend`);
      const both = this.times(input, `${block}.attend.key_value`);
      const held = {
        keys: [...keys, both.subarray(0, this.width)],
        values: [...values, both.subarray(this.width)],
      };
      const own = this.attend(this.times(input, `${block}.attend.query`), held.keys, held.values);
      x = add(x, this.times(own.found, `${block}.attend.mix`));
      const query = this.times(this.normalize(x, `${block}.norm_cross`), `${block}.cross.query`);
      const across = this.attend(query, sources[layer].keys, sources[layer].values);
      weights.push(across.weights);
      x = this.transform(add(x, this.times(across.found, `${block}.cross.mix`)), block);
      return held;
    });
    const state = this.normalize(x, "norm_target");
    const { values } = this.matrices.embedding;
    const logits = Float32Array.from({ length: this.tokens.length }, (_, token) => {
      let sum = 0;
      for (let d = 0, at = token * this.width; d < this.width; d++, at++) sum += state[d] * values[at];
      return sum;
    });
    return { logits, weights, cache: longer };
  }

  start() {
    return Array.from({ length: this.depth }, () => ({ keys: [], values: [] }));
  }

  /** Logits after each symbol of a target, and the weights on the source. */
  read(ids, targets) {
    const sources = this.encode(ids);
    let cache = this.start();
    return targets.map((id) => {
      const { logits, weights, cache: longer } = this.extend(sources, cache, id);
      cache = longer;
      return { logits, weights };
    });
  }

  /** Beam search as the package does it; with the beams that each step keeps. */
  search(ids) {
    const { begin, end } = this.special;
    const sources = this.encode(ids);
    const most = Math.min(this.positions - 1, 2 * ids.length + 8);
    let live = [{ text: [], total: 0, ...this.extend(sources, this.start(), begin) }];
    let best = { text: [], score: -Infinity };
    const steps = [];
    for (;;) {
      const grown = [];
      for (const beam of live) {
        for (const [token, score] of likeliest(beam.logits, 2 * this.beams)) {
          grown.push({ from: beam, token, total: beam.total + score });
        }
      }
      grown.sort((a, b) => b.total - a.total);
      const going = [];
      for (const each of grown.slice(0, 2 * this.beams)) {
        const text = [...each.from.text, each.token];
        const last = text.length === most;
        if (each.token === end || (last && going.length < this.beams)) {
          const score = each.total / text.length ** this.power;
          if (score > best.score) {
            best = { text: each.token === end ? text.slice(0, -1) : text, score };
          }
        }
        if (each.token !== end && going.length < this.beams) going.push({ ...each, text });
      }
      const kept = going.map(({ text, total }) => ({ text, total }));
      steps.push({ kept, best: best.score > -Infinity ? best : null });
      const longest = most ** this.power;
      const done = going.every(({ total }) => total / longest <= best.score);
      if (done || steps.length === most) return { ...best, steps };
      live = going.map(({ from, token, text, total }) => ({
        text, total, ...this.extend(sources, from.cache, token),
      }));
    }
  }

  /** All that is shown of one string; a message instead where it cannot be translated. */
  translate(text) {
    const ids = this.cut(text.trim());
    if (!ids.length) return { message: this.text.empty };
    if (ids.length > this.positions) {
      const words = { count: ids.length, most: this.positions };
      return { message: fill(this.text.long, words) };
    }
    const found = this.search(ids);
    const written = [...found.text, this.special.end].slice(0, this.positions - 1);
    const read = this.read(ids, [this.special.begin, ...written.slice(0, -1)]);
    return { ids, written, text: this.join(found.text), steps: found.steps, read };
  }

  // What is seen.

  build() {
    const { text } = this;
    const options = this.examples.map(({ source }, i) => node("option", { value: i }, source));
    this.select = node(
      "select",
      { onchange: () => this.example(+this.select.value) },
      ...options,
      node("option", { value: -1, disabled: true }, text.own),
    );
    const pick = node("div", { class: "bar pick" }, node("label", {}, text.examples, this.select));
    this.input = node("input", {
      type: "text", maxlength: 400, spellcheck: "false", autocomplete: "off", lang: "en",
      value: this.examples[0].source,
      onkeydown: (event) => event.key === "Enter" && this.typed(),
    });
    const go = button(text.translate, () => this.typed(), { class: "go" });
    const write = node("div", { class: "bar write" },
      node("label", {}, text.source, this.input), go);
    this.answer = node("dd", { lang: "zh", class: "answer" });
    this.reference = node("dd", { class: "reference" });
    const answers = node("dl", {},
      node("dt", {}, text.target), this.answer, node("dt", {}, text.reference), this.reference);
    const layers = Array.from({ length: this.depth }, (_, layer) => layer).reverse();
    const views = layers.flatMap((layer) => [
      node("option", { value: `${layer} -1` }, fill(text.all, { layer: layer + 1 })),
      ...Array.from({ length: this.heads }, (_, head) =>
        node("option", { value: `${layer} ${head}` },
          fill(text.one, { layer: layer + 1, head: head + 1 }))),
    ]);
    this.view = node("select", {
      onchange: () => {
        [this.layer, this.head] = this.view.value.split(" ").map(Number);
        this.update();
      },
    }, ...views);
    const looked = node("div", { class: "bar pick view" },
      node("label", {}, text.weights, this.view));
    const step = (label, by, show) => button(label, () => this.move(this.at + by), { show });
    this.slider = node("input", {
      type: "range", min: 0, step: 1, "aria-label": text.step,
      oninput: () => this.move(+this.slider.value),
    });
    this.progress = node("output");
    const bar = node("div", { class: "bar step" },
      step(text.back, -1, "←"), this.slider, step(text.forward, 1, "→"), this.progress);
    this.status = node("p", { role: "status" });
    this.table = node("table", { "aria-label": text.table });
    const scroll = node("div", { class: "scroll", tabindex: 0, role: "group",
      "aria-label": text.table }, this.table);
    this.candidates = node("ol", { class: "candidates" });
    this.kept = node("ol", { class: "beams" });
    const below = node("div", { class: "below" },
      node("div", {}, node("h3", {}, text.candidates), this.candidates),
      node("div", {}, node("h3", {}, text.beams), this.kept));
    return [node("div", { class: "layout" },
      pick, write, answers, looked, bar, this.status, scroll, below)];
  }

  example(index) {
    this.input.value = this.examples[index].source;
    this.typed();
  }

  typed() {
    const known = this.examples.findIndex(({ source }) => source === this.input.value.trim());
    this.select.value = known;
    this.result = this.translate(this.input.value);
    this.at = 0;
    this.update();
  }

  move(step) {
    if (this.result.message) return;
    this.at = Math.max(0, Math.min(this.result.written.length - 1, step));
    this.update();
  }

  /** The weights on the source at one step, as the chosen layer and head have them. */
  weights(step) {
    const heads = this.result.read[step].weights[this.layer];
    if (this.head >= 0) return heads[this.head];
    return heads[0].map((_, s) => heads.reduce((sum, each) => sum + each[s], 0) / heads.length);
  }

  paint() {
    this.update();
  }

  update() {
    if (!this.colors) return;
    const { text, result } = this;
    const example = this.examples[+this.select.value];
    this.reference.textContent = example ? example.target : text.none;
    this.reference.lang = example ? "zh" : this.language;
    const count = result.message ? 1 : result.written.length;
    this.slider.max = count - 1;
    this.slider.value = this.at;
    this.slider.disabled = Boolean(result.message);
    const progress = fill(text.progress, { step: result.message ? 0 : this.at + 1, count });
    this.slider.setAttribute("aria-valuetext", progress);
    this.progress.textContent = progress;
    if (result.message) {
      this.answer.textContent = "–";
      this.status.textContent = result.message;
      for (const part of [this.table, this.candidates, this.kept]) part.replaceChildren();
      return;
    }
    this.answer.textContent = result.text || "–";
    const source = result.ids.map((id) => this.tokens[id]);
    const written = result.written.map((id) => this.tokens[id]);
    const columns = written.map((_, step) => this.weights(step));
    const mark = (step) => (step === this.at ? "now" : step > this.at ? "later" : "");
    const head = node("tr", {}, node("td", {}), ...written.map((piece, step) =>
      node("th", { scope: "col", class: mark(step), onclick: () => this.move(step) }, piece)));
    const rows = source.map((piece, s) => {
      const cells = columns.map((weights, step) => {
        const share = step > this.at ? 0 : weights[s];
        const shown = share >= 0.005 ? `${Math.round(100 * share)}` : "";
        const cell = node("td", { class: mark(step) }, shown);
        cell.style.setProperty("--share", share.toFixed(3));
        return cell;
      });
      return node("tr", {}, node("th", { scope: "row" }, piece), ...cells);
    });
    this.table.replaceChildren(node("thead", {}, head), node("tbody", {}, ...rows));
    this.reveal(head.children[this.at + 1]);

    const { logits } = result.read[this.at];
    const chosen = result.written[this.at];
    const top = likeliest(logits, 5);
    if (!top.some(([token]) => token === chosen)) {
      const scores = logScores(logits);
      top.splice(4, 1, [chosen, scores[chosen]]);
    }
    this.candidates.replaceChildren(...top.map(([token, score]) => {
      const item = node("li", { class: token === chosen ? "chosen" : "" },
        node("span", {}, this.tokens[token]), node("span", {}, this.percent(Math.exp(score))));
      item.style.setProperty("--share", Math.exp(score).toFixed(3));
      return item;
    }));

    const { kept, best } = result.steps[Math.min(this.at, result.steps.length - 1)];
    const item = (ids, total) => {
      const prefix = ids.every((id, i) => result.written[i] === id);
      return node("li", { class: prefix ? "chosen" : "" },
        node("span", { lang: "zh" }, this.join(ids) || this.tokens[ids.at(-1)]),
        node("span", { title: text.sum }, this.number(total)));
    };
    const words = best && { text: this.join(best.text), score: this.number(best.score) };
    const finished = node("li", {}, node("span", { class: "note" },
      words ? fill(text.best, words) : text.unfinished));
    this.kept.replaceChildren(...kept.map(({ text: ids, total }) => item(ids, total)), finished);

    const weights = columns[this.at];
    const most = weights.indexOf(Math.max(...weights));
    const score = logScores(logits)[chosen];
    const says = [fill(text.status, {
      step: this.at + 1, piece: this.tokens[chosen], share: this.percent(Math.exp(score)),
      source: source[most], weight: this.percent(weights[most]),
    })];
    if (top[0][0] !== chosen) says.push(fill(text.likelier, { piece: this.tokens[top[0][0]] }));
    if (result.ids.includes(this.special.unknown)) says.push(text.unknown);
    this.status.textContent = says.join(" ");
  }

  /** Scroll the table, and only the table, to the column of this step. */
  reveal(cell) {
    const scroll = this.table.parentElement;
    const right = cell.offsetLeft + cell.offsetWidth;
    if (right > scroll.scrollLeft + scroll.clientWidth || cell.offsetLeft < scroll.scrollLeft + 80) {
      scroll.scrollLeft = Math.max(0, right - scroll.clientWidth + 40);
    }
  }
}

function add(a, b) {
  return a.map((value, i) => value + b[i]);
}

/** The logarithm of the softmax. */
function logScores(logits) {
  const top = logits.reduce((a, b) => Math.max(a, b), -Infinity);
  const sum = logits.reduce((total, value) => total + Math.exp(value - top), 0);
  return logits.map((value) => value - top - Math.log(sum));
}

/** The likeliest tokens with their log probabilities, falling: [[token, score], …]. */
function likeliest(logits, count) {
  const scores = logScores(logits);
  const found = [];
  scores.forEach((score, token) => {
    if (found.length === count && score <= found[count - 1][1]) return;
    let place = found.length;
    while (place > 0 && found[place - 1][1] < score) place--;
    found.splice(place, 0, [token, score]);
    if (found.length > count) found.pop();
  });
  return found;
}

customElements.define("trivium-translation", TranslationWidget);
