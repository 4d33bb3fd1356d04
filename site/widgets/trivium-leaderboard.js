/**
 * <trivium-leaderboard>: submit random changes, keep what the public score likes, then look at the
 * private one.
 *
 * Data: first and second (uint8, 1 where a model's first or second choice is right, for every row
 * of a test set), order (int32, the rows that may be changed), shuffled (int32, the
 * rows in the order in which a public part is taken from them), publics (sizes of the public part),
 * changed (rows that a submission changes), text.
 * `element.submit(count)` sends submissions; `element.history` holds {public, private} after each.
 */

import { Widget, button, choice, drawn, fill, node, unpack } from "./trivium.js";

const HEIGHT = 300;
const MARGIN = { left: 46, right: 12, top: 14, bottom: 30 };
const SEED = 1;

/** Numbers in [0, 1) from a seed, the same everywhere (Mulberry32). */
function random(seed) {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  };
}

export class LeaderboardWidget extends Widget {
  static family = "none";

  static text = {
    name: "A leaderboard, climbed by chance",
    intro:
      "Each submission gives a few of the least sure rows their second-best class, at random, and is kept if the public score rises.",
    public: "Rows in the public part",
    rows: "{count} rows",
    once: "Submit",
    many: "Submit {count} times",
    reset: "Start over",
    show: "Show the private score",
    publicScore: "public",
    privateScore: "private",
    axis: "submissions",
    chart: "Score after each submission, from {low} to {high}",
    before:
      "Public score {public} after {count} submissions, {kept} of them kept; it began at {start}. The private score is hidden until you ask for it.",
    after:
      "Public score {public}, private score {private}, after {count} submissions, {kept} of them kept. They began at {start} and {privateStart}.",
  };

  static style = `
    .layout { display: grid; gap: 10px; grid-template-columns: minmax(0, 1fr); }
    .parts { display: grid; gap: 4px; }
    .parts .segments { flex-wrap: wrap; }
    .parts .segments span { font-variant-numeric: tabular-nums; }
    .segments { --family: var(--ink); }
    .chart { display: block; width: 100%; height: ${HEIGHT}px; overflow: visible; }
    .chart text { font-size: 12px; fill: var(--muted); }
    .chart .label { fill: var(--ink); font-weight: 600; }
    .axis { stroke: var(--grid); fill: none; }
    .line { fill: none; stroke: var(--ink); stroke-width: 2; }
    .line.private { stroke-dasharray: 6 4; }
    .shown { display: flex; align-items: center; gap: 8px; min-height: 34px; }
    .shown input { width: 32px; height: 32px; margin: 0; accent-color: var(--ink); }
    [role="status"] { min-height: 5.5em; }
    @container (min-width: 580px) {
      [role="status"] { min-height: 2.8em; }
    }
  `;

  load(data) {
    this.first = unpack(data.first, "first", [null]).values;
    const rows = this.first.length;
    this.second = unpack(data.second, "second", [rows]).values;
    this.order = unpack(data.order, "order", [null]).values;
    this.shuffled = unpack(data.shuffled, "shuffled", [rows]).values;
    if (!Array.isArray(data.publics) || data.publics.some((size) => !(size > 0 && size < rows))) {
      throw new Error(`publics: expected sizes between 0 and ${rows}`);
    }
    this.publics = data.publics;
    this.changed = data.changed;
    this.size = this.publics[0];
    this.seen = false;
    this.start();
  }

  /** Everything as before the first submission. */
  start() {
    this.random = random(SEED);
    this.swapped = new Uint8Array(this.first.length);
    this.isPublic = new Uint8Array(this.first.length);
    for (const row of this.shuffled.subarray(0, this.size)) this.isPublic[row] = 1;
    this.kept = 0;
    this.right = this.count();
    this.history = [this.scores()];
  }

  /** Right answers in the public and in the private part, counted anew. */
  count() {
    const right = [0, 0];
    for (let row = 0; row < this.first.length; row++) {
      right[1 - this.isPublic[row]] += this.answer(row, this.swapped[row]);
    }
    return right;
  }

  answer(row, swapped) {
    return swapped ? this.second[row] : this.first[row];
  }

  scores() {
    const rest = this.first.length - this.size;
    return { public: this.right[0] / this.size, private: this.right[1] / rest };
  }

  submit(count) {
    for (let i = 0; i < count; i++) {
      const rows = new Set();
      while (rows.size < this.changed) {
        rows.add(this.order[Math.floor(this.random() * this.order.length)]);
      }
      const gain = [0, 0];
      for (const row of rows) {
        const old = this.swapped[row];
        gain[1 - this.isPublic[row]] += this.answer(row, 1 - old) - this.answer(row, old);
      }
      if (gain[0] > 0) {
        for (const row of rows) this.swapped[row] ^= 1;
        this.right = this.right.map((value, part) => value + gain[part]);
        this.kept++;
      }
      this.history.push(this.scores());
    }
    this.update();
  }

