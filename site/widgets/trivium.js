/**
 * What the book's widgets share: reading their data, colors that follow the page, text that can be
 * translated, and the element that puts a widget where the static figure stood.
 *
 * On the page a widget is
 *
 *     <trivium-cnn>
 *       <div slot="fallback">…</div>
 *       <script type="application/json">{"kernel": {…}, …, "text": {…}}</script>
 *     </trivium-cnn>
 *
 * The figure is what print, Colab and a browser without JavaScript show. An array in the JSON is
 * {"shape": [3, 3], "dtype": "float32" | "int32" | "uint8", "base64": "…"}, little-endian. Every
 * word that a widget shows stands in its `static text` and is replaced by the entry of the same
 * name in the JSON's "text"; names in braces, such as {layer}, are filled in.
 *
 * widgets.css, and a trivium-NAME.css for each widget, reserve its height before the module has
 * loaded, so that nothing moves.
 */

const TYPES = { float32: Float32Array, int32: Int32Array, uint8: Uint8Array };

const LIGHT = {
  convolution: "#0072b2",
  recurrence: "#b34700",
  attention: "#00734f",
  ink: "#1f2328",
  muted: "#59626c",
  gray: "#858d96",
  grid: "#d6dbe0",
  paper: "#ffffff",
};
const DARK = {
  convolution: "#56b4e9",
  recurrence: "#ff9e4a",
  attention: "#3ddba8",
  ink: "#e6e9ed",
  muted: "#a3acb6",
  gray: "#8b949e",
  grid: "#3d444d",
  paper: "#121212",
};

/**
 * The array behind its packed form.
 *
 * @param {{shape: number[], dtype: string, base64: string}} packed
 * @param {string} name what to call it in an error
 * @param {(number | null)[]} [shape] the shape it must have; null where any length will do
 * @returns {{shape: number[], values: Float32Array | Int32Array | Uint8Array}}
 * @throws {Error} if it is missing, of an unknown type, or its bytes or its shape do not fit
 */
export function unpack(packed, name, shape) {
  if (!packed?.shape || !packed.base64) throw new Error(`${name}: expected a packed array`);
  const Type = TYPES[packed.dtype];
  if (!Type) throw new Error(`${name}: expected float32, int32 or uint8, got ${packed.dtype}`);
  const text = atob(packed.base64);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  const size = packed.shape.reduce((a, b) => a * b, 1);
  if (bytes.length !== size * Type.BYTES_PER_ELEMENT) {
    throw new Error(`${name}: shape [${packed.shape}] does not fit ${bytes.length} bytes`);
  }
  const fits =
    !shape ||
    (shape.length === packed.shape.length &&
      shape.every((length, axis) => length === null || length === packed.shape[axis]));
  if (!fits) throw new Error(`${name}: expected shape [${shape}], got [${packed.shape}]`);
  return { shape: packed.shape, values: new Type(bytes.buffer) };
}

/** The numbers of a plain list or of a packed array. */
export function list(values, name) {
  return Array.isArray(values) ? values : Array.from(unpack(values, name, [null]).values);
}

/** Softmax of logits, in float32, safe for large values. */
export function softmax(logits) {
  const top = Math.max(...logits);
  const exponentials = Array.from(logits, (value) => Math.exp(value - top));
  const sum = exponentials.reduce((a, b) => a + b, 0);
  return Float32Array.from(exponentials, (value) => value / sum);
}

/** The places of the values, largest first. */
export function ranking(values) {
  return Array.from(values, (_, i) => i).sort((a, b) => values[b] - values[a]);
}

/** A text with its {names} filled in. */
export function fill(text, values) {
  return text.replace(/\{(\w+)\}/g, (whole, name) => (name in values ? values[name] : whole));
}

/** An element with attributes, `on…` listeners, and children. */
export function node(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  assign(made, attributes);
  made.append(...children);
  return made;
}

/** The same for drawings. */
export function drawn(tag, attributes = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  assign(made, attributes);
  made.append(...children);
  return made;
}

function assign(made, attributes) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") made.addEventListener(name.slice(2), value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value != null) made.setAttribute(name, value);
  }
}

/** A button; with something else to `show` on it, the label is read aloud and is its tip. */
export function button(label, act, { show = null, ...attributes } = {}) {
  const name = show === null ? {} : { "aria-label": label, title: label };
  return node("button", { type: "button", ...name, ...attributes, onclick: act }, show ?? label);
}

