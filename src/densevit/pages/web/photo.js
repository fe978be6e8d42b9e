// Photos: from a file to pixels.

export const LONG_SIDE = 1024; // pixels; larger photos are reduced, since the result has their size

/**
 * Read a photo, upright, its transparent parts on white; embedded colour profiles are ignored, as in the rest of densevit.
 * @param {Blob} file
 * @returns {Promise<{width, height, pixels: Uint8Array, canvas: HTMLCanvasElement}>} pixels are R, G, B
 */
export async function readPhoto(file) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, { imageOrientation: "from-image", colorSpaceConversion: "none" });
  } catch {
    throw new Error(`${file.name || "The file"} is not a photo that this browser can read; JPEG, PNG and WebP are accepted`);
  }
  const scale = Math.min(1, LONG_SIDE / Math.max(bitmap.width, bitmap.height));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(bitmap.width * scale));
  canvas.height = Math.max(1, Math.round(bitmap.height * scale));
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = "#fff";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  bitmap.close();
  const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
  const pixels = new Uint8Array(canvas.width * canvas.height * 3);
  for (let from = 0, to = 0; from < data.length; from += 4) {
    pixels[to++] = data[from];
    pixels[to++] = data[from + 1];
    pixels[to++] = data[from + 2];
  }
  return { width: canvas.width, height: canvas.height, pixels, canvas };
}
