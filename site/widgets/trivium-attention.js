/**
 * <trivium-attention>: who looks at whom in a sentence, layer by layer, head by head.
 *
 * Data: sentences, a list of {tokens: [T], maps: uint8 [layers, heads, T, T]}, where a map's row is
 * the token that looks, its column the token looked at, and 255 stands for a weight of 1; text.
 * `element.weights()` gives the map on show as rows of weights.
 */

import { Widget, choice, css, drawn, fill, node, picture, ranking, unpack } from "./trivium.js";

/** Heights of a token's row, in pixels: tall enough for a finger. */
const ROW = 32;
/** Shorter sentences are given the place of this many tokens, so that the place is known early. */
const TOKENS = 16;
/** Weights below this are not drawn: the maps are stored in steps of 1/255. */
const SMALL = 0.01;
/** A head is said to look at a place when that place gets this share of its weight. */
const MOSTLY = 0.4;

export class AttentionWidget extends Widget {
  static family = "attention";

  static text = {
    name: "Attention maps of a sentence",
    sentence: "Sentence",
    head: "Layer and head",
    heads: "A row for each layer, a column for each head",
    thumb: "Layer {layer}, head {head}",
    mean_thumb: "Layer {layer}, mean over heads",
    mean: "mean",
    title: "Layer {layer}, head {head}",
    mean_title: "Layer {layer}, mean over its {heads} heads",
    mostly: "It looks mostly at {place}: {share} of the weight.",
    spread: "It keeps to no one place; most often it looks at {place}: {share} of the weight.",
    entropy: "A token shares its attention among about {tokens} of {count} tokens ({bits} bits).",
    previous: "the token before",
    next: "the token after",
    self: "the token itself",
    first: "the first token, {token}",
    separator: "the last token, {token}",
    lines: "From each token to those it looks at",
    from: "{token}, token {number}",
    matrix: "The same as a matrix",
    matrix_picture:
      "Attention matrix: a row for each token that looks, a column for each looked at",
    token: "“{token}” looks at {targets}.",
    target: "“{token}” ({share})",
    none: "Choose a token to follow its lines.",
    pair: "“{from}” gives “{to}” {share} of its attention.",
    joint: ", ",
  };