/**
 * One of several, as native radio buttons: the browser brings arrow keys, names and states.
 *
 * @param {string} name the group's, read aloud
 * @param {{label: string, show?: (string | Node)}[]} options what is read, and what is seen
 * @param {(index: number) => void} choose called when one is chosen
 * @param {{chosen?: number, className?: string}} [more] in a group with the class "grid" the up and
 *     down keys move by a row, however many the layout puts in one
 * @returns {HTMLElement} with `inputs`, the radio buttons in order
 */
export function choice(name, options, choose, { chosen = 0, className = "segments" } = {}) {
  const id = `choice-${Math.random().toString(36).slice(2)}`;
  const inputs = [];
  const group = node("div", { role: "radiogroup", "aria-label": name, class: className });
  options.forEach(({ label, show }, index) => {
    const input = node("input", {
      type: "radio",
      name: id,
      "aria-label": label,
      checked: index === chosen,
      onclick: () => choose(index),
    });
    inputs.push(input);
    group.append(node("label", { title: label }, input, node("span", {}, show ?? label)));
  });
  group.inputs = inputs;
  group.addEventListener("keydown", (event) => {
    if (className !== "grid" || !["ArrowUp", "ArrowDown"].includes(event.key)) return;
    event.preventDefault();
    const columns = getComputedStyle(group).gridTemplateColumns.split(" ").length;
    const step = event.key === "ArrowUp" ? -columns : columns;
    const next = inputs[inputs.indexOf(event.target) + step];
    next?.focus();
    next?.click();
  });
  return group;
}

/**
 * A canvas that is used with a pointer or with keys.
 *
 * @param {object} user whose press(event), drag(event), lift() and key(event) are called
 * @param {string} label read aloud
 */
export function pad(user, label) {
  return node("canvas", {
    tabindex: 0,
    role: "application",
    "aria-label": label,
    "aria-describedby": "hint",
    onpointerdown: (event) => user.press(event),
    onpointermove: (event) => user.drag(event),
    onpointerup: () => user.lift(),
    onpointercancel: () => user.lift(),
    onkeydown: (event) => user.key(event),
  });
}

/** Where an arrow key leads, [down, right]; [0, 0] for every other key. */
export function arrows({ key }, step = 1) {
  const down = { ArrowUp: -step, ArrowDown: step }[key] ?? 0;
  const right = { ArrowLeft: -step, ArrowRight: step }[key] ?? 0;
  return [down, right];
}

/** Touch every place on the way from one to another, [x, y] each, so many times a pixel. */
export function stroke([fromX, fromY], [x, y], touch, often = 2) {
  const steps = Math.max(1, Math.ceil(often * Math.hypot(x - fromX, y - fromY)));
  for (let i = 1; i <= steps; i++) {
    touch(fromX + ((x - fromX) * i) / steps, fromY + ((y - fromY) * i) / steps);
  }
}

/** Draw on a square picture with a soft brush at a place given in pixels, or erase there. */
export function brush(values, size, x, y, erase = false) {
  for (let row = Math.max(0, Math.floor(y) - 2); row <= Math.min(size - 1, y + 2); row++) {
    for (let column = Math.max(0, Math.floor(x) - 2); column <= Math.min(size - 1, x + 2); column++) {
      const near = Math.min(1, Math.max(0, 1.6 - Math.hypot(column + 0.5 - x, row + 0.5 - y)));
      const i = row * size + column;
      values[i] = erase ? Math.min(values[i], 1 - near) : Math.max(values[i], near);
    }
  }
}

/** A square picture anew; `rule(row, column, at)` may read the old pixels, zero outside. */
export function redrawn(values, size, rule) {
  const at = (row, column) =>
    row < 0 || column < 0 || row >= size || column >= size ? 0 : values[row * size + column];
  return Float32Array.from(values, (_, i) => rule(Math.floor(i / size), i % size, at));
}

/**
 * Values as a picture of one canvas pixel each; the style sheet scales it up without smoothing.
 *
 * @param {HTMLCanvasElement} canvas
 * @param {ArrayLike<number>} values row by row
 * @param {number} rows
 * @param {number} columns
 * @param {{high: number[], low?: number[], paper: number[]}} colors RGB of 1, of -1, and of 0
 * @param {number} [top] the size that gets the full color
 * @param {number} [end] columns from here on stay empty
 */
