/**
 * <trivium-shuffle>: pictures whose pixels are shuffled within blocks, read by two trained networks.
 *
 * Data: images [N, 784] uint8, labels [N], classes (names), blocks (sizes, increasing, one a degree),
 * orders [degrees, 784] int32 with order[new] = old, dense {w [784, H], b [H], v [H, classes],
 * c [classes]}, conv (one {w [5, 5, 1, F], b [F], v [16 F, classes], c [classes]} for each degree),
 * scores {dense, conv} (test accuracy for each degree), text.
 *
 * There is one dense network for all degrees: its first weights are rearranged as the pixels are.
 * `element.answer(name, image, degree)` gives the logits of "dense" or "conv".
 */

import { Widget, choice, drawn, fill, list, node, picture, ranking, softmax, unpack } from "./trivium.js";

const SIDE = 28;
const PIXELS = SIDE * SIDE;
/** Maps of the convolution: windows of 5 cells, 2 cells apart, then means over 3 of them. */
const REACH = 5;
const STRIDE = 2;
const MEAN = 3;
const KEPT = 4;

const NAMES = ["conv", "dense"];
const CHART = 132;
const LEFT = 34;
const RIGHT = 46;

export class ShuffleWidget extends Widget {
  static family = "convolution";

  static text = {
    name: "Pictures with shuffled pixels, and two networks that read them",
    picture: "Picture",
    option: "{number}: {class}",
    degree: "Shuffle pixels within blocks",
    none: "Not shuffled",
    block: "{size} × {size}",
    seen: "What the networks see",
    seen_picture: "The picture as the networks see it",
    conv: "Convolutional network",
    dense: "Dense network",
    conv_short: "conv",
    dense_short: "dense",
    chart: "Accuracy on all test pictures",
    chart_picture: "Test accuracy by degree: conv {conv}, dense {dense}",
    status: "{degree}. The convolutional network says {conv} ({conv_share}).",
    same: "The dense network says {dense} ({dense_share}), whatever the degree: its weights are rearranged along with the pixels.",
    truth: "The label says {class}.",
  };

  static style = `
    .layout { display: grid; gap: 12px 24px; grid-template-columns: minmax(0, 1fr);
      grid-template-areas: "pick" "degree" "seen" "conv" "dense" "chart" "status"; }
    .pick { grid-area: pick; } .degree { grid-area: degree; } .seen { grid-area: seen; }
    .net.conv { grid-area: conv; } .net.dense { grid-area: dense; } .chart { grid-area: chart; }
    [role="status"] { grid-area: status; min-height: 6.9em; }
    .pick label { display: flex; align-items: center; flex: 1; }
    .pick select { flex: 1; min-width: 0; max-width: 260px; margin-left: 6px; }
    .degree { display: grid; gap: 6px; }
    .degree .segments { display: grid; grid-template-columns: repeat(3, minmax(0, 1fr));
      gap: 3px; }
    .degree .segments span, .degree .segments label:first-child span,
    .degree .segments label:last-child span { margin: 0; border-radius: 4px; padding: 2px;
      white-space: nowrap; font-size: 0.8125rem; }
    .seen canvas { width: 196px; height: 196px; margin-top: 6px;
      box-shadow: 0 0 0 1px var(--grid); }
    .net ol { list-style: none; margin: 6px 0 0; padding: 0; }
    .net li { display: grid; grid-template-columns: 86px minmax(0, 1fr) 42px; gap: 8px;
      align-items: center; height: 20px; white-space: nowrap; }
    .net li span { overflow: hidden; text-overflow: ellipsis; }
    .net li span:last-child { text-align: right; font-variant-numeric: tabular-nums; }
    .net .first { font-weight: 600; }
    .net i { display: block; height: 12px; background: var(--gray); }
    .net.conv .first i { background: var(--family); }
    .net.dense .first i { background: repeating-linear-gradient(45deg, var(--ink) 0 3px,
      var(--gray) 3px 6px); }
    .net.conv h3 { color: var(--family); }
    .chart svg { display: block; width: 100%; height: ${CHART}px; overflow: visible; }
    .chart text { font-size: 12px; fill: var(--muted); }
    .chart .axis { stroke: var(--grid); fill: none; }
    .chart .conv { stroke: var(--family); fill: none; stroke-width: 2; }
    .chart .dense { stroke: var(--muted); fill: none; stroke-width: 2; stroke-dasharray: 6 3; }
    .chart text.conv { fill: var(--family); stroke: none; font-weight: 600; }
    .chart text.dense { stroke: none; fill: var(--muted); }
    .chart .mark { stroke: var(--ink); stroke-width: 1.5; }
    .chart .dot { fill: var(--paper); stroke: var(--ink); stroke-width: 1.5; }
    @container (min-width: 580px) {
      .layout { grid-template-columns: 220px minmax(0, 1fr);
        grid-template-areas: "pick pick" "degree degree" "seen conv" "chart dense"
          "status status"; }
      .degree .segments { grid-template-columns: repeat(6, minmax(0, 1fr)); }
      [role="status"] { min-height: 4.1em; }
    }
  `;