  static style = `
    .layout { display: grid; gap: 14px 20px; grid-template-columns: minmax(0, 1fr);
      grid-template-areas: "pick" "heads" "words" "lines" "matrix"; align-items: start; }
    .pick { grid-area: pick; display: flex; align-items: center; gap: 6px; }
    .pick select { flex: 1; min-width: 0; max-width: 520px; }
    .heads { grid-area: heads; min-width: 0; }
    .scroll { overflow-x: auto; padding: 3px; scrollbar-width: thin;
      scrollbar-color: var(--gray) transparent; }
    .table { display: grid; grid-template-columns: 16px max-content; gap: 4px; width: max-content; }
    .across { grid-column: 2; display: grid; gap: 1px; }
    .across span, .down span { color: var(--muted); font-size: 0.75rem; text-align: center; }
    .down { display: grid; gap: 1px; position: sticky; left: -3px; z-index: 1;
      background: var(--paper); }
    .down span { line-height: 32px; text-align: right; padding-right: 2px; }
    .grid { display: grid; gap: 1px; }
    .grid span { display: block; padding: 1px; border: 2px solid transparent; }
    .grid canvas { width: 26px; height: 26px; box-shadow: 0 0 0 1px var(--grid); }
    .grid input:checked + span { border-color: var(--family); }
    .grid input:hover + span { border-color: var(--gray); }
    .grid input:checked:hover + span { border-color: var(--family); }
    .words { grid-area: words; display: grid; gap: 6px; align-content: start; }
    .words [role="status"] { display: grid; gap: 6px; min-height: 8.2em; align-content: start; }
    .lines { grid-area: lines; min-width: 0; } .matrix { grid-area: matrix; min-width: 0; }
    .matrix, .lines { display: grid; gap: 6px; }
    .pairs { display: grid;
      grid-template-columns: fit-content(112px) minmax(60px, 1fr) fit-content(150px); }
    .pairs button, .pairs .to { height: var(--row); min-height: 0; padding: 0 6px; display: flex;
      align-items: center; justify-content: end; width: 100%; border-color: transparent; }
    .pairs .to { justify-content: start; gap: 6px; }
    .pairs .to span:first-child { flex: 1; }
    .pairs .to span:first-child, .pairs button span { overflow: hidden; text-overflow: ellipsis;
      white-space: nowrap; }
    .to .share { flex: none; min-width: 3em; text-align: right; font-size: 0.75rem;
      font-variant-numeric: tabular-nums; }
    .pairs button:hover { border-color: var(--gray); }
    .pairs button.on { border-color: var(--family); color: var(--family);
      font-weight: 600; }
    svg { display: block; overflow: visible; width: 100%; }
    .pairs svg { height: 100%; }
    .pairs path { fill: none; stroke: var(--family); vector-effect: non-scaling-stroke; }
    .chart { position: relative; --label: 76px; padding: var(--label) 0 0 var(--label);
      max-width: 352px; }
    .chart canvas { width: 100%; aspect-ratio: 1; box-shadow: 0 0 0 1px var(--grid);
      touch-action: pan-y; cursor: crosshair; }
    .chart div { position: absolute; display: grid; grid-auto-rows: 1fr; left: 0; top: var(--label);
      bottom: 0; width: calc(var(--label) - 5px); text-align: right; font-size: 0.75rem;
      line-height: 1; align-items: center; }
    .chart .columns { top: 0; left: var(--label); right: 0; bottom: auto; width: auto;
      height: calc(var(--label) - 5px); grid-auto-rows: auto; grid-auto-flow: column;
      grid-auto-columns: 1fr; text-align: left; justify-items: center; }
    .chart span { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
    .chart .columns span { writing-mode: vertical-rl; transform: rotate(180deg); height: 100%; }
    .chart .on { color: var(--family); font-weight: 600; }
    .chart i { position: absolute; pointer-events: none; border: 2px solid var(--ink); }
    .read { min-height: 2.7em; }
    @container (min-width: 640px) {
      .layout { grid-template-columns: minmax(0, 1fr) minmax(0, 1fr);
        grid-template-areas: "pick pick" "heads heads" "words words" "lines matrix"; }
    }
    @container (min-width: 700px) {
      .layout { grid-template-columns: repeat(22, minmax(0, 1fr)); gap: 14px 0; }
      .pick { grid-area: 1 / 1 / auto / -1; }
      .heads { grid-area: 2 / 1 / auto / 15; } .words { grid-area: 2 / 15 / auto / -1; }
      .lines { grid-area: 3 / 1 / auto / 12; } .matrix { grid-area: 3 / 12 / auto / -1; }
      .words { padding-left: 12px; } .matrix { padding-left: 16px; }
    }
  `;

  load(data) {
    this.sentences = data.sentences.map(({ tokens, maps }, i) => {
      const T = tokens.length;
      const { shape, values } = unpack(maps, `sentences[${i}].maps`, [null, null, T, T]);
      return { tokens, values, layers: shape[0], heads: shape[1] };
    });
    const [{ layers, heads }] = this.sentences;
    if (this.sentences.some((other) => other.layers !== layers || other.heads !== heads)) {
      throw new Error("sentences: expected the same number of layers and heads in each");
    }
    this.layers = layers;
    this.heads = heads;
    this.longest = Math.max(TOKENS, ...this.sentences.map(({ tokens }) => tokens.length));
    this.index = 0;
    this.pinned = null;
    this.seen = null;
    // Begin with the head that keeps most strictly to neighbors: the plainest pattern there is.
    const strict = Array.from({ length: layers * heads }, (_, i) => {
      const { places } = this.summary(this.weights(Math.floor(i / heads), i % heads));
      const shares = Object.fromEntries(places);
      return Math.max(shares.previous, shares.next);
    });
    const [start] = ranking(strict);
    this.layer = Math.floor(start / heads);
    // Column 0 of the choice is the mean over heads.
    this.column = (start % heads) + 1;
  }

