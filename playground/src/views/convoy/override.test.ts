import { describe, expect, it } from "vitest";

import { canBeWatched, overrideOf, type FullConfig } from "./override";

const CONFIG: FullConfig = {
  name: "m",
  max_batch_size: 64,
  input: [{ name: "x", data_type: "TYPE_FP32", dims: [1, 28, 28] }],
  output: [{ name: "y", data_type: "TYPE_FP32", dims: [10] }],
  dynamic_batching: { max_queue_delay_microseconds: 500, preferred_batch_size: [8], priority_levels: 2 },
  parameters: { intra_op_thread_count: { string_value: "1" }, priority_aging_ms: { string_value: "5" } },
  version_policy: { latest: { num_versions: 1 } },
};

describe("an objective", () => {
  const override = overrideOf(CONFIG, { policy: "slo", batchRows: 512, objectiveMs: 50 });

  it("takes the place of everything else that says how long to wait", () => {
    expect(override.parameters).toEqual({
      intra_op_thread_count: { string_value: "1" },
      slo_ms: { string_value: "50" },
    });
    expect(override.dynamic_batching).toEqual({ priority_levels: 2 });
  });

  it("leaves the rest as it was", () => {
    const changed = ["max_batch_size", "dynamic_batching", "parameters"];
    for (const key of Object.keys(CONFIG).filter((each) => !changed.includes(each))) {
      expect(override[key]).toEqual(CONFIG[key]);
    }
  });
});

it("a window brings back the model's own, without the objective that it may have had", () => {
  const withObjective = overrideOf(CONFIG, { policy: "slo", batchRows: 1, objectiveMs: 50 });

  const override = overrideOf({ ...CONFIG, parameters: withObjective.parameters ?? {} }, { policy: "window", batchRows: 8 });

  expect(override.parameters).toEqual({ intra_op_thread_count: { string_value: "1" } });
  expect(override.dynamic_batching).toEqual(CONFIG.dynamic_batching);
});

it("a window makes requests of a model that runs each alone share batches", () => {
  const { dynamic_batching: _, ...alone } = CONFIG;
  expect(overrideOf(alone, { policy: "window", batchRows: 8 }).dynamic_batching).toEqual({});
});

it.each([
  [8, 64],
  [512, 512],
])("batches of %i rows need a max_batch_size of %i", (batchRows, expected) => {
  expect(overrideOf(CONFIG, { policy: "window", batchRows }).max_batch_size).toBe(expected);
});

it.each<[string, Partial<Record<string, unknown>>, boolean]>([
  ["a model of fixed shapes", {}, true],
  ["a model of free shapes", { input: [{ name: "x", data_type: "TYPE_FP32", dims: [3, -1, -1] }] }, false],
  ["a model without batches", { max_batch_size: 0 }, false],
  ["a model of sequences", { sequence_batching: {} }, false],
  ["an ensemble", { ensemble_scheduling: { step: [] } }, false],
])("%s can be watched: %s", (_, change, expected) => {
  expect(canBeWatched({ ...CONFIG, ...change } as FullConfig)).toBe(expected);
});