  load(data) {
    const images = unpack(data.images, "images", [null, PIXELS]);
    this.count = images.shape[0];
    this.images = Array.from({ length: this.count }, (_, i) =>
      Float32Array.from(images.values.subarray(i * PIXELS, (i + 1) * PIXELS), (v) => v / 255),
    );
    this.labels = list(data.labels, "labels");
    this.classes = data.classes;
    this.blocks = data.blocks;
    const degrees = this.blocks.length;
    const orders = unpack(data.orders, "orders", [degrees, PIXELS]).values;
    this.orders = this.blocks.map((_, i) => orders.subarray(i * PIXELS, (i + 1) * PIXELS));
    const classes = this.classes.length;
    const weights = ({ w, b, v, c }, name, first, inner) => {
      const bias = unpack(b, `${name}.b`, [null]).values;
      return {
        w: unpack(w, `${name}.w`, [...first, bias.length]).values,
        b: bias,
        v: unpack(v, `${name}.v`, [inner * bias.length, classes]).values,
        c: unpack(c, `${name}.c`, [classes]).values,
      };
    };
    this.dense = weights(data.dense, "dense", [PIXELS], 1);
    if (data.conv.length !== degrees) throw new Error(`conv: expected ${degrees} networks`);
    this.conv = data.conv.map((each, i) =>
      weights(each, `conv ${i}`, [REACH, REACH, 1], KEPT * KEPT),
    );
    this.scores = data.scores;
    this.index = 0;
    this.degree = 0;
  }

  /** The picture with its pixels in the order of a degree. */
  shuffled(image, degree) {
    return Float32Array.from(this.orders[degree], (old) => image[old]);
  }

  /**
   * What a network answers to a picture shuffled to a degree.
   *
   * @param {"dense" | "conv"} name
   * @param {Float32Array} image the picture as it is [784]
   * @param {number} degree
   * @returns {Float32Array} one logit a class
   */
  answer(name, image, degree) {
    const x = this.shuffled(image, degree);
    const { w, b, v, c } = name === "dense" ? this.dense : this.conv[degree];
    const inner = name === "dense" ? this.hidden(x, degree) : this.means(x, w, b);
    const logits = Float64Array.from(c);
    inner.forEach((value, i) => {
      if (!value) return;
      for (let k = 0; k < logits.length; k++) logits[k] += value * v[i * logits.length + k];
    });
    return Float32Array.from(logits);
  }

  /** The hidden units of the dense network: pixel and weight are rearranged alike. */
  hidden(x, degree) {
    const { w, b } = this.dense;
    const sums = Float64Array.from(b);
    this.orders[degree].forEach((old, place) => {
      const value = x[place];
      if (!value) return;
      for (let j = 0; j < sums.length; j++) sums[j] += value * w[old * sums.length + j];
    });
    return sums.map((sum) => Math.max(0, sum));
  }

  /** Filters, ReLU, and means over 3 × 3 places: [4, 4, F], row by row. */
  means(x, w, b) {
    const filters = b.length;
    const kept = new Float64Array(KEPT * KEPT * filters);
    const sums = new Float64Array(filters);
    for (let m = 0; m < KEPT * MEAN; m++) {
      for (let n = 0; n < KEPT * MEAN; n++) {
        sums.set(b);
        for (let i = 0; i < REACH; i++) {
          for (let j = 0; j < REACH; j++) {
            const value = x[(STRIDE * m + i) * SIDE + STRIDE * n + j];
            if (!value) continue;
            const at = (i * REACH + j) * filters;
            for (let f = 0; f < filters; f++) sums[f] += value * w[at + f];
          }
        }
        const at = (Math.floor(m / MEAN) * KEPT + Math.floor(n / MEAN)) * filters;
        for (let f = 0; f < filters; f++) {
          if (sums[f] > 0) kept[at + f] += sums[f] / (MEAN * MEAN);
        }
      }
    }
    return kept;
  }

