import { expect, test } from "vitest";

import {
  coloured,
  filterPictures,
  filterPlanes,
  fitting,
  inOwnColours,
  LIGHT,
  mapsOf,
  mostOf,
  rangeOf,
  valuesAt,
} from "./maps";

const counted = (count: number): Float32Array => Float32Array.from({ length: count }, (_, index) => index);

test("a tensor of maps is cut into them", () => {
  const maps = mapsOf(counted(12), [2, 2, 3]);

  expect(maps).toHaveLength(2);
  expect(maps[1]).toMatchObject({ width: 3, height: 2, isVector: false });
  expect([...(maps[1]?.values ?? [])]).toEqual([6, 7, 8, 9, 10, 11]);
});

test.each([
  [[10], 10, 10, 1],
  [[120, 1, 1], 120, 19, 7],
  [[84], 84, 16, 6],
])("%j is one vector", (shape, count, width, height) => {
  const [map, ...others] = mapsOf(counted(count), shape);

  expect(others).toEqual([]);
  expect(map).toMatchObject({ width, height, isVector: true });
  expect(width * height).toBeGreaterThanOrEqual(count);
});

test("filters have a plane for each channel", () => {
  expect(filterPlanes(counted(2 * 3 * 25), [2, 3, 5, 5])).toHaveLength(6);
});

const COLOURS = Float32Array.of(-1, 0, 1, 2, 3, 0.25);

test("a filter of a picture in colour has its least weight black and its greatest white", () => {
  const [filter] = filterPictures(COLOURS, [1, 3, 1, 2], false);

  expect(filter && [...inOwnColours(filter)]).toEqual([0, 128, 255, 255, 64, 191, 80, 255]);
  expect(filter && valuesAt(filter, 1, 0)).toEqual([0, 2, 0.25]);
});

test("a filter that reads blue first is turned around", () => {
  const [filter] = filterPictures(COLOURS, [1, 3, 1, 2], true);

  expect(filter && valuesAt(filter, 0, 0)).toEqual([3, 1, -1]);
});

test("a filter of one value is grey", () => {
  const [, filter] = filterPictures(Float32Array.of(1, 2, 3, 5, 5, 5), [2, 3, 1, 1], false);

  expect(filter && [...inOwnColours(filter)]).toEqual([128, 128, 128, 255]);
});

test("ranges leave out what is no number", () => {
  expect(rangeOf(Float32Array.of(Number.NaN, -2, 1))).toEqual({ least: -2, greatest: 1 });
  expect(rangeOf(Float32Array.of(Number.NaN))).toEqual({ least: 0, greatest: 0 });
  expect(mostOf({ least: -2, greatest: 1 })).toBe(2);
});

test("colours: the ends of the palette, its middle, and clear where nothing is", () => {
  const map = { width: 2, height: 2, values: Float32Array.of(2, -2, 0), isVector: true };

  const pixels = [...coloured(map, 2, LIGHT)];

  expect(pixels.slice(0, 4)).toEqual([...LIGHT.positive, 255]);
  expect(pixels.slice(4, 8)).toEqual([...LIGHT.negative, 255]);
  expect(pixels.slice(8, 12)).toEqual([...LIGHT.zero, 255]);
  expect(pixels[15]).toBe(0);
});

test("a layer of zeros is of one colour", () => {
  const map = { width: 1, height: 1, values: Float32Array.of(0), isVector: true };

  expect([...coloured(map, 0, LIGHT)]).toEqual([...LIGHT.zero, 255]);
});

test("as many layers as have room", () => {
  expect(fitting([3, 4, 2, 1], (size) => size, 8)).toEqual([3, 4, 1]);
  expect(fitting([9], (size) => size, 8)).toEqual([]);
});
