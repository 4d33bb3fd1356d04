/**
 * <trivium-online>: the softmax of one query, a tile of keys at a time.
 *
 * Data: scores [16], values [16, 3], tile, count, text; the first `count` keys are shown, 8 or 16, so
 * that every size of a tile divides it. `element.online(scores, values, tile)` is the whole of it,
 * `element.plain(scores, values)` the same all at once.
 */

import { Widget, button, choice, fill, list, node, picture, unpack } from "./trivium.js";

const TILES = [1, 2, 4, 8];
const COUNTS = [8, 16];
const SIZE = 3;
/** Scores that the slider reaches; the button goes beyond. */
const REACH = 6;
/** Its exponential is larger than the largest number of float32. */
const EXTREME = 100;

export class OnlineWidget extends Widget {
  static family = "attention";

  static text = {
    name: "Online softmax, tile by tile",
    length: "Keys",
    length_of: "{count} keys",
    tile: "Keys in a tile",
    tile_of: "{count} in a tile",
    shuffle: "Shuffle",
    extreme: "Extreme score",
    reset: "Reset",
    back: "One tile back",
    forward: "One tile on",
    play: "Play",
    pause: "Pause",
    step: "Tiles read",
    progress: "{step} of {count} tiles",
    keys: "Scores z of the keys: choose one to change it",
    key: "Key {number}, score {score}",
    change: "Score of key {number}",
    changed: "z = {score}",
    weights: "Weight of each key so far, e^(z − m) / ℓ",
    weights_picture: "The weights of the keys read so far; the fuller the green, the larger",
    state: "State",
    before: "before",
    after: "after",
    peak: "maximum m",
    factor: "factor for the old sums",
    total: "sum ℓ",
    result: "Output u / ℓ, three numbers; the mark is the softmax over all keys",
    component: "Number {number}",
    plain: "All at once: m = {peak}, ℓ = {total}, output ({mean}).",
    naive: "Without subtracting m, the sum of e^z in float32 is {sum}.",
    infinite: "∞: it overflows",
    start: "Nothing is read yet: m = −∞, ℓ = 0.",
    first: "Tile {step}: the first maximum is {peak}; the sum is {total}.",
    kept: "Tile {step}: no score above m = {peak}, so the old sum stays (factor 1). The sum is {total}.",
    raised:
      "Tile {step}: m rises to {peak}; what was summed is multiplied by {factor}. The sum is {total}.",
    done: "All keys are read: the same as all at once.",
  };