export function picture(canvas, values, rows, columns, colors, top = 1, end = columns) {
  if (canvas.width !== columns || canvas.height !== rows) {
    canvas.width = columns;
    canvas.height = rows;
  }
  const context = canvas.getContext("2d");
  const pixels = context.createImageData(columns, rows);
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < end; column++) {
      const [r, g, b] = shade(values[row * columns + column] / top, colors);
      const at = 4 * (row * columns + column);
      pixels.data[at] = r;
      pixels.data[at + 1] = g;
      pixels.data[at + 2] = b;
      pixels.data[at + 3] = 255;
    }
  }
  context.putImageData(pixels, 0, 0);
}

/** The color of a value between -1 and 1. */
export function shade(value, { high, low, paper }) {
  const part = Math.min(1, Math.abs(value));
  const end = value < 0 && low ? low : high;
  return paper.map((from, i) => from + (end[i] - from) * (value < 0 && !low ? 0 : part));
}

/** An `rgb(…)` for style sheets. */
export function css(color) {
  return `rgb(${color.map(Math.round).join(" ")})`;
}

/** Of ink and paper the one that can be read on a color; on a middling one, black or white. */
export function readable(color, { ink, paper }) {
  const contrast = (other) => {
    const [high, low] = [luminance(color), luminance(other)].sort((a, b) => b - a);
    return (high + 0.05) / (low + 0.05);
  };
  const best = (colors) => colors.reduce((a, b) => (contrast(a) >= contrast(b) ? a : b));
  const own = best([ink, paper]);
  return contrast(own) >= 4.5 ? own : best([[0, 0, 0], [255, 255, 255]]);
}

