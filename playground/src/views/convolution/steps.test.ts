import { expect, test } from "vitest";

import { LAYER, VOLUME } from "./example";
import { outputsOf, padded, sizeOf, stepsOf } from "./steps";

test("the lecture's outputs", () => {
  const steps = stepsOf(VOLUME, LAYER);

  expect(outputsOf(steps)).toEqual([2, 3, 3, 3, 7, 3, 8, 10, -3, -8, -8, -3, -3, 1, 0, -3, -8, -5]);
});

test("the lecture's padded planes", () => {
  const rows = padded(VOLUME, 1).map((plane) => plane.map((row) => row.join("")).join(" "));

  expect(rows).toEqual([
    "0000000 0001020 0102010 0102200 0200200 0212200 0000000",
    "0000000 0212110 0212010 0021010 0122220 0012010 0000000",
    "0000000 0211200 0100100 0010000 0102100 0221110 0000000",
  ]);
});

test("a step has its window, products, sums and bias", () => {
  const step = stepsOf(VOLUME, LAYER)[4];

  expect(step).toMatchObject({ filter: 0, row: 1, column: 1, top: 2, left: 2, bias: 1, output: 7 });
  expect(step?.products[0]).toEqual([
    [0, 0, 0],
    [0, 0, 2],
    [0, 0, 2],
  ]);
  expect(step?.sums.reduce((total, sum) => total + sum)).toBe(6);
});

test("no product is a negative zero", () => {
  const products = stepsOf(VOLUME, LAYER).flatMap((step) => step.products.flat(2));

  expect(products.some((product) => Object.is(product, -0))).toBe(false);
});

test("sizes are cut off where windows do not fit", () => {
  expect(sizeOf(5, 3, 1, 2)).toBe(3);
  expect(sizeOf(32, 5, 0, 1)).toBe(28);
  expect(sizeOf(224, 11, 2, 4)).toBe(55);
});
