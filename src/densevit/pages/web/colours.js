// Results as colours, the same as those of densevit's own pictures.

// 256 colours from far to near; see densevit_runtime.colour.
const DEPTH = Uint8Array.from(
  atob(
    "FA80FQ81Fg82FxA4GBA5GRA6GhE8GxE9HBE/HRJAHhJBHxJDIRNEIhNGIxNHJBRIJRRKJhVLJxVNKBVOKRZPKhZRKxZSLBdU" +
    "LRdVLhdXLxdYMBhaMhhbMxhdNBleNRlgNhlhNxpjOBpkORplOhtnOxtpPRtqPhxsPxxtQBxvQRxwQh1yQx1zRB11Rh52Rx54" +
    "SB55SR97Sh98Sx9+TSB+TyB/UCF/UiGAVCKAVSKBVyOBWSOBWiSCXCSCXiWDYCWDYSWEYyaEZSaEZyeFaCeFaieGbCiGbSiH" +
    "byiHcSmHcymIdSmIdimJeCqJeiqJfCqKfSuKfyuLgSuLgyuMhSuMhiyMiCyNiiyNjCyOjiyOkC2OkS2Pky2PlS2Qly2QmS2Q" +
    "my2RnC2Rni6RoC6Soi6SpC6Tpi6Tpy+SqDGRqjKRqzOQrDWPrjaOrzeNsTiMsjmMszqLtTyKtj2Jtz6IuT+HukCGvEGFvUKE" +
    "v0ODwESCwUWCw0aBxEeAxkh/x0l9yUp8ykt7zEt6zUx5zk140E530U9201B11FF01lFy11Jx2VNw2lRv3FVt3VVs31Zr4Fdp" +
    "4lho41ln5Vll5lpk6Fti6Vxh61xf7F1d7l5c8F9a8GBa8GJa8WRa8WZa8mha8mpZ8mtZ821Z829Z83FZ9HJZ9HRZ9XZY9XdY" +
    "9XlY9ntY9nxY9n5Y94BX94FX94NX+IVX+IZX+IhW+YlW+YtW+Y1W+o5W+pBV+pFV+pNV+5VU+5ZU+5hU/JlU/JtT/JxT/J5T" +
    "/aBS/aFS/aNS/aRR/qZR/qdR/qlQ/qpQ/6xP/61P/69P/7BO/7JO/7NQ/7VT/7ZW/7dY/7lb/7pe/7xg/71j/75l/8Bn/8Fq" +
    "/8Js/8Ru/8Vx/8Zz/8h1/8l4/8p6/sx8/s1+/s6A/tCD/tGF/tKH/tSJ/tWL/daN/deQ/dmS/dqU/duW/d2Y/N6a/N+c/OGe" +
    "/OKg/OOi/OSk++am++eo++ir++qt+uuv+uyx+u6z+u+1+fC3+fG5+fO7+fS9+PW/"
  ),
  (letter) => letter.charCodeAt(0),
);

/** RGBA of labels; a label without a colour, such as one that is ignored, is transparent. Edges are dark. */
export function labelColours({ width, height }, labels, palette) {
  const image = new ImageData(width, height);
  const pixels = new Uint32Array(image.data.buffer);
  const bright = Uint32Array.from(palette, (colour) => packed(colour, 1));
  const dark = Uint32Array.from(palette, (colour) => packed(colour, 0.35));
  for (let y = 0, i = 0; y < height; y++) {
    for (let x = 0; x < width; x++, i++) {
      const label = labels[i];
      const edge = (x + 1 < width && labels[i + 1] !== label) || (y + 1 < height && labels[i + width] !== label);
      pixels[i] = label < palette.length ? (edge ? dark : bright)[label] : 0;
    }
  }
  return image;
}

/** RGBA of depth between two values; near is bright. What has no value is transparent. */
export function depthColours({ width, height }, depth, { low, high }, relative) {
  const image = new ImageData(width, height);
  const pixels = new Uint32Array(image.data.buffer);
  const table = depthTable();
  const step = 255 / Math.max(high - low, 1e-12);
  for (let i = 0; i < depth.length; i++) {
    if (!isValid(depth[i], relative)) continue;
    const share = Math.min(255, Math.max(0, (depth[i] - low) * step));
    pixels[i] = table[Math.round(relative ? share : 255 - share)];
  }
  return image;
}

/** RGBA of the first three channels, or of the first one in grey if there are fewer. */
export function valueColours({ width, height }, values, numChannels, unitVectors) {
  const image = new ImageData(width, height);
  const size = width * height;
  for (let place = 0; place < 3; place++) {
    const channel = values.subarray(0, size * numChannels).subarray((numChannels < 3 ? 0 : place) * size).subarray(0, size);
    const { low, high } = unitVectors ? { low: -1, high: 1 } : extent(channel);
    for (let i = 0; i < size; i++) image.data[4 * i + place] = (255 * (channel[i] - low)) / Math.max(high - low, 1e-12);
  }
  for (let i = 3; i < image.data.length; i += 4) image.data[i] = 255;
  return image;
}

/** Where the colours of depth begin and end: the percentiles 2 and 98, which outliers do not move. */
export function depthRange(depth, relative) {
  const values = depth.filter((value) => isValid(value, relative)).sort();
  if (!values.length) return null;
  const at = (share) => {
    const place = share * (values.length - 1);
    const below = Math.floor(place);
    const next = values[Math.min(below + 1, values.length - 1)];
    return values[below] + (next - values[below]) * (place - below);
  };
  return { low: at(0.02), high: at(0.98) };
}

/** Colours of depth from the nearest to the farthest, as CSS. */
export function depthGradient() {
  const steps = Array.from({ length: 9 }, (_, i) => 3 * Math.round(255 - (255 * i) / 8));
  return `linear-gradient(90deg, ${steps.map((at) => `rgb(${DEPTH.slice(at, at + 3).join(" ")})`).join(", ")})`;
}

/** Pixels of each class. */
export function countLabels(labels, numClasses) {
  const counts = new Uint32Array(numClasses);
  for (const label of labels) if (label < numClasses) counts[label]++;
  return counts;
}

function isValid(value, relative) {
  return Number.isFinite(value) && (relative || value > 0);
}

function extent(values) {
  let low = Infinity, high = -Infinity;
  for (const value of values) {
    if (value < low) low = value;
    if (value > high) high = value;
  }
  return { low, high };
}

function depthTable() {
  return Uint32Array.from({ length: 256 }, (_, i) => packed(DEPTH.subarray(3 * i, 3 * i + 3), 1));
}

/** A pixel of ImageData as a 32-bit number, of machines with the lowest byte first, which all with browsers are. */
function packed([red, green, blue], factor) {
  return ((255 << 24) | (Math.round(blue * factor) << 16) | (Math.round(green * factor) << 8) | Math.round(red * factor)) >>> 0;
}