function luminance(color) {
  const [r, g, b] = color.map((value) => {
    const part = value / 255;
    return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}

const BASE = `
  :host { display: block; }
  :host([hidden]) { display: none; }
  .room { container-type: inline-size; color: var(--ink); font-size: 0.875rem;
    line-height: 1.35; text-align: start; }
  .frame { box-sizing: border-box; width: 100%; min-height: var(--height); max-width: 760px;
    margin: 0 auto; padding: 12px; border: 1px solid var(--grid); border-radius: 6px;
    background: var(--paper); }
  .fallback { display: none; }
  .failed .fallback { display: block; }
  .failed .room { display: none; }
  @media print { .room { display: none; } .fallback { display: block; } }
  *, ::before { box-sizing: border-box; }
  h3, p { margin: 0; font: inherit; }
  h3 { font-weight: 600; }
  canvas { display: block; image-rendering: pixelated; }
  .note { color: var(--muted); font-size: 0.8125rem; }
  .unseen { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%);
    white-space: nowrap; }
  .bar { display: flex; flex-wrap: wrap; gap: 6px; align-items: center; }
  button, select { font: inherit; color: var(--ink); background: transparent; min-height: 34px;
    min-width: 34px; padding: 2px 9px; border: 1px solid var(--gray); border-radius: 4px;
    cursor: pointer; }
  select { background: var(--paper); }
  button:hover { border-color: var(--ink); }
  button:disabled { color: var(--muted); border-color: var(--grid); cursor: default; }
  input[type="range"] { min-height: 34px; margin: 0; min-width: 0; accent-color: var(--family); }
  :focus-visible { outline: 2px solid var(--ink); outline-offset: 2px; }
  label { position: relative; display: block; }
  [role="radiogroup"] input { position: absolute; inset: 0; width: 100%; height: 100%; margin: 0;
    opacity: 0; cursor: pointer; }
  [role="radiogroup"] input:focus-visible + span { outline: 2px solid var(--ink);
    outline-offset: 2px; }
  .segments { display: flex; }
  .segments span { display: grid; place-items: center; min-height: 34px; min-width: 34px;
    padding: 2px 9px; border: 1px solid var(--gray); margin-left: -1px; }
  .segments label:first-child span { border-radius: 4px 0 0 4px; margin-left: 0; }
  .segments label:last-child span { border-radius: 0 4px 4px 0; }
  .segments input:checked + span { background: var(--family); border-color: var(--family);
    color: var(--paper); }
  .segments input:focus-visible + span { position: relative; }
  @media (forced-colors: active) {
    [role="radiogroup"] input:checked + span { outline: 2px solid Highlight; }
  }
`;

/** Keys that a page may use to turn its leaves; inside a widget they belong to the widget. */
const KEYS = new Set(["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown", " ", "Home", "End"]);

/**
 * A widget: reads its data, stands in the place of the figure, repaints when the theme changes.
 *
 * A widget defines `static family`, `static text`, `static style`, `load(data)`, which may throw,
 * `build()`, which returns its content, `paint()`, which colors all canvases, and `quit()`, called
 * when it leaves the page.
 */
export class Widget extends HTMLElement {
  static text = {};
  static style = "";

  #themes = null;

  connectedCallback() {
    if (document.readyState === "loading") {
      // The parser has not read the data inside this element yet.
      document.addEventListener("DOMContentLoaded", () => this.connectedCallback(), { once: true });
      return;
    }
    if (!this.isConnected || this.#themes) return;
    if (!this.shadowRoot) this.#start();
    const repaint = () => this.#follow();
    const dark = matchMedia("(prefers-color-scheme: dark)");
    const watch = new MutationObserver(repaint);
    watch.observe(document.documentElement, { attributeFilter: ["data-theme", "class", "style"] });
    dark.addEventListener("change", repaint);
    this.#themes = () => {
      watch.disconnect();
      dark.removeEventListener("change", repaint);
    };
    repaint();
  }

  disconnectedCallback() {
    this.#themes?.();
    this.#themes = null;
    this.quit();
  }

  quit() {}

  #start() {
    const root = this.attachShadow({ mode: "open" });
    this.room = node("div", { class: "room" });
    const style = node("style", {}, BASE + this.constructor.style);
    const slots = [node("slot", { name: "fallback" }), node("slot")];
    this.body = node("div", {}, this.room, node("div", { class: "fallback" }, ...slots));
    root.append(style, this.body);
    try {
      const script = this.querySelector('script[type="application/json"]');
      if (!script) throw new Error(`${this.localName}: expected its data in a script inside it`);
      const data = JSON.parse(script.textContent);
      this.text = { ...this.constructor.text, ...data.text };
      this.load(data);
      this.probe = node("span", { hidden: true });
      const frame = node("div", { class: "frame", role: "group", "aria-label": this.text.name });
      frame.append(...this.build());
      frame.addEventListener("keydown", (event) => KEYS.has(event.key) && event.stopPropagation());
      this.room.append(frame, this.probe);
    } catch (error) {
      this.body.className = "failed";
      console.error(error);
    }
  }

  #follow() {
    if (this.body.className === "failed") return;
    const theme = document.documentElement.dataset.theme;
    const dark = theme ? theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    const colors = {};
    const canvas = node("canvas", { width: 1, height: 1 });
    const context = canvas.getContext("2d", { willReadFrequently: true });
    for (const [name, color] of Object.entries(dark ? DARK : LIGHT)) {
      const key = name === this.constructor.family ? "family" : name;
      const value = `var(--trivium-${name}, ${color})`;
      this.room.style.setProperty(`--${key}`, value);
      // Whatever way the page writes its colors, a pixel has red, green and blue.
      this.probe.style.color = value;
      context.fillStyle = getComputedStyle(this.probe).color;
      context.fillRect(0, 0, 1, 1);
      colors[key] = Array.from(context.getImageData(0, 0, 1, 1).data.slice(0, 3));
    }
    this.room.style.colorScheme = dark ? "dark" : "light";
    if (JSON.stringify(colors) === JSON.stringify(this.colors)) return;
    this.colors = colors;
    this.paint();
  }

  get language() {
    return this.closest("[lang]")?.lang || "en";
  }

  /** A share as a percentage in the page's language. */
  percent(value) {
    const digits = value > 0.99 && value < 0.9995 ? 1 : 0;
    const format = {
      style: "percent",
      minimumFractionDigits: digits,
      maximumFractionDigits: digits,
    };
    return new Intl.NumberFormat(this.language, format).format(value);
  }

  /** A number in the page's language, with a real minus sign. */
  number(value, digits = 2) {
    const format = { minimumFractionDigits: digits, maximumFractionDigits: digits };
    const shown = new Intl.NumberFormat(this.language, format).format(value);
    return /[1-9]/.test(shown) ? shown.replace("-", "−") : shown.replace("-", "");
  }
}
