/**
 * Two thresholds over the scores of two groups, and the rates of yes and no that follow.
 *
 * Data: "counts" int32 [2, 2, K], people by group, label and bin of score; "groups", two names;
 * "presets", {single, selection, opportunity}, each the first bin that gets a yes, a group.
 * `element.rates(cuts)` computes everything that is shown.
 */

import { Widget, button, css, fill, node, unpack } from "./trivium.js";

const PRESETS = ["single", "selection", "opportunity"];
const ROWS = ["selection", "tpr", "fpr", "ppv", "accuracy"];

export class ThresholdsWidget extends Widget {
  static text = {
    name: "A threshold for each group",
    single: "One threshold",
    selection_preset: "Equal selection",
    opportunity_preset: "Equal opportunity",
    threshold: "Threshold for {group}",
    histogram: "Scores of {group}; up: over the line of income, down: under it; full: get a yes",
    rates: "Rate",
    difference: "Gap",
    selection: "Selection rate",
    tpr: "True positive rate",
    fpr: "False positive rate",
    ppv: "Precision",
    accuracy: "Accuracy",
    none: "none",
    status:
      "Accuracy of all: {accuracy}. Selection rates differ by {selection}, true positive rates by " +
      "{tpr}, false positive rates by {fpr}, precision by {ppv}.",
  };

  static style = `
    .room { --family: var(--ink); }
    .layout { display: grid; gap: 14px 24px; grid-template-columns: minmax(0, 1fr); }
    .group { display: grid; gap: 4px; }
    .group canvas { width: 100%; height: 120px; box-shadow: 0 0 0 1px var(--grid); }
    .head output { font-variant-numeric: tabular-nums; font-weight: 600; }
    .head { display: flex; justify-content: space-between; }
    table { border-collapse: collapse; width: 100%; table-layout: fixed;
      font-variant-numeric: tabular-nums; }
    th, td { padding: 3px 4px; text-align: right; font-weight: 400; height: 29px; }
    th { color: var(--muted); font-size: 0.8125rem; }
    tr > :first-child { text-align: left; padding-left: 0; color: var(--ink); width: 36%; }
    tbody tr { border-top: 1px solid var(--grid); }
    .status { min-height: 5.6em; font-variant-numeric: tabular-nums; }
    @container (min-width: 580px) {
      .layout { grid-template-columns: minmax(0, 1fr) minmax(0, 1fr); }
      .presets, .wide, .status { grid-column: 1 / -1; }
      .status { min-height: 2.8em; }
    }
  `;

  load(data) {
    const { shape, values } = unpack(data.counts, "counts", [2, 2, null]);
    this.bins = shape[2];
    this.counts = [0, 1].map((g) =>
      [0, 1].map((y) =>
        Array.from(values.slice((2 * g + y) * this.bins, (2 * g + y + 1) * this.bins)),
      ),
    );
    if (data.groups?.length !== 2) throw new Error("groups: expected two names");
    this.groups = data.groups;
    for (const name of PRESETS) {
      if (data.presets?.[name]?.length !== 2) throw new Error(`presets: expected two in ${name}`);
    }
    this.presets = data.presets;
    this.cuts = [...this.presets.single];
  }

  /**
   * What follows from two thresholds.
   *
   * @param {number[]} cuts the first bin of each group that gets a yes
   * @returns {{groups: object[], accuracy: number}} selection, tpr, fpr, ppv and accuracy of each
   *     group (NaN where nobody is counted), and the accuracy of all
   */
  rates(cuts) {
    let right = 0;
    let all = 0;
    const groups = this.counts.map(([zeros, ones], g) => {
      const sum = (part) => part.reduce((a, b) => a + b, 0);
      const [negative, positive] = [sum(zeros), sum(ones)];
      const [wrongly, hits] = [sum(zeros.slice(cuts[g])), sum(ones.slice(cuts[g]))];
      const good = hits + negative - wrongly;
      right += good;
      all += positive + negative;
      return {
        selection: (hits + wrongly) / (positive + negative),
        tpr: hits / positive,
        fpr: wrongly / negative,
        ppv: hits / (hits + wrongly),
        accuracy: good / (positive + negative),
      };
    });
    return { groups, accuracy: right / all };
  }

