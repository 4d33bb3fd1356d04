/**
 * <trivium-mixture>: step through a verse and see which experts each character is sent to.
 *
 * Data: characters (text of T), blocks [L] (their numbers), chosen [L, T, K], weights [L, T, K],
 * probabilities [L, T, E], text.
 */

import { Widget, button, choice, fill, list, node, picture, unpack } from "./trivium.js";

export class MixtureWidget extends Widget {
  static family = "attention";

  static text = {
    name: "Which expert gets which character",
    block: "Block",
    block_of: "Block {number}",
    mark: "Mark expert",
    mark_of: "Mark the characters of expert {number}",
    back: "One character back",
    forward: "One character on",
    step: "Character",
    progress: "{step} of {count}",
    verse: "The verse; marked are the characters that the chosen expert gets",
    strip: "Its probability, character by character",
    strip_picture: "The probability that the router gives the marked expert, for each character",
    experts: "Probability of every expert, and the weight of the two that are used",
    expert: "Expert {number}",
    weight: "weight {weight}",
    status: "Character {step}, “{character}”, goes to experts {first} and {second}.",
    line: "line feed",
    share: "Expert {number} gets {share} of the choices in this verse.",
  };

  static style = `
    .layout { display: grid; gap: 12px 24px; grid-template-columns: minmax(0, 1fr);
      grid-template-areas: "bar" "step" "verse" "strip" "experts" "status"; }
    .controls { grid-area: bar; gap: 8px 14px; }
    .controls > div { display: flex; flex-wrap: wrap; gap: 4px 8px; align-items: center; }
    .controls .segments span { padding: 2px 6px; }
    .step { grid-area: step; }
    .step input { order: 1; flex: 1 0 100%; }
    .step output { margin-left: auto; font-variant-numeric: tabular-nums; }
    .verse { grid-area: verse; }
    .letters { font-family: monospace; font-size: 0.9375rem; line-height: 1.6; margin-top: 4px;
      overflow-wrap: anywhere; white-space: break-spaces; min-height: 8em; }
    .letters span { border-bottom: 3px solid transparent; padding: 1px 0; }
    .letters .mine { border-bottom-color: var(--family); }
    .letters .now { outline: 2px solid var(--ink); outline-offset: 1px; }
    .strip { grid-area: strip; }
    .strip canvas { width: 100%; height: 26px; margin-top: 4px; box-shadow: 0 0 0 1px var(--grid); }
    .experts { grid-area: experts; }
    ol { list-style: none; margin: 4px 0 0; padding: 0; }
    li { display: grid; grid-template-columns: 5em minmax(0, 1fr) 6.5em; gap: 8px; height: 25px;
      align-items: center; font-variant-numeric: tabular-nums; }
    .track { height: 14px; background: var(--wash); }
    .track i { display: block; height: 100%; background: var(--gray); }
    .used .track i { background: var(--family); }
    .used { font-weight: 600; }
    .status { grid-area: status; min-height: 4.2em; }
    @media (forced-colors: active) {
      .track i { background: CanvasText; forced-color-adjust: none; }
    }
    @container (min-width: 600px) {
      .layout { grid-template-columns: minmax(0, 1fr) minmax(0, 1fr);
        grid-template-areas: "bar bar" "step step" "verse experts" "strip experts" "status status"; }
      .step input { order: 0; flex: 1; }
      .status { min-height: 2.8em; }
    }
  `;

  load(data) {
    this.characters = [...data.characters];
    const count = this.characters.length;
    this.blocks = list(data.blocks, "blocks");
    const layers = this.blocks.length;
    const chosen = unpack(data.chosen, "chosen", [layers, count, null]);
    const weights = unpack(data.weights, "weights", chosen.shape);
    const probabilities = unpack(data.probabilities, "probabilities", [layers, count, null]);
    this.used = chosen.shape[2];
    this.experts = probabilities.shape[2];
    const rows = (values, size, layer) =>
      Array.from({ length: count }, (_, t) =>
        Array.from(values.slice(size * (layer * count + t), size * (layer * count + t + 1))),
      );
    this.layers = this.blocks.map((_, layer) => ({
      chosen: rows(chosen.values, this.used, layer),
      weights: rows(weights.values, this.used, layer),
      probabilities: rows(probabilities.values, this.experts, layer),
    }));
    this.layer = layers - 1;
    this.step = 0;
    this.marked = this.layers[this.layer].chosen[0][0];
  }