  static style = `
    .layout { display: grid; gap: 14px 24px; grid-template-columns: minmax(0, 1fr);
      grid-template-areas: "bar" "step" "keys" "weights" "state" "status" "result" "check"; }
    .controls { grid-area: bar; gap: 8px 14px; }
    .controls .size { display: flex; flex-wrap: wrap; gap: 4px 8px; align-items: center; }
    .step { grid-area: step; }
    .step input { order: 1; flex: 1 0 100%; }
    .step output { margin-left: auto; font-variant-numeric: tabular-nums; }
    .step .play { min-width: 72px; }
    .keys { grid-area: keys; }
    .grid { display: grid; grid-template-columns: repeat(8, minmax(0, 1fr)); gap: 6px 0;
      min-height: 206px; align-content: start; margin: 4px 0; }
    .grid span { position: relative; display: grid; height: 100px; align-content: end;
      justify-items: center; border: 1px solid var(--grid); border-width: 1px 0; }
    .grid label:nth-child(8n) span { border-right: 1px solid var(--grid); }
    .grid .edge span { border-left: 2px solid var(--muted); }
    .grid i { position: absolute; left: 22%; right: 22%; background: var(--gray); opacity: 0.35; }
    .grid .read i { opacity: 1; }
    .grid .now span { background: var(--wash); }
    .grid .now i { background: var(--family); opacity: 1; }
    .grid u { position: absolute; left: 0; right: 0; height: 0;
      border-top: 2px dashed var(--ink); text-decoration: none; }
    .grid b { position: relative; font-weight: 400; font-size: 0.75rem; line-height: 1.4;
      font-variant-numeric: tabular-nums; color: var(--ink); }
    .grid input:checked + span { outline: 2px solid var(--ink); outline-offset: -3px; z-index: 1; }
    .grid input:focus-visible + span { outline: 3px solid var(--ink); outline-offset: 0; }
    .change { display: flex; gap: 8px; align-items: center; }
    .change input { flex: 1; }
    .change output { min-width: 5.5em; font-variant-numeric: tabular-nums; }
    .weights { grid-area: weights; }
    .weights canvas { width: 100%; height: 30px; margin-top: 4px;
      box-shadow: 0 0 0 1px var(--grid); }
    .state { grid-area: state; }
    table { border-collapse: collapse; width: 100%; table-layout: fixed;
      font-variant-numeric: tabular-nums; }
    th, td { padding: 3px 4px; text-align: right; font-weight: 400; height: 29px; }
    th { color: var(--muted); font-size: 0.8125rem; }
    tr > :first-child { text-align: left; padding-left: 0; color: var(--ink); width: 46%; }
    tbody tr { border-top: 1px solid var(--grid); }
    .status { grid-area: status; min-height: 4.1em; }
    .result { grid-area: result; }
    .result ol { list-style: none; margin: 0; padding: 0; }
    .result li { display: grid; grid-template-columns: minmax(0, 1fr) 52px; gap: 8px;
      align-items: center; height: 32px; font-variant-numeric: tabular-nums; text-align: right; }
    .track { position: relative; height: 18px; background: var(--wash); }
    .track i { position: absolute; inset: 0 auto 0 0; background: var(--family); }
    .track u { position: absolute; top: -4px; bottom: -4px; width: 0; border-left: 3px solid var(--ink); }
    .check { grid-area: check; display: grid; gap: 4px; align-content: start;
      font-variant-numeric: tabular-nums; min-height: 6.8em; }
    @media (prefers-reduced-motion: reduce) { .play { display: none; } }
    @media (forced-colors: active) {
      .grid i, .track i { background: CanvasText; forced-color-adjust: none; }
    }
    @container (min-width: 600px) {
      .layout { grid-template-columns: minmax(0, 1fr) minmax(0, 1fr);
        grid-template-areas: "bar bar" "step step" "keys keys" "weights weights" "state result"
          "status check"; }
      .step input { order: 0; flex: 1; }
      .status { min-height: 5.5em; }
    }
  `;

  load(data) {
    const most = Math.max(...COUNTS);
    const scores = list(data.scores, "scores");
    const { values } = unpack(data.values, "values", [most, SIZE]);
    if (scores.length !== most) throw new Error(`scores: expected ${most}, got ${scores.length}`);
    if (!TILES.includes(data.tile)) throw new Error(`tile: expected one of ${TILES}`);
    if (!COUNTS.includes(data.count)) throw new Error(`count: expected one of ${COUNTS}`);
    const rows = scores.map((_, s) => Array.from(values.slice(SIZE * s, SIZE * (s + 1))));
    this.start = { all: Array.from(scores), rows, tile: data.tile, count: data.count };
    this.restore();
  }

  restore() {
    Object.assign(this, structuredClone(this.start));
    this.step = 0;
    this.key = this.scores.indexOf(Math.max(...this.scores));
  }

  /** The keys in use. */
  get scores() {
    return this.all.slice(0, this.count);
  }

  get values() {
    return this.rows.slice(0, this.count);
  }

