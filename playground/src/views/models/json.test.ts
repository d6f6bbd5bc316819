import { expect, it } from "vitest";

import { isShort, withoutDefaults } from "./json";

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

it("short values are those of a line", () => {
  expect(isShort([1, 32, 32])).toBe(true);
  expect(isShort({ text: "x".repeat(60) })).toBe(false);
});
