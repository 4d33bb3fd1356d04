/**
 * <trivium-lens>: what each layer of a language model would guess as the next token.
 *
 * Data: prompts, a list of {name, tokens (texts as they are shown), guesses, shares}: for P places, L layers (the
 * embedding first) and G guesses each, guesses int32 [L, P, G] are places in `words` and shares
 * float32 [L, P, G] their probabilities, best first; words; text.
 * `element.guesses(prompt, place)` gives for each layer what is shown: [{word, share}, …].
 */

import { Widget, button, choice, fill, node, unpack } from "./trivium.js";

export class LensWidget extends Widget {
  static family = "attention";

  static text = {
    name: "What each layer would guess",
    prompt: "Text",
    place: "Read up to and including",
    back: "One token back",
    forward: "One token forward",
    progress: "{place} of {count}",
    layer: "Layer",
    guesses: "Guesses for the next token, best first",
    embedding: "in",
    after: "after layer {layer}",
    before: "before the first layer",
    next: "In the text, “{token}” follows.",
    end: "This is the end of the text.",
    status:
      "After “{token}” the last layer guesses “{word}”, with {share}. {since}",
    since: "It is the first guess from layer {layer} on.",
    at_once: "It is the first guess at every layer.",
    key: "The greener, the more probable. Framed: what the last layer guesses first.",
  };

  static style = `
    .layout { display: grid; gap: 10px; grid-template-columns: minmax(0, 1fr); }
    .pick label { display: flex; align-items: center; gap: 6px; flex: 1; min-width: 0; }
    .pick select { flex: 1; min-width: 0; }
    .tokens { display: flex; flex-wrap: wrap; gap: 3px; align-content: start; min-height: 118px; }
    .tokens span { display: grid; place-items: center; min-height: 34px; min-width: 34px;
      padding: 1px 6px; border: 1px solid var(--grid); border-radius: 4px; white-space: pre; }
    .tokens input:checked + span { background: var(--family); border-color: var(--family);
      color: var(--paper); }
    .step input { flex: 1; }
    .step output { min-width: 5em; text-align: right; font-variant-numeric: tabular-nums; }
    table { width: 100%; border-collapse: separate; border-spacing: 2px; table-layout: fixed;
      font-size: 0.75rem; line-height: 1.2; margin: 0; }
    th { font-weight: 400; color: var(--muted); text-align: right; padding: 0 6px 0 0; width: 3.2em;
      font-variant-numeric: tabular-nums; }
    td { padding: 1px 4px; white-space: pre; overflow: hidden; text-overflow: ellipsis; height: 19px;
      border: 1px solid transparent; border-radius: 3px;
      background: color-mix(in srgb, var(--family) calc(var(--share) * 45%), transparent); }
    td.final { border-color: var(--ink); }
    td small { color: var(--ink); font-size: 0.6875rem; }
    td:nth-of-type(n + 4) { display: none; }
    [role="status"] { min-height: 4.1em; }
    @container (min-width: 640px) {
      td:nth-of-type(n + 4) { display: table-cell; }
      .tokens { min-height: 76px; }
      [role="status"] { min-height: 2.8em; }
    }
  `;

  load(data) {
    if (!Array.isArray(data.words)) throw new Error("words: expected a list");
    this.words = data.words;
    this.prompts = data.prompts.map(({ name, tokens, guesses, shares }, i) => {
      const shape = [null, tokens.length, null];
      const found = unpack(guesses, `prompts[${i}].guesses`, shape);
      return {
        name,
        tokens,
        shape: found.shape,
        ids: found.values,
        shares: unpack(shares, `prompts[${i}].shares`, found.shape).values,
      };
    });
    this.prompt = 0;
    this.at = this.prompts[0].tokens.length - 1;
  }

