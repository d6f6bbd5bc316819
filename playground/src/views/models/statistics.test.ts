import { expect, it } from "vitest";

import type { VersionStatistics } from "../../api/figures";
import { averagesOf } from "./statistics";

const nothing = { count: 0, ns: 0 };

function statistics(stats: Partial<VersionStatistics["inference_stats"]>, rows = 0, batches = 0): VersionStatistics {
  return {
    name: "m",
    version: "1",
    last_inference: 0,
    inference_count: rows,
    execution_count: batches,
    inference_stats: {
      success: nothing,
      fail: nothing,
      queue: nothing,
      compute_input: nothing,
      compute_infer: nothing,
      compute_output: nothing,
      cache_hit: nothing,
      cache_miss: nothing,
      ...stats,
    },
    batch_stats: [],
  };
}

it("averages what happened", () => {
  const averages = averagesOf(
    statistics({ success: { count: 4, ns: 8_000 }, fail: { count: 1, ns: 5 }, queue: { count: 4, ns: 2_000 } }, 4, 2),
  );

  expect(averages).toMatchObject({
    succeeded: 4,
    failed: 1,
    rowsPerBatch: 2,
    requestMicroseconds: 2,
    queueMicroseconds: 0.5,
    inferMicroseconds: null,
  });
});

it("has no averages of nothing", () => {
  expect(averagesOf(statistics({}))).toMatchObject({ succeeded: 0, rowsPerBatch: null, requestMicroseconds: null });
});