  build() {
    const { text } = this;
    this.blockChoice = choice(
      text.block,
      this.blocks.map((number) => ({ label: fill(text.block_of, { number }), show: `${number}` })),
      (index) => {
        this.layer = index;
        this.update();
      },
      { chosen: this.layer },
    );
    this.markChoice = choice(
      text.mark,
      Array.from({ length: this.experts }, (_, e) => ({
        label: fill(text.mark_of, { number: e + 1 }),
        show: `${e + 1}`,
      })),
      (index) => {
        this.marked = index;
        this.update();
      },
      { chosen: this.marked },
    );
    const controls = node(
      "div",
      { class: "bar controls" },
      node("div", {}, node("span", {}, text.block), this.blockChoice),
      node("div", {}, node("span", {}, text.mark), this.markChoice),
    );
    const arrow = (label, by, show) => button(label, () => this.go(this.step + by), { show });
    this.slider = node("input", {
      type: "range",
      min: 0,
      max: this.characters.length - 1,
      "aria-label": text.step,
      oninput: () => this.go(+this.slider.value),
    });
    this.progress = node("output", { "aria-hidden": "true" });
    const step = node(
      "div",
      { class: "bar step" },
      arrow(text.back, -1, "←"),
      arrow(text.forward, 1, "→"),
      this.slider,
      this.progress,
    );
    this.letters = this.characters.map((character, t) =>
      node("span", { onclick: () => this.go(t) }, character),
    );
    const verse = node(
      "div",
      { class: "verse" },
      node("h3", {}, text.verse),
      node("p", { class: "letters" }, ...this.letters),
    );
    this.canvas = node("canvas", { role: "img", "aria-label": text.strip_picture });
    const strip = node("div", { class: "strip" }, node("h3", {}, text.strip), this.canvas);
    this.rows = Array.from({ length: this.experts }, (_, e) => {
      const bar = node("i");
      const number = node("span");
      const row = node(
        "li",
        {},
        node("span", {}, fill(text.expert, { number: e + 1 })),
        node("div", { class: "track" }, bar),
        number,
      );
      return { bar, number, row };
    });
    const experts = node(
      "div",
      { class: "experts" },
      node("h3", {}, text.experts),
      node("ol", {}, ...this.rows.map(({ row }) => row)),
    );
    this.status = node("p", { class: "status", role: "status" });
    return [node("div", { class: "layout" }, controls, step, verse, strip, experts, this.status)];
  }

  go(step) {
    this.step = Math.max(0, Math.min(this.characters.length - 1, step));
    this.update();
  }

  /** The share of a block's choices that fell on an expert. */
  share(layer, expert) {
    const all = this.layers[layer].chosen.flat();
    return all.filter((each) => each === expert).length / all.length;
  }

  paint() {
    this.update();
  }

  update() {
    if (!this.colors) return;
    const { text, colors, step, marked } = this;
    const { chosen, weights, probabilities } = this.layers[this.layer];
    const wash = colors.paper.map((from, i) => from + 0.16 * (colors.family[i] - from));
    this.room.style.setProperty("--wash", `rgb(${wash.map(Math.round).join(" ")})`);
    const progress = fill(text.progress, { step: step + 1, count: this.characters.length });
    this.slider.value = step;
    this.slider.setAttribute("aria-valuetext", progress);
    this.progress.textContent = progress;
    this.letters.forEach((letter, t) => {
      letter.className = `${chosen[t].includes(marked) ? "mine" : ""} ${t === step ? "now" : ""}`;
    });
    this.rows.forEach(({ bar, number, row }, e) => {
      const place = chosen[step].indexOf(e);
      row.className = place < 0 ? "" : "used";
      bar.style.width = `${100 * probabilities[step][e]}%`;
      number.textContent =
        place < 0 ? "" : fill(text.weight, { weight: this.percent(weights[step][place]) });
    });
    picture(
      this.canvas,
      probabilities.map((row) => row[marked]),
      1,
      this.characters.length,
      { high: colors.family, paper: colors.paper },
    );
    const character = this.characters[step] === "\n" ? text.line : this.characters[step];
    const [first, second] = chosen[step].map((e) => e + 1);
    this.status.textContent = [
      fill(text.status, { step: step + 1, character, first, second }),
      fill(text.share, { number: marked + 1, share: this.percent(this.share(this.layer, marked)) }),
    ].join(" ");
  }
}

customElements.define("trivium-mixture", MixtureWidget);