  /**
   * The attention weights on show.
   *
   * @param {number} [layer] from zero
   * @param {number} [head] from zero; -1 for the mean over heads
   * @returns {Float32Array[]} for each token its weights over all tokens
   */
  weights(layer = this.layer, head = this.column - 1) {
    const { tokens, values } = this.sentences[this.index];
    const T = tokens.length;
    const heads = head < 0 ? Array.from({ length: this.heads }, (_, h) => h) : [head];
    return Array.from({ length: T }, (_, row) =>
      Float32Array.from({ length: T }, (_, column) => {
        let sum = 0;
        for (const h of heads) sum += values[((layer * this.heads + h) * T + row) * T + column];
        return sum / (255 * heads.length);
      }),
    );
  }

  /**
   * What a head looks at, in numbers.
   *
   * @param {Float32Array[]} weights
   * @returns {{places: [string, number][], bits: number}} shares of the weight that go to a place,
   *     largest first, over the tokens that have such a place; and the mean entropy of a row
   */
  summary(weights) {
    const last = weights.length - 1;
    const shares = {
      previous: weights.slice(1).map((row, i) => row[i]),
      next: weights.slice(0, -1).map((row, i) => row[i + 1]),
      self: weights.map((row, i) => row[i]),
      first: weights.slice(1).map((row) => row[0]),
      separator: weights.slice(0, -1).map((row) => row[last]),
    };
    const mean = (values) => values.reduce((a, b) => a + b, 0) / Math.max(1, values.length);
    const places = Object.entries(shares).map(([place, values]) => [place, mean(values)]);
    const bits = mean(
      weights.map((row) => {
        const sum = row.reduce((a, b) => a + b, 0);
        return row.reduce((h, p) => (p > 0 ? h - (p / sum) * Math.log2(p / sum) : h), 0);
      }),
    );
    return { places: places.sort((a, b) => b[1] - a[1]), bits };
  }

  build() {
    const { text, layers, heads } = this;
    const words = (tokens) => tokens.join(" ").replaceAll(" ##", "");
    const select = node(
      "select",
      { "aria-label": text.sentence, onchange: (event) => this.read(+event.target.value) },
      ...this.sentences.map(({ tokens }, i) => node("option", { value: i }, words(tokens))),
    );
    const pick = node(
      "div",
      { class: "pick" },
      node("span", { "aria-hidden": "true" }, text.sentence),
      select,
    );

    this.thumbs = Array.from({ length: layers * (heads + 1) }, () => node("canvas"));
    const options = this.thumbs.map((show, i) => {
      const [layer, head] = [Math.floor(i / (heads + 1)) + 1, i % (heads + 1)];
      return { show, label: fill(head ? text.thumb : text.mean_thumb, { layer, head }) };
    });
    this.grid = choice(
      text.head,
      options,
      (i) => {
        this.layer = Math.floor(i / (heads + 1));
        this.column = i % (heads + 1);
        this.update();
      },
      { chosen: this.layer * (heads + 1) + this.column, className: "grid" },
    );
    const columns = `grid-template-columns: repeat(${heads + 1}, 32px)`;
    this.grid.style.cssText = columns;
    const names = Array.from({ length: heads + 1 }, (_, h) =>
      node("span", {}, h ? `${h}` : text.mean),
    );
    const across = node(
      "div",
      { class: "across", style: columns, "aria-hidden": "true" },
      ...names,
    );
    const down = node(
      "div",
      { class: "down", "aria-hidden": "true" },
      ...Array.from({ length: layers }, (_, l) => node("span", {}, `${l + 1}`)),
    );
    const table = node(
      "div",
      { class: "heads" },
      node("h3", {}, text.heads),
      node("div", { class: "scroll" }, node("div", { class: "table" }, across, down, this.grid)),
    );

    this.heading = node("h3");
    this.status = node("div", { role: "status" });
    const said = node("div", { class: "words" }, this.heading, this.status);

    this.left = node("div");
    this.right = node("div", { "aria-hidden": "true" });
    this.curves = drawn("svg", { "aria-hidden": "true", preserveAspectRatio: "none" });
    this.detail = node("p", { class: "note read", "aria-live": "polite" });
    this.pairs = node(
      "div",
      { class: "pairs", onpointerleave: () => this.look(null) },
      this.left,
      this.curves,
      this.right,
    );
    const lines = node(
      "div",
      { class: "lines" },
      node("h3", {}, text.lines),
      this.detail,
      this.pairs,
    );

    this.canvas = node("canvas", {
      role: "img",
      "aria-label": text.matrix_picture,
      onpointermove: (event) => this.aim(event),
      onpointerdown: (event) => this.aim(event),
      onpointerleave: () => {
        this.cell.hidden = true;
        this.look(null);
      },
    });
    this.rows = node("div", { "aria-hidden": "true" });
    this.columns = node("div", { class: "columns", "aria-hidden": "true" });
    this.cell = node("i", { hidden: true });
    this.chart = node("div", { class: "chart" }, this.canvas, this.rows, this.columns, this.cell);
    const matrix = node("div", { class: "matrix" }, node("h3", {}, text.matrix), this.chart);

    this.style.setProperty("--tokens", this.longest);
    this.style.setProperty("--layers", layers);
    this.fillTokens();
    return [node("div", { class: "layout" }, pick, table, said, lines, matrix)];
  }