  build() {
    const { text } = this;
    this.select = node(
      "select",
      {
        onchange: () => {
          this.prompt = +this.select.value;
          this.at = this.prompts[this.prompt].tokens.length - 1;
          this.list();
          this.update();
        },
      },
      ...this.prompts.map(({ name }, i) => node("option", { value: i }, name)),
    );
    const pick = node("div", { class: "bar pick" }, node("label", {}, text.prompt, this.select));
    this.tokens = node("div");
    const step = (label, by, show) => button(label, () => this.move(this.at + by), { show });
    this.slider = node("input", {
      type: "range",
      min: 0,
      step: 1,
      "aria-label": text.place,
      oninput: () => this.move(+this.slider.value),
    });
    this.progress = node("output");
    const bar = node(
      "div",
      { class: "bar step" },
      step(text.back, -1, "←"),
      this.slider,
      step(text.forward, 1, "→"),
      this.progress,
    );
    this.table = node("table", { "aria-label": text.guesses });
    this.status = node("p", { role: "status" });
    this.list();
    const key = node("p", { class: "note" }, text.key);
    return [
      node("div", { class: "layout" }, pick, this.tokens, bar, this.status, this.table, key),
    ];
  }

  /** The tokens of the text, as buttons of which one is down. */
  list() {
    const { tokens } = this.prompts[this.prompt];
    const options = tokens.map((token, i) => ({
      label: `${i + 1}: ${token}`,
      show: token,
    }));
    const made = choice(this.text.place, options, (i) => this.move(i), {
      chosen: this.at,
      className: "tokens",
    });
    this.tokens.replaceWith(made);
    this.tokens = made;
    this.slider.max = tokens.length - 1;
  }

  move(place) {
    const { tokens } = this.prompts[this.prompt];
    this.at = Math.max(0, Math.min(tokens.length - 1, place));
    this.tokens.inputs[this.at].checked = true;
    this.update();
  }

  guesses(prompt, place) {
    const { shape, ids, shares } = this.prompts[prompt];
    const [layers, places, count] = shape;
    return Array.from({ length: layers }, (_, layer) =>
      Array.from({ length: count }, (_, rank) => {
        const i = (layer * places + place) * count + rank;
        return { word: this.words[ids[i]], share: shares[i] };
      }),
    );
  }

  paint() {
    this.update();
  }

  update() {
    if (!this.colors) return;
    const { text } = this;
    const { tokens } = this.prompts[this.prompt];
    const layers = this.guesses(this.prompt, this.at);
    const last = layers.at(-1)[0];
    this.slider.value = this.at;
    const progress = fill(text.progress, { place: this.at + 1, count: tokens.length });
    this.slider.setAttribute("aria-valuetext", progress);
    this.progress.textContent = progress;
    // The last layer stands on top, where the answer comes out.
    const rows = layers.map((guesses, layer) => {
      const name = layer ? fill(text.after, { layer }) : text.before;
      const cells = guesses.map(({ word, share }) => {
        const cell = node(
          "td",
          { class: word === last.word ? "final" : "", title: `${word} ${this.percent(share)}` },
          node("small", {}, this.percent(share)),
          ` ${word}`,
        );
        cell.style.setProperty("--share", share.toFixed(3));
        return cell;
      });
      const head = node("th", { scope: "row", title: name }, layer ? `${layer}` : text.embedding);
      return node("tr", {}, head, ...cells);
    });
    this.table.replaceChildren(node("tbody", {}, ...rows.reverse()));
    let since = layers.length - 1;
    while (since > 0 && layers[since - 1][0].word === last.word) since--;
    const words = {
      token: tokens[this.at],
      word: last.word,
      share: this.percent(last.share),
      since: since ? fill(text.since, { layer: since }) : text.at_once,
    };
    const next = tokens[this.at + 1];
    const follows = next === undefined ? text.end : fill(text.next, { token: next });
    this.status.textContent = `${fill(text.status, words)} ${follows}`;
  }
}

customElements.define("trivium-lens", LensWidget);