  build() {
    const { text, classes } = this;
    const options = this.images.map((_, i) =>
      node(
        "option",
        { value: i },
        fill(text.option, { number: i + 1, class: classes[this.labels[i]] }),
      ),
    );
    const select = node(
      "select",
      {
        onchange: (event) => {
          this.index = +event.target.value;
          this.update();
        },
      },
      ...options,
    );
    const pick = node("div", { class: "bar pick" }, node("label", {}, text.picture, select));
    const degree = node(
      "div",
      { class: "degree" },
      node("h3", {}, text.degree),
      choice(
        text.degree,
        this.blocks.map((_, i) => ({ label: this.degreeName(i) })),
        (i) => {
          this.degree = i;
          this.update();
        },
      ),
    );
    this.canvas = node("canvas", { role: "img", "aria-label": text.seen_picture });
    const seen = node("div", { class: "seen" }, node("h3", {}, text.seen), this.canvas);
    this.rows = {};
    const nets = NAMES.map((name) => {
      this.rows[name] = classes.map((each) => {
        const bar = node("i");
        const share = node("span");
        const row = node(
          "li",
          {},
          node("span", { title: each }, each),
          node("div", { "aria-hidden": "true" }, bar),
          share,
        );
        return { row, bar, share };
      });
      const rows = this.rows[name].map(({ row }) => row);
      return node(
        "div",
        { class: `net ${name}` },
        node("h3", {}, text[name]),
        node("ol", {}, ...rows),
      );
    });
    this.curve = drawn("svg", { role: "img" });
    new ResizeObserver(() => this.draw()).observe(this.curve);
    const chart = node("div", { class: "chart" }, node("h3", {}, text.chart), this.curve);
    this.status = node("p", { role: "status" });
    return [node("div", { class: "layout" }, pick, degree, seen, ...nets, chart, this.status)];
  }

  degreeName(degree) {
    const size = this.blocks[degree];
    return size === 1 ? this.text.none : fill(this.text.block, { size });
  }

  paint() {
    this.update();
  }

  update() {
    if (!this.colors) return;
    const { text, classes, colors, degree } = this;
    const image = this.images[this.index];
    const gray = { high: colors.ink, paper: colors.paper };
    picture(this.canvas, this.shuffled(image, degree), SIDE, SIDE, gray);
    const words = { degree: this.degreeName(degree) };
    for (const name of NAMES) {
      const shares = softmax(this.answer(name, image, degree));
      const [first] = ranking(shares);
      this.rows[name].forEach(({ row, bar, share }, i) => {
        row.className = i === first ? "first" : "";
        bar.style.width = `${100 * shares[i]}%`;
        share.textContent = this.percent(shares[i]);
      });
      words[name] = classes[first];
      words[`${name}_share`] = this.percent(shares[first]);
    }
    const truth = fill(text.truth, { class: classes[this.labels[this.index]] });
    this.status.textContent = [fill(text.status, words), fill(text.same, words), truth].join(" ");
    this.draw();
  }

  /** Test accuracy of both networks by degree, and where we are. */
  draw() {
    if (!this.colors) return;
    const { text, scores, degree, blocks } = this;
    const width = this.curve.clientWidth;
    const bottom = CHART - 24;
    const values = [...scores.conv, ...scores.dense];
    const low = Math.floor(20 * Math.min(...values)) / 20;
    const high = Math.ceil(20 * Math.max(...values)) / 20;
    const x = (i) => LEFT + (i / (blocks.length - 1)) * (width - LEFT - RIGHT);
    const y = (value) => 10 + (1 - (value - low) / (high - low)) * (bottom - 10);
    const parts = [];
    for (const level of [low, high]) {
      parts.push(
        drawn("path", { class: "axis", d: `M${LEFT} ${y(level)}H${width - RIGHT}` }),
        drawn("text", { x: LEFT - 4, y: y(level) + 4, "text-anchor": "end" }, this.percent(level)),
      );
    }
    blocks.forEach((size, i) => {
      parts.push(
        drawn("text", { x: x(i), y: CHART - 6, "text-anchor": "middle" }, this.number(size, 0)),
      );
    });
    parts.push(drawn("path", { class: "mark", d: `M${x(degree)} 10V${bottom}` }));
    const last = blocks.length - 1;
    const ends = NAMES.map((name) => y(scores[name][last]));
    const apart = Math.max(0, 14 - Math.abs(ends[0] - ends[1])) / 2;
    NAMES.forEach((name, k) => {
      const line = scores[name].map((value, i) => `${x(i).toFixed(1)} ${y(value).toFixed(1)}`);
      const down = ends[k] > ends[1 - k] || (ends[0] === ends[1] && k === 1);
      parts.push(
        drawn("path", { class: name, d: `M${line.join("L")}` }),
        drawn("circle", { class: "dot", r: 4, cx: x(degree), cy: y(scores[name][degree]) }),
        drawn(
          "text",
          { class: name, x: x(last) + 8, y: ends[k] + 4 + (down ? apart : -apart) },
          text[`${name}_short`],
        ),
      );
    });
    this.curve.replaceChildren(...parts);
    const share = Object.fromEntries(NAMES.map((n) => [n, this.percent(scores[n][degree])]));
    this.curve.setAttribute("aria-label", fill(text.chart_picture, share));
  }
}

customElements.define("trivium-shuffle", ShuffleWidget);