  /** Show another sentence. */
  read(index) {
    this.index = index;
    this.pinned = null;
    this.seen = null;
    this.fillTokens();
    this.paint();
  }

  fillTokens() {
    const { tokens } = this.sentences[this.index];
    const row = Math.min(44, Math.floor((ROW * this.longest) / tokens.length));
    this.pairs.style.setProperty("--row", `${row}px`);
    this.left.replaceChildren(
      ...tokens.map((token, i) =>
        node(
          "button",
          {
            type: "button",
            "aria-pressed": "false",
            "aria-label": fill(this.text.from, { token, number: i + 1 }),
            onclick: () => {
              this.pinned = this.pinned === i ? null : i;
              this.look(null);
            },
            onfocus: (event) => event.target.matches(":focus-visible") && this.look(i),
            onblur: () => this.look(null),
            onpointerenter: (event) => event.pointerType === "mouse" && this.look(i),
            onkeydown: (event) => this.step(event, i),
          },
          node("span", {}, token),
        ),
      ),
    );
    const labels = () => tokens.map((token) => node("span", {}, token));
    this.right.replaceChildren(
      ...labels().map((label) =>
        node("div", { class: "to" }, label, node("span", { class: "share" })),
      ),
    );
    this.rows.replaceChildren(...labels());
    this.columns.replaceChildren(...labels());
  }

  step(event, i) {
    const step = { ArrowUp: -1, ArrowDown: 1 }[event.key];
    if (!step) return;
    event.preventDefault();
    this.left.children[i + step]?.focus();
  }

  /** Follow one token's lines; null for the token pinned by a click, if any. */
  look(token, target = null) {
    this.seen = token;
    this.target = target;
    this.trace();
  }

  aim(event) {
    const T = this.sentences[this.index].tokens.length;
    const box = this.canvas.getBoundingClientRect();
    const at = (part) => Math.max(0, Math.min(T - 1, Math.floor(part * T)));
    const row = at((event.clientY - box.top) / box.height);
    const column = at((event.clientX - box.left) / box.width);
    this.look(row, column);
  }

  paint() {
    const green = { high: this.colors.family, paper: this.colors.paper };
    const T = this.sentences[this.index].tokens.length;
    this.thumbs.forEach((canvas, i) => {
      const layer = Math.floor(i / (this.heads + 1));
      const flat = this.weights(layer, (i % (this.heads + 1)) - 1).flatMap((row) =>
        Array.from(row),
      );
      picture(canvas, flat, T, T, green);
    });
    this.update();
  }

