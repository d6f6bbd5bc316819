import { expect, it } from "vitest";

import { heat, isSquare, mistakesOf, shares } from "./confusion";

it("shares are of the row's examples", () => {
  expect(shares([[3, 1], [0, 0]])).toEqual([
    [0.75, 0.25],
    [0, 0],
  ]);
});

it("mistakes leave out what was right, and begin with the most frequent", () => {
  expect(mistakesOf([[5, 1, 0], [0, 6, 0], [4, 0, 2]])).toEqual([
    { truth: 2, answer: 0, times: 4 },
    { truth: 0, answer: 1, times: 1 },
  ]);
});

it("heat tells little from nothing and grows", () => {
  const [none, little, half, all] = [0, 0.001, 0.5, 1].map(heat);
  expect(none).toBe(0);
  expect(little).toBeGreaterThan(0.15);
  expect(half).toBeGreaterThan(little!);
  expect(all).toBe(1);
});

it.each([
  [[[1, 0], [0, 1]], 2, true],
  [[[1, 0]], 2, false],
  [[[1], [0]], 2, false],
  [[[1]], 2, false],
])("%j is square for %d classes: %s", (matrix, classes, expected) => {
  expect(isSquare(matrix, classes)).toBe(expected);
});