  /**
   * The state before the first tile and after each.
   *
   * @param {number[]} scores
   * @param {number[][]} values a row for each score
   * @param {number} tile how many keys are read at a time
   * @returns {{peak: number, total: number, mixed: number[], factor: number}[]} the largest score,
   *     the sum of exponentials relative to it, the values' sum weighted by them, and by what the
   *     old sums were multiplied
   */
  online(scores, values, tile) {
    const states = [{ peak: -Infinity, total: 0, mixed: values[0].map(() => 0), factor: 1 }];
    for (let first = 0; first < scores.length; first += tile) {
      const old = states.at(-1);
      const z = scores.slice(first, first + tile);
      const peak = Math.max(old.peak, ...z);
      const factor = Math.exp(old.peak - peak);
      const parts = z.map((score) => Math.exp(score - peak));
      const total = factor * old.total + parts.reduce((a, b) => a + b, 0);
      const mixed = old.mixed.map((sum, i) =>
        parts.reduce((a, part, s) => a + part * values[first + s][i], factor * sum),
      );
      states.push({ peak, total, mixed, factor });
    }
    return states;
  }

  /** The softmax over all keys at once: maximum, sum and weighted mean of the values. */
  plain(scores, values) {
    const peak = Math.max(...scores);
    const parts = scores.map((score) => Math.exp(score - peak));
    const total = parts.reduce((a, b) => a + b, 0);
    const mean = values[0].map(
      (_, i) => parts.reduce((a, part, s) => a + part * values[s][i], 0) / total,
    );
    return { peak, total, mean };
  }

