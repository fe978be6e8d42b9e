// PNG files that a canvas cannot write: indexed colours, and 16 bits of grey.

/**
 * @param {{width: number, height: number}} size
 * @param {ArrayLike<number>} values one for each pixel
 * @param {number[][] | null} palette up to 256 colours [r, g, b] by value; without it 16-bit grey
 * @returns {Promise<Blob>}
 */
export async function encodePng({ width, height }, values, palette) {
  const bytes = palette ? 1 : 2;
  const rows = new Uint8Array(height * (1 + width * bytes)); // each row begins with its filter: 0, none
  for (let y = 0, from = 0, to = 0; y < height; y++) {
    to++;
    for (let x = 0; x < width; x++, from++) {
      if (!palette) rows[to++] = values[from] >> 8;
      rows[to++] = values[from] & 255;
    }
  }
  const header = new Uint8Array(13);
  const view = new DataView(header.buffer);
  view.setUint32(0, width);
  view.setUint32(4, height);
  header.set([bytes * 8, palette ? 3 : 0, 0, 0, 0], 8);
  const deflated = new Blob([rows]).stream().pipeThrough(new CompressionStream("deflate"));
  const content = new Uint8Array(await new Response(deflated).arrayBuffer());
  const colours = palette ? [chunk("PLTE", new Uint8Array(full(palette).flat()))] : [];
  const signature = new Uint8Array([137, 80, 78, 71, 13, 10, 26, 10]);
  const parts = [signature, chunk("IHDR", header), ...colours, chunk("IDAT", content), chunk("IEND", new Uint8Array())];
  return new Blob(parts, { type: "image/png" });
}

/** 256 colours: a label outside the palette, such as 255 for "ignore", is black. */
function full(palette) {
  return Array.from({ length: 256 }, (_, value) => palette[value] ?? [0, 0, 0]);
}

function chunk(name, content) {
  const bytes = new Uint8Array(12 + content.length);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, content.length);
  bytes.set([...name].map((letter) => letter.charCodeAt(0)), 4);
  bytes.set(content, 8);
  view.setUint32(8 + content.length, crc(bytes.subarray(4, 8 + content.length)));
  return bytes;
}

const CRC = Uint32Array.from({ length: 256 }, (_, value) => {
  for (let bit = 0; bit < 8; bit++) value = value & 1 ? 0xedb88320 ^ (value >>> 1) : value >>> 1;
  return value;
});

function crc(bytes) {
  let value = 0xffffffff;
  for (const byte of bytes) value = CRC[(value ^ byte) & 255] ^ (value >>> 8);
  return ~value >>> 0;
}
