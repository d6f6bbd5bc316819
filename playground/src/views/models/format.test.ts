import { expect, it } from "vitest";

import { duration, percent, shape, size, tiny } from "./format";

it.each([
  [0.4, "0.4 µs"],
  [61.04, "61 µs"],
  [2123, "2.12 ms"],
  [1_500_000, "1.5 s"],
])("%d µs are %s", (microseconds, said) => {
  expect(duration(microseconds)).toBe(said);
});

it.each([
  [950, "950 B"],
  [251_948, "252 kB"],
  [46_800_000, "46.8 MB"],
])("%d bytes are %s", (bytes, said) => {
  expect(size(bytes)).toBe(said);
});

it("a score is rounded to hundredths of a percent", () => {
  expect(percent({ right: 357, of: 360 })).toBe("99.17%");
});

it.each([
  [1.5e-6, "1.5 × 10⁻⁶"],
  [1e-5, "1 × 10⁻⁵"],
  [0, "0"],
])("%d is %s", (value, said) => {
  expect(tiny(value)).toBe(said);
});

it("free axes have a minus sign", () => {
  expect(shape([-1, 1, 32])).toBe("[−1, 1, 32]");
});