  build() {
    const { text } = this;
    const label = (count) => fill(text.rows, { count: this.number(count, 0) });
    const publics = choice(
      text.public,
      this.publics.map((count) => ({ label: label(count), show: this.number(count, 0) })),
      (index) => {
        this.size = this.publics[index];
        this.start();
        this.update();
      },
    );
    const again = () => {
      this.start();
      this.update();
    };
    const buttons = node(
      "div",
      { class: "bar" },
      button(text.once, () => this.submit(1)),
      button(fill(text.many, { count: 10 }), () => this.submit(10)),
      button(fill(text.many, { count: 100 }), () => this.submit(100)),
      button(text.reset, again),
    );
    this.box = node("input", {
      type: "checkbox",
      onchange: () => {
        this.seen = this.box.checked;
        this.update();
      },
    });
    const shown = node("label", { class: "shown" }, this.box, text.show);
    this.chart = drawn("svg", { class: "chart", role: "img" });
    new ResizeObserver(() => this.draw()).observe(this.chart);
    this.status = node("p", { role: "status" });
    const parts = node("div", { class: "parts" }, node("span", {}, text.public), publics);
    const intro = node("p", { class: "note" }, text.intro);
    return [
      node("div", { class: "layout" }, intro, parts, buttons, shown, this.chart, this.status),
    ];
  }

  paint() {
    this.update();
  }

  update() {
    if (!this.colors) return;
    const [start, now] = [this.history[0], this.history.at(-1)];
    this.status.textContent = fill(this.seen ? this.text.after : this.text.before, {
      public: this.number(now.public, 3),
      private: this.number(now.private, 3),
      start: this.number(start.public, 3),
      privateStart: this.number(start.private, 3),
      count: this.number(this.history.length - 1, 0),
      kept: this.number(this.kept, 0),
    });
    this.draw();
  }

  draw() {
    if (!this.colors || !this.chart.clientWidth) return;
    const { text, history } = this;
    const names = this.seen ? ["public", "private"] : ["public"];
    const right = this.chart.clientWidth - MARGIN.right;
    const bottom = HEIGHT - MARGIN.bottom;
    // Both scores fit whether shown or not, so that showing one moves nothing.
    const values = history.flatMap((each) => [each.public, each.private]);
    const low = Math.floor((Math.min(...values) - 0.005) * 50) / 50;
    const high = Math.ceil((Math.max(...values) + 0.005) * 50) / 50;
    const end = Math.max(10, history.length - 1);
    const x = (count) => MARGIN.left + (count / end) * (right - MARGIN.left);
    const y = (score) => bottom - ((score - low) / (high - low)) * (bottom - MARGIN.top);
    const parts = [];
    for (let tick = Math.round(low * 50); tick <= Math.round(high * 50); tick++) {
      const score = tick / 50;
      parts.push(drawn("path", { class: "axis", d: `M${MARGIN.left} ${y(score)}H${right}` }));
      const place = { x: MARGIN.left - 6, y: y(score) + 4, "text-anchor": "end" };
      parts.push(drawn("text", place, this.number(score, 2)));
    }
    const step = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000].find((n) => end / n <= 5);
    for (let count = 0; step && count <= end; count += step) {
      const place = { x: x(count), y: bottom + 18, "text-anchor": "middle" };
      parts.push(drawn("text", place, this.number(count, 0)));
    }
    const caption = { x: MARGIN.left + 4, y: bottom - 6, "text-anchor": "start" };
    parts.push(drawn("text", caption, text.axis));
    for (const name of names) {
      const d = history
        .map((each, count) => `${count ? "L" : "M"}${x(count).toFixed(1)} ${y(each[name]).toFixed(1)}`)
        .join("");
      const now = history.at(-1);
      parts.push(drawn("path", { class: `line ${name}`, d: history.length > 1 ? d : `${d}h4` }));
      const upper = name === "public" ? now.public >= now.private : now.private > now.public;
      const place = {
        class: "label",
        x: Math.max(x(history.length - 1), MARGIN.left + 60),
        y: Math.min(Math.max(y(now[name]) + (upper ? -8 : 16), MARGIN.top), bottom - 4),
        "text-anchor": "end",
      };
      parts.push(drawn("text", place, text[`${name}Score`]));
    }
    this.chart.replaceChildren(...parts);
    const ends = { low: this.number(low, 2), high: this.number(high, 2) };
    this.chart.setAttribute("aria-label", fill(text.chart, ends));
  }
}

customElements.define("trivium-leaderboard", LeaderboardWidget);