  update() {
    const { text, layer, column, heads } = this;
    const { tokens } = this.sentences[this.index];
    this.shown = this.weights();
    const { places, bits } = this.summary(this.shown);
    const [place, share] = places[0];
    const token = place === "first" ? tokens[0] : tokens.at(-1);
    const where = fill(text[place], { token });
    this.heading.textContent = fill(column ? text.title : text.mean_title, {
      layer: layer + 1,
      head: column,
      heads,
    });
    this.status.replaceChildren(
      node(
        "p",
        {},
        fill(share >= MOSTLY ? text.mostly : text.spread, {
          place: where,
          share: this.percent(share),
        }),
      ),
      node(
        "p",
        {},
        fill(text.entropy, {
          tokens: this.number(2 ** bits, 1),
          count: tokens.length,
          bits: this.number(bits, 1),
        }),
      ),
    );
    const green = { high: this.colors.family, paper: this.colors.paper };
    const flat = this.shown.flatMap((row) => Array.from(row));
    picture(this.canvas, flat, tokens.length, tokens.length, green);
    this.trace();
  }

  /** The lines: of one token, with shares written out, or of all, faint. */
  trace() {
    const { text, shown } = this;
    const { tokens } = this.sentences[this.index];
    const T = tokens.length;
    const from = this.seen ?? this.pinned;
    this.curves.setAttribute("viewBox", `0 0 100 ${T}`);
    const paths = [];
    shown.forEach((row, i) => {
      if (from !== null && from !== i) return;
      row.forEach((weight, j) => {
        if (weight < SMALL) return;
        paths.push(
          drawn("path", {
            d: `M0 ${i + 0.5}C50 ${i + 0.5} 50 ${j + 0.5} 100 ${j + 0.5}`,
            "stroke-width": (from === null ? 0.5 + 2.5 * weight : 1 + 5 * weight).toFixed(2),
            "stroke-opacity": (from === null ? weight : 0.2 + 0.8 * weight).toFixed(2),
          }),
        );
      });
    });
    this.curves.replaceChildren(...paths);
    const green = { high: this.colors.family, paper: this.colors.paper };
    Array.from(this.left.children).forEach((button, i) => {
      button.className = i === from ? "on" : "";
      button.setAttribute("aria-pressed", String(i === this.pinned));
      this.rows.children[i].className = i === from ? "on" : "";
    });
    Array.from(this.right.children).forEach((cell, j) => {
      const weight = from === null ? 0 : shown[from][j];
      const part = weight < SMALL ? 0 : weight;
      cell.style.background = part ? css(this.tint(part, green)) : "";
      cell.children[1].textContent = part ? this.percent(weight) : "";
      this.columns.children[j].className = j === this.target && from !== null ? "on" : "";
    });
    this.cell.hidden = this.seen === null || this.target === null;
    if (!this.cell.hidden) {
      const side = `calc((100% - var(--label)) / ${T})`;
      this.cell.style.cssText =
        `width:${side};height:${side};` +
        `left:calc(var(--label) + ${this.target} * (100% - var(--label)) / ${T});` +
        `top:calc(var(--label) + ${from} * (100% - var(--label)) / ${T})`;
    }
    this.detail.textContent = this.sentence(from);
  }

  /** A background that the ink of the label stays readable on. */
  tint(weight, { high, paper }) {
    return paper.map((from, i) => from + (high[i] - from) * 0.3 * weight);
  }

  sentence(from) {
    const { text, shown, target } = this;
    const { tokens } = this.sentences[this.index];
    if (from === null) return text.none;
    if (this.seen !== null && target !== null) {
      const share = this.percent(shown[from][target]);
      return fill(text.pair, { from: tokens[from], to: tokens[target], share });
    }
    const order = Array.from(shown[from], (weight, j) => [weight, j]).sort((a, b) => b[0] - a[0]);
    const targets = order
      .slice(0, 3)
      .filter(([weight]) => weight >= SMALL)
      .map(([weight, j]) => fill(text.target, { token: tokens[j], share: this.percent(weight) }));
    return fill(text.token, { token: tokens[from], targets: targets.join(text.joint) });
  }
}

customElements.define("trivium-attention", AttentionWidget);
