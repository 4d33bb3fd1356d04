/**
 * The forward pass of the package's convolutional networks: ResNet, Detector and UNet, in use.
 *
 * Weights come as `trivium.models.page_layers` writes them: {name: {codes, scales, bias, side}}, with
 * normalization folded in and kernels rounded to eight bits. Maps, and images, are
 * {height, width, channels, values}: values[(row * width + column) * channels + channel].
 */

import { unpack } from "./trivium.js";

/** The layers of a model, unpacked; throws an Error naming a layer whose parts do not fit. */
export function readLayers(packed) {
  const layers = {};
  for (const [name, { codes, scales, bias, side }] of Object.entries(packed)) {
    const { shape, values } = unpack(codes, name, [null, null]);
    const [rows, filters] = shape;
    const steps = unpack(scales, `${name}.scales`, [filters]).values;
    const offsets = unpack(bias, `${name}.bias`, [filters]).values;
    const channels = rows / side ** 2;
    if (!Number.isInteger(channels)) throw new Error(`${name}: ${rows} rows, filters of ${side}`);
    const kernel = Float32Array.from(values, (code, i) => (code - 128) * steps[i % filters]);
    layers[name] = { side, channels, filters, kernel, bias: offsets };
  }
  return layers;
}

/** An image of one channel from its values, row by row. */
export function image(values, height, width) {
  return { height, width, channels: 1, values: Float32Array.from(values) };
}

/**
 * A convolution, padded so that a filter's middle is on every cell, at a stride.
 *
 * @param {object} more the maps `added` are added to the result, before `relu` sets what is negative
 *     to zero
 */
export function convolve(layer, maps, { stride = 1, added = null, relu = false } = {}) {
  const { side, channels, filters, kernel, bias } = layer;
  if (maps.channels !== channels) {
    throw new Error(`maps must have ${channels} channels, not ${maps.channels}`);
  }
  const { values, height, width } = maps;
  const rows = Math.ceil(height / stride);
  const columns = Math.ceil(width / stride);
  const reach = side >> 1;
  const result = new Float32Array(rows * columns * filters);
  const sum = new Float64Array(filters);
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      sum.set(bias);
      for (let down = 0; down < side; down++) {
        const y = row * stride + down - reach;
        if (y < 0 || y >= height) continue;
        for (let across = 0; across < side; across++) {
          const x = column * stride + across - reach;
          if (x < 0 || x >= width) continue;
          const from = (y * width + x) * channels;
          const tap = (down * side + across) * channels;
          for (let channel = 0; channel < channels; channel++) {
            const value = values[from + channel];
            if (value === 0) continue; // behind a ReLU every other one
            const weights = (tap + channel) * filters;
            for (let f = 0; f < filters; f++) sum[f] += value * kernel[weights + f];
          }
        }
      }
      const to = (row * columns + column) * filters;
      for (let f = 0; f < filters; f++) {
        const value = sum[f] + (added ? added.values[to + f] : 0);
        result[to + f] = relu && value < 0 ? 0 : value;
      }
    }
  }
  return { height: rows, width: columns, channels: filters, values: result };
}

/** The maps of every stage of a backbone, the finest first. */
export function features(layers, picture, prefix = "") {
  let maps = convolve(layers[`${prefix}stem`], picture, { relu: true });
  const found = [];
  const deeper = (stage) =>
    Object.keys(layers).some((name) => Number(name.split(`${prefix}stages.`)[1]?.split(".")[0]) >= stage);
  for (let stage = 0; stage === 0 || deeper(stage); stage++) {
    for (let block = 0; `${prefix}stages.${stage}.${block}.first` in layers; block++) {
      const name = `${prefix}stages.${stage}.${block}`;
      const stride = stage && !block ? 2 : 1;
      const shortcut = layers[`${name}.shortcut`];
      const added = shortcut ? convolve(shortcut, maps, { stride }) : maps;
      const inner = convolve(layers[`${name}.first`], maps, { stride, relu: true });
      maps = convolve(layers[`${name}.second`], inner, { added, relu: true });
    }
    found.push(maps);
  }
  return found;
}

/** The mean of each channel. */
export function mean({ height, width, channels, values }) {
  const sums = new Float64Array(channels);
  values.forEach((value, i) => (sums[i % channels] += value));
  return Float32Array.from(sums, (sum) => sum / (height * width));
}

/** ResNet: the maps of every stage, and the logits. */
export function classify(layers, picture) {
  const maps = features(layers, picture);
  const top = maps.at(-1);
  const one = { height: 1, width: 1, channels: top.channels, values: mean(top) };
  return { maps, logits: convolve(layers.dense, one).values };
}

/** Up to twice the resolution, joined to finer maps; `bridge` false puts zeros in their place. */
function up(layers, name, coarse, fine, bridge = true) {
  const spread = convolve(layers[`${name}.spread`], coarse);
  const { height, width, channels } = fine;
  const joined = new Float32Array(height * width * 2 * channels);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const cell = (y >> 1) * coarse.width + (x >> 1);
      const quarter = 2 * (y & 1) + (x & 1);
      const from = (cell * 4 + quarter) * channels;
      const to = (y * width + x) * 2 * channels;
      joined.set(spread.values.subarray(from, from + channels), to);
      if (!bridge) continue;
      const at = (y * width + x) * channels;
      joined.set(fine.values.subarray(at, at + channels), to + channels);
    }
  }
  const maps = { height, width, channels: 2 * channels, values: joined };
  return convolve(layers[`${name}.join`], maps, { relu: true });
}

