/** A layer's values as pictures. Pure. */

/** One map: values row by row. */
export interface FeatureMap {
  readonly width: number;
  readonly height: number;
  /** As many as there are; the last row of a vector may be short. In colour: all of red, then of green, then of blue. */
  readonly values: Float32Array;
  /** Its values are a picture's red, green and blue. */
  readonly inColour?: boolean;
  /** Each value is a unit of its own, that has no place in the picture. */
  readonly isVector: boolean;
}

export interface Range {
  readonly least: number;
  readonly greatest: number;
}

/** How much wider than high a vector is laid out. */
const VECTOR_PROPORTION = 3;
const SHORT_VECTOR = 16;

/** The maps of a tensor of that shape: (maps, height, width), or else a vector of units, in one. */
export function mapsOf(values: Float32Array, shape: readonly number[]): readonly FeatureMap[] {
  const [count = 0, height = 0, width = 0] = shape;
  if (shape.length !== 3 || height * width === 1) return [vectorOf(values)];
  return planesOf(values, count, height, width);
}

/** (filters, channels, height, width): a plane for each channel of each filter. */
export function filterPlanes(values: Float32Array, shape: readonly number[]): readonly FeatureMap[] {
  const [filters = 0, channels = 0, height = 0, width = 0] = shape;
  return planesOf(values, filters * channels, height, width);
}

/** (filters, 3, height, width): each filter as a picture in the colours that it reads. */
export function filterPictures(
  values: Float32Array,
  [filters = 0, , height = 0, width = 0]: readonly number[],
  blueFirst: boolean,
): readonly FeatureMap[] {
  const size = height * width;
  return Array.from({ length: filters }, (_, index) => {
    const own = values.slice(3 * index * size, 3 * (index + 1) * size);
    if (blueFirst) {
      const blue = own.slice(0, size);
      own.copyWithin(0, 2 * size);
      own.set(blue, 2 * size);
    }
    return { width, height, values: own, isVector: false, inColour: true };
  });
}

/** The values at a place: one, or those of red, green and blue; none where no unit is. */
export function valuesAt({ width, height, values, inColour }: FeatureMap, x: number, y: number): readonly number[] {
  const at = y * width + x;
  const places = inColour ? [at, at + width * height, at + 2 * width * height] : [at];
  return places.flatMap((place) => values[place] ?? []);
}

function planesOf(values: Float32Array, count: number, height: number, width: number): readonly FeatureMap[] {
  const size = height * width;
  return Array.from({ length: count }, (_, index) => {
    return { width, height, values: values.subarray(index * size, (index + 1) * size), isVector: false };
  });
}

function vectorOf(values: Float32Array): FeatureMap {
  const count = values.length;
  const width = count <= SHORT_VECTOR ? count : Math.ceil(Math.sqrt(count * VECTOR_PROPORTION));
  return { width, height: Math.ceil(count / width), values, isVector: true };
}

/** From the least to the greatest of the values; what is no number is left out. */
export function rangeOf(values: Float32Array): Range {
  let [least, greatest] = [Infinity, -Infinity];
  for (const value of values) {
    if (value < least) least = value;
    if (value > greatest) greatest = value;
  }
  return least <= greatest ? { least, greatest } : { least: 0, greatest: 0 };
}

/** The magnitude that gets the deepest colour. */
export function mostOf({ least, greatest }: Range): number {
  return Math.max(Math.abs(least), Math.abs(greatest));
}

export type Colour = readonly [red: number, green: number, blue: number];

/** Negative values, 0, positive ones. */
export interface Palette {
  readonly negative: Colour;
  readonly zero: Colour;
  readonly positive: Colour;
}

export const LIGHT: Palette = { negative: [180, 83, 9], zero: [250, 251, 251], positive: [10, 84, 78] };
export const DARK: Palette = { negative: [246, 173, 85], zero: [16, 22, 21], positive: [94, 234, 212] };

/** The map's pixels as RGBA: 0 is the palette's middle, `most` and −`most` are its ends. Where no unit is, they are clear. */
export function coloured(
  { width, height, values }: FeatureMap,
  most: number,
  palette: Palette,
): Uint8ClampedArray<ArrayBuffer> {
  const pixels = new Uint8ClampedArray(4 * width * height);
  values.forEach((value, at) => {
    const share = most > 0 ? Math.min(Math.abs(value) / most, 1) : 0;
    const end = value < 0 ? palette.negative : palette.positive;
    palette.zero.forEach((zero, channel) => (pixels[4 * at + channel] = zero + share * ((end[channel] ?? 0) - zero)));
    pixels[4 * at + 3] = 255;
  });
  return pixels;
}

/**
 * The pixels of a map in colour as RGBA: its least value is 0 and its greatest 255, whatever others have, so that a colour
 * is of this filter alone. Mid-grey where all values are one.
 */
export function inOwnColours(map: FeatureMap): Uint8ClampedArray<ArrayBuffer> {
  const { least, greatest } = rangeOf(map.values);
  const size = map.width * map.height;
  const pixels = new Uint8ClampedArray(4 * size).fill(255);
  map.values.forEach((value, at) => {
    const share = greatest > least ? (value - least) / (greatest - least) : 0.5;
    pixels[4 * (at % size) + Math.floor(at / size)] = 255 * share;
  });
  return pixels;
}

/** Those of the layers that have room together: each that still has, in their order. */
export function fitting<T>(layers: readonly T[], sizeOf: (layer: T) => number, room: number): readonly T[] {
  let used = 0;
  return layers.filter((layer) => {
    const fits = used + sizeOf(layer) <= room;
    if (fits) used += sizeOf(layer);
    return fits;
  });
}

/** How many values a shape has. */
export function countOf(shape: readonly number[]): number {
  return shape.reduce((product, dim) => product * dim, 1);
}
