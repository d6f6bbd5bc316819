import { expect, it } from "vitest";

import { isPlain, withoutDefaults } from "./json";

it("what says nothing is left out, at any depth", () => {
  const config = {
    name: "m",
    runtime: "",
    max_batch_size: 0,
    metric_tags: {},
    input: [{ name: "x", dims: [1, 0], optional: false, reshape: null }],
    dynamic_batching: { preferred_batch_size: [], priority_levels: 0 },
  };

  expect(withoutDefaults(config)).toEqual({ name: "m", input: [{ name: "x", dims: [1, 0] }], dynamic_batching: {} });
});

it.each([
  [[1, 32, 32], true],
  [{}, true],
  [{ string_value: "32x32" }, true],
  [{ latest: { num_versions: 1 } }, true],
  [{ name: "m", count: 1 }, false],
  [[{ name: "x" }], false],
  ["x".repeat(100), true],
  [{ string_value: "x".repeat(100) }, false],
])("%j is read best in one line: %s", (value, expected) => {
  expect(isPlain(value)).toBe(expected);
});