function climb(layers, maps, cut = []) {
  let found = maps.at(-1);
  for (let step = 0; `ups.${step}.spread` in layers; step++) {
    const level = maps.length - 2 - step;
    found = up(layers, `ups.${step}`, found, maps[level], !cut.includes(level));
  }
  return found;
}

/** UNet: the logits of every pixel. cut: levels, 0 the finest, whose bridges carry nothing. */
export function segment(layers, picture, cut = []) {
  checkSize(layers, picture);
  const maps = features(layers, picture, "backbone.");
  // A step up more than the backbone has down: it looks at the picture once more, at half the size.
  let small = picture;
  while (`ups.${maps.length - 1}.spread` in layers) {
    small = halved(small);
    maps.push(features(layers, small, "backbone.").at(-1));
  }
  return convolve(layers.answer, climb(layers, maps, cut));
}

/** Half the height and width: the means of 2 x 2 cells. */
function halved({ height, width, channels, values }) {
  const small = { height: height / 2, width: width / 2, channels };
  const result = new Float32Array(small.height * small.width * channels);
  for (let i = 0; i < values.length; i++) {
    const [cell, channel] = [Math.floor(i / channels), i % channels];
    const [y, x] = [Math.floor(cell / width) >> 1, (cell % width) >> 1];
    result[(y * small.width + x) * channels + channel] += values[i] / 4;
  }
  return { ...small, values: result };
}

/** Detector: heat (from 0 to 1), size and offset of every cell, and the stride between cells. */
export function mapsOfObjects(layers, picture) {
  checkSize(layers, picture);
  const found = climb(layers, features(layers, picture, "backbone."));
  const seen = convolve(layers.look, found, { relu: true });
  const heat = convolve(layers.heat, seen);
  const box = convolve(layers.box, seen);
  const stride = picture.height / heat.height;
  const cells = { height: heat.height, width: heat.width, channels: 2 };
  const half = (first, change) => {
    const values = new Float32Array(cells.height * cells.width * 2);
    for (let i = 0; i < values.length; i++) {
      values[i] = change(box.values[4 * (i >> 1) + first + (i & 1)]);
    }
    return { ...cells, values };
  };
  return {
    heat: { ...heat, values: heat.values.map((logit) => 1 / (1 + Math.exp(-logit))) },
    size: half(0, (value) => 8 * stride * Math.exp(value)),
    offset: half(2, (value) => 0.5 + value),
    stride,
  };
}

/**
 * Boxes at the peaks of the heat: the `count` highest, less those that non-maximum suppression within
 * each class takes away.
 *
 * @returns {{box: number[], score: number, kind: number}[]} the best first; box is y0, x0, y1, x1
 */
export function objects({ heat, size, offset, stride }, { count = 20, threshold = 0.5 } = {}) {
  const { height, width, channels, values } = heat;
  const peaks = [];
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      for (let kind = 0; kind < channels; kind++) {
        const score = values[(y * width + x) * channels + kind];
        let highest = true;
        for (let v = Math.max(0, y - 1); highest && v <= Math.min(height - 1, y + 1); v++) {
          for (let u = Math.max(0, x - 1); u <= Math.min(width - 1, x + 1); u++) {
            if (values[(v * width + u) * channels + kind] > score) highest = false;
          }
        }
        if (highest) peaks.push({ score, kind, y, x });
      }
    }
  }
  peaks.sort((a, b) => b.score - a.score);
  const kept = [];
  const clip = (value, most) => Math.min(Math.max(value, 0), most);
  for (const { score, kind, y, x } of peaks.slice(0, count)) {
    const at = 2 * (y * width + x);
    const [high, wide] = size.values.subarray(at, at + 2);
    const [down, across] = offset.values.subarray(at, at + 2);
    const [middleY, middleX] = [stride * (y + down), stride * (x + across)];
    const [bottom, right] = [height * stride, width * stride];
    const box = [
      clip(middleY - high / 2, bottom),
      clip(middleX - wide / 2, right),
      clip(middleY + high / 2, bottom),
      clip(middleX + wide / 2, right),
    ];
    if (kept.every((other) => other.kind !== kind || overlap(other.box, box) <= threshold)) {
      kept.push({ box, score, kind });
    }
  }
  return kept;
}

/** Intersection over union of two boxes. */
export function overlap(a, b) {
  const area = ([top, left, bottom, right]) => Math.max(0, bottom - top) * Math.max(0, right - left);
  const both = area([
    Math.max(a[0], b[0]), Math.max(a[1], b[1]), Math.min(a[2], b[2]), Math.min(a[3], b[3]),
  ]);
  const either = area(a) + area(b) - both;
  return either > 0 ? both / either : 0;
}

function checkSize(layers, { height, width }) {
  const names = Object.keys(layers);
  const stages = names.map((name) => Number(name.split("stages.")[1]?.split(".")[0]));
  const ups = names.filter((name) => name.endsWith(".spread")).length;
  const shrink = 2 ** Math.max(ups, ...stages.filter(Number.isInteger));
  if (height % shrink || width % shrink || !height || !width) {
    throw new Error(`height and width must be multiples of ${shrink}, not ${height} and ${width}`);
  }
}
