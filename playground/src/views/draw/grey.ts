/** Grey pictures as numbers: finding the ink in one, and making it small. Pure. 0 is black, 255 white. */

import type { Box } from "./placing";

export interface Grey {
  readonly width: number;
  readonly height: number;
  /** Row by row. */
  readonly data: Uint8ClampedArray;
}

/** How much darker than the paper a pixel must be to be ink, as a share of the darkest. */
const INK_THRESHOLD = 0.4;
/** A picture whose darkest pixel is hardly darker than the paper has no ink. */
const FAINTEST = 16;

/** Rec. 601 luma of RGBA pixels, over white where they are transparent. */
export function greyOf(rgba: Uint8ClampedArray, width: number, height: number): Grey {
  const data = new Uint8ClampedArray(width * height);
  for (let at = 0; at < data.length; at++) {
    const start = 4 * at;
    const luma = 0.299 * (rgba[start] ?? 0) + 0.587 * (rgba[start + 1] ?? 0) + 0.114 * (rgba[start + 2] ?? 0);
    data[at] = 255 + ((luma - 255) * (rgba[start + 3] ?? 0)) / 255;
  }
  return { width, height, data };
}

/** Dark ink on white paper, whatever they were: the paper is what most of the border is. `null` without ink. */
export function inked({ width, height, data }: Grey): Grey | null {
  const paper = median(border(width, height, data));
  const light = paper >= 128;
  let deepest = 0;
  for (const value of data) deepest = Math.max(deepest, light ? paper - value : value - paper);
  if (deepest < FAINTEST) return null;
  const ink = data.map((value) => 255 - (255 * (light ? paper - value : value - paper)) / deepest);
  return { width, height, data: ink };
}

/** Around the ink of a picture of dark ink on white paper, in shares of its sides. */
export function inkBox({ width, height, data }: Grey): Box {
  let [left, top, right, bottom] = [width, height, 0, 0];
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      if (255 - (data[y * width + x] ?? 255) < 255 * INK_THRESHOLD) continue;
      left = Math.min(left, x);
      right = Math.max(right, x + 1);
      top = Math.min(top, y);
      bottom = Math.max(bottom, y + 1);
    }
  }
  return { left: left / width, top: top / height, right: right / width, bottom: bottom / height };
}

/** Smaller by whole factors: each pixel is the mean of those that it stands for. */
export function shrunk({ width, data }: Grey, height: number, columns: number, factor: number): Grey {
  const small = new Uint8ClampedArray(height * columns);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < columns; x++) {
      let sum = 0;
      for (let dy = 0; dy < factor; dy++) {
        const start = (y * factor + dy) * width + x * factor;
        for (let dx = 0; dx < factor; dx++) sum += data[start + dx] ?? 0;
      }
      small[y * columns + x] = sum / (factor * factor);
    }
  }
  return { width: columns, height, data: small };
}

function border(width: number, height: number, data: Uint8ClampedArray): number[] {
  const values: number[] = [];
  for (let x = 0; x < width; x++) values.push(data[x] ?? 0, data[(height - 1) * width + x] ?? 0);
  for (let y = 0; y < height; y++) values.push(data[y * width] ?? 0, data[y * width + width - 1] ?? 0);
  return values;
}

function median(values: number[]): number {
  return values.sort((a, b) => a - b)[values.length >> 1] ?? 255;
}