  build() {
    const { text } = this;
    this.lengths = choice(
      text.length,
      COUNTS.map((count) => ({ label: fill(text.length_of, { count }), show: `${count}` })),
      (index) => {
        this.pause();
        this.count = COUNTS[index];
        this.step = Math.min(this.step, this.tiles);
        this.key = Math.min(this.key, this.count - 1);
        this.update();
      },
      { chosen: COUNTS.indexOf(this.count) },
    );
    this.sizes = choice(
      text.tile,
      TILES.map((size) => ({ label: fill(text.tile_of, { count: size }), show: `${size}` })),
      (index) => {
        this.pause();
        const read = this.step * this.tile;
        this.tile = TILES[index];
        this.step = Math.floor(read / this.tile);
        this.update();
      },
      { chosen: TILES.indexOf(this.tile) },
    );
    const again = () => {
      this.pause();
      this.restore();
      this.sizes.inputs[TILES.indexOf(this.tile)].checked = true;
      this.lengths.inputs[COUNTS.indexOf(this.count)].checked = true;
      this.update();
    };
    const controls = node(
      "div",
      { class: "bar controls" },
      node("div", { class: "size" }, node("span", {}, text.length), this.lengths),
      node("div", { class: "size" }, node("span", {}, text.tile), this.sizes),
      button(text.shuffle, () => this.shuffle(), { class: "shuffle" }),
      button(text.extreme, () => this.set(EXTREME), { class: "extreme" }),
      button(text.reset, () => again(), { class: "reset" }),
    );

    this.slider = node("input", {
      type: "range",
      min: 0,
      "aria-label": text.step,
      oninput: () => {
        this.pause();
        this.go(+this.slider.value);
      },
    });
    this.progress = node("output", { "aria-hidden": "true" });
    this.button = button(text.play, () => (this.timer ? this.pause() : this.play()), {
      class: "play",
    });
    const arrow = (label, by, show) =>
      button(
        label,
        () => {
          this.pause();
          this.go(this.step + by);
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
      this.progress,
    );

    this.cells = Array.from(this.all, () => ({
      bar: node("i"),
      line: node("u"),
      number: node("b"),
    }));
    this.picks = choice(
      text.keys,
      this.cells.map(({ bar, line, number }, s) => ({
        label: fill(text.key, { number: s + 1, score: "" }),
        show: node("span", { class: "inner" }, bar, line, number),
      })),
      (index) => {
        this.key = index;
        this.update();
      },
      { className: "grid" },
    );
    // The choice wraps what is shown in a span of its own; here that span is the cell.
    for (const inner of this.picks.querySelectorAll(".inner")) inner.replaceWith(...inner.children);
    this.labels = [...this.picks.children];
    this.changer = node("input", {
      type: "range",
      min: -REACH,
      max: REACH,
      step: 0.5,
      oninput: () => this.set(+this.changer.value),
    });
    this.changed = node("output", { "aria-hidden": "true" });
    const keys = node(
      "div",
      { class: "keys" },
      node("h3", {}, text.keys),
      this.picks,
      node("div", { class: "change" }, this.changer, this.changed),
    );

    this.canvas = node("canvas", { role: "img", "aria-label": text.weights_picture });
    const weights = node("div", { class: "weights" }, node("h3", {}, text.weights), this.canvas);

    const row = (name) => {
      const cells = [node("td"), node("td")];
      this.table[name] = cells;
      return node("tr", {}, node("th", { scope: "row" }, text[name]), ...cells);
    };
    this.table = {};
    const head = [text.state, text.before, text.after].map((name) =>
      node("th", { scope: "col" }, name),
    );
    const state = node(
      "div",
      { class: "state" },
      node(
        "table",
        {},
        node("thead", {}, node("tr", {}, ...head)),
        node("tbody", {}, row("peak"), row("factor"), row("total")),
      ),
    );

    this.bars = Array.from({ length: SIZE }, () => ({
      bar: node("i"),
      mark: node("u"),
      number: node("span"),
    }));
    const result = node(
      "div",
      { class: "result" },
      node("h3", {}, text.result),
      node(
        "ol",
        {},
        ...this.bars.map(({ bar, mark, number }) =>
          node("li", {}, node("div", { class: "track" }, bar, mark), number),
        ),
      ),
    );
    this.status = node("p", { class: "status", role: "status" });
    this.once = node("p");
    this.naive = node("p");
    const check = node("div", { class: "check" }, this.once, this.naive);
    return [
      node("div", { class: "layout" }, controls, step, keys, weights, state, this.status, result, check),
    ];
  }

  get tiles() {
    return this.count / this.tile;
  }

  go(step) {
    this.step = Math.max(0, Math.min(this.tiles, step));
    this.update();
  }

  set(score) {
    this.pause();
    this.all[this.key] = score;
    this.update();
  }

  /** The same keys, scores and values together, in another order. */
  shuffle() {
    this.pause();
    const order = Array.from({ length: this.count }, (_, i) => i);
    for (let i = order.length - 1; i > 0; i--) {
      const j = Math.floor(Math.random() * (i + 1));
      [order[i], order[j]] = [order[j], order[i]];
    }
    const { scores, values } = this;
    this.all.splice(0, this.count, ...order.map((i) => scores[i]));
    this.rows.splice(0, this.count, ...order.map((i) => values[i]));
    this.key = order.indexOf(this.key);
    this.update();
  }

  play() {
    if (this.step === this.tiles) this.go(0);
    // Read aloud only where it stops.
    this.status.setAttribute("aria-live", "off");
    this.button.textContent = this.text.pause;
    this.timer = setInterval(() => {
      this.go(this.step + 1);
      if (this.step === this.tiles) this.pause();
    }, 900);
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

  /** A score for reading: whole and half numbers without needless zeros. */
  score(value) {
    return value === -Infinity ? "−∞" : this.number(value, Number.isInteger(value) ? 0 : 1);
  }

  paint() {
    this.update();
  }

  update() {
    if (!this.colors) return;
    const { text, colors, count, tile, tiles, scores, values, step } = this;
    const wash = colors.paper.map((from, i) => from + 0.16 * (colors.family[i] - from));
    this.room.style.setProperty("--wash", `rgb(${wash.map(Math.round).join(" ")})`);
    this.states = this.online(scores, values, tile);
    const now = this.states[step];
    const all = this.plain(scores, values);

    const progress = fill(text.progress, { step, count: tiles });
    this.slider.max = tiles;
    this.slider.value = step;
    this.slider.setAttribute("aria-valuetext", progress);
    this.progress.textContent = progress;

    // Heights within a cell: the number below, the bar above it from the foot to the score.
    const height = (z) => 20 + (76 * (Math.min(z, REACH + 1) + REACH + 0.5)) / (2 * REACH + 2);
    const last = step * tile;
    if (this.picks.childElementCount !== count) {
      this.picks.replaceChildren(...this.labels.slice(0, count));
    }
    this.cells.forEach(({ bar, line, number }, s) => {
      if (s >= count) return;
      const label = this.labels[s];
      const current = s >= last - tile && s < last;
      label.className = `${s % tile ? "" : "edge"} ${s < last ? "read" : ""} ${current ? "now" : ""}`;
      bar.style.bottom = "20px";
      bar.style.height = `${height(scores[s]) - 20}px`;
      line.style.display = s < last ? "" : "none";
      // The maximum after the tile of this key.
      const peak = this.states[Math.floor(s / tile) + 1].peak;
      line.style.bottom = `${height(peak) - 1}px`;
      number.textContent = this.score(scores[s]);
      const words = fill(text.key, { number: s + 1, score: this.score(scores[s]) });
      label.title = words;
      this.picks.inputs[s].setAttribute("aria-label", words);
      this.picks.inputs[s].checked = s === this.key;
    });
    const changed = fill(text.changed, { score: this.score(scores[this.key]) });
    this.changer.setAttribute("aria-label", fill(text.change, { number: this.key + 1 }));
    this.changer.setAttribute("aria-valuetext", changed);
    this.changer.value = scores[this.key];
    this.changed.textContent = changed;

    const shares = scores.map((z, s) => (s < last ? Math.exp(z - now.peak) / now.total : 0));
    picture(this.canvas, shares, 1, count, { high: colors.family, paper: colors.paper });

    const before = this.states[Math.max(0, step - 1)];
    const put = (name, a, b) => {
      this.table[name][0].textContent = a;
      this.table[name][1].textContent = b;
    };
    put("peak", this.score(before.peak), this.score(now.peak));
    put("factor", "", step ? this.number(now.factor, 3) : "");
    put("total", this.number(before.total, 3), this.number(now.total, 3));

    const lows = Math.min(0, ...values.flat());
    const highs = Math.max(...values.flat(), lows + 1e-6);
    const part = (value) => `${(100 * (value - lows)) / (highs - lows)}%`;
    this.bars.forEach(({ bar, mark, number }, i) => {
      const mean = step ? now.mixed[i] / now.total : 0;
      bar.style.width = step ? part(mean) : "0";
      mark.style.left = `calc(${part(all.mean[i])} - 1.5px)`;
      number.textContent = step ? this.number(mean, 3) : "";
    });
    this.once.textContent = fill(text.plain, {
      peak: this.score(all.peak),
      total: this.number(all.total, 3),
      mean: all.mean.map((value) => this.number(value, 3)).join(", "),
    });
    const sum = Math.fround(scores.reduce((a, z) => Math.fround(a + Math.fround(Math.exp(z))), 0));
    this.naive.textContent = fill(text.naive, {
      sum: Number.isFinite(sum) ? this.number(sum, 1) : text.infinite,
    });
    this.say();
  }

  /** What the tile read last did, in words. */
  say() {
    const { text, step, tiles, states } = this;
    if (step === 0) {
      this.status.textContent = text.start;
      return;
    }
    const [before, now] = [states[step - 1], states[step]];
    const words = {
      step,
      peak: this.score(now.peak),
      total: this.number(now.total, 3),
      factor: this.number(now.factor, 3),
    };
    const kind = step === 1 ? "first" : now.peak > before.peak ? "raised" : "kept";
    const done = step === tiles ? ` ${text.done}` : "";
    this.status.textContent = fill(text[kind], words) + done;
  }
}

customElements.define("trivium-online", OnlineWidget);