  build() {
    const { text, bins } = this;
    const labels = [text.single, text.selection_preset, text.opportunity_preset];
    const presets = node(
      "div",
      { class: "bar presets" },
      ...PRESETS.map((name, i) =>
        button(labels[i], () => {
          this.cuts = [...this.presets[name]];
          this.update();
        }),
      ),
    );
    this.parts = this.groups.map((group, g) => {
      const canvas = node("canvas", {
        role: "img",
        "aria-label": fill(text.histogram, { group }),
        width: 4 * bins,
        height: 160,
      });
      const slider = node("input", {
        type: "range",
        min: 0,
        max: bins,
        step: 1,
        "aria-label": fill(text.threshold, { group }),
        oninput: () => {
          this.cuts[g] = +slider.value;
          this.update();
        },
      });
      const value = node("output", { "aria-hidden": "true" });
      const head = node("div", { class: "head" }, node("h3", {}, group), value);
      return { canvas, slider, value, box: node("div", { class: "group" }, head, canvas, slider) };
    });
    this.table = {};
    const rows = ROWS.map((name) => {
      this.table[name] = [node("td"), node("td"), node("td")];
      return node("tr", {}, node("th", { scope: "row" }, text[name]), ...this.table[name]);
    });
    const heads = [text.rates, ...this.groups, text.difference].map((name) =>
      node("th", { scope: "col" }, name),
    );
    const table = node(
      "table",
      { class: "wide" },
      node("thead", {}, node("tr", {}, ...heads)),
      node("tbody", {}, ...rows),
    );
    this.status = node("p", { class: "status", role: "status" });
    return [
      node("div", { class: "layout" }, presets, ...this.parts.map(({ box }) => box), table, this.status),
    ];
  }

  paint() {
    this.update();
  }

  update() {
    if (!this.colors) return;
    const { text, bins, cuts } = this;
    const { groups, accuracy } = this.rates(cuts);
    const shown = (value) => (Number.isNaN(value) ? text.none : this.number(value, 3));
    const apart = {};
    for (const name of ROWS) {
      const [a, b] = groups.map((each) => each[name]);
      apart[name] = shown(Math.abs(a - b));
      [shown(a), shown(b), apart[name]].forEach((words, i) => {
        this.table[name][i].textContent = words;
      });
    }
    this.parts.forEach(({ canvas, slider, value }, g) => {
      const words = this.number(cuts[g] / bins, 2);
      slider.value = cuts[g];
      slider.setAttribute("aria-valuetext", words);
      value.textContent = words;
      this.draw(canvas, g);
    });
    this.status.textContent = fill(text.status, { ...apart, accuracy: shown(accuracy) });
  }

  /** The histogram of a group: square roots of counts, or the few with high scores would not show. */
  draw(canvas, g) {
    const { colors, bins, cuts } = this;
    const context = canvas.getContext("2d");
    const { width, height } = canvas;
    const middle = height / 2;
    context.fillStyle = css(colors.paper);
    context.fillRect(0, 0, width, height);
    const top = Math.sqrt(Math.max(...this.counts[g].flat()));
    const step = width / bins;
    const pale = colors.paper.map((from, i) => from + 0.4 * (colors.gray[i] - from));
    this.counts[g].forEach((counts, y) => {
      counts.forEach((count, bin) => {
        const tall = ((middle - 4) * Math.sqrt(count)) / top;
        const yes = bin >= cuts[g];
        context.fillStyle = css(yes ? (y ? colors.ink : colors.gray) : pale);
        context.fillRect(bin * step, y ? middle - tall : middle, step - 1, tall);
      });
    });
    context.fillStyle = css(colors.muted);
    context.fillRect(0, middle - 0.5, width, 1);
    context.fillStyle = css(colors.ink);
    context.fillRect(Math.min(width - 2, cuts[g] * step - 1), 0, 2, height);
  }
}

customElements.define("trivium-thresholds", ThresholdsWidget);
