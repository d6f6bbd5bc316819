import { describe, expect, it } from "vitest";

import type { Live } from "../../api/live";
import { failedPerSecond, readingOf, rowsOfRequest, rowsPerSecond, type Measured } from "./reading";

const cost = (rowUs: number, maxBatch = 64): Measured => ({
  max_batch_size: maxBatch,
  instances: 1,
  buckets: [
    { rows: 1, p50_us: 100 + rowUs },
    { rows: maxBatch, p50_us: maxBatch * rowUs },
  ],
});

const live = (change: Partial<Live>): Live => ({
  model_name: "m",
  model_version: "1",
  policy: "window",
  objective_ms: 50,
  now_us: 0,
  waiting: { requests: 0, rows: 0, oldest_us: 0 },
  running: { batches: 0, requests: 0 },
  window_seconds: 3,
  latency_us: { p50: 1000, p99: 2000 },
  answered_per_second: 100,
  in_time_per_second: 100,
  failed_per_second: {},
  cursor: 0,
  missed_batches: 0,
  batches: { started_us: [], rows: [], requests: [], duration_us: [], queue_delay_us: [] },
  ...change,
});

describe("the capacity", () => {
  it("is that of the best batch size, times the instances", () => {
    expect(rowsPerSecond(cost(20))).toBe(50_000);
    expect(rowsPerSecond({ ...cost(20), instances: 2 })).toBe(100_000);
  });

  it("is unknown where nothing was measured", () => {
    expect(rowsPerSecond({ ...cost(20), buckets: [] })).toBe(0);
  });
});

it.each([
  [20, 64, 64],
  [31, 64, 32],
  [20, 16, 16],
  [30_000, 64, 1],
])("at %d µs a row, and batches of %d, a request has %d rows", (rowUs, maxBatch, rows) => {
  expect(rowsOfRequest(cost(rowUs, maxBatch), 64)).toBe(rows);
});

it.each<[string, Partial<Live>]>([
  ["idle", { answered_per_second: 0 }],
  ["keepsUp", {}],
  ["filling", { latency_us: { p50: 1, p99: 60_000 } }],
  ["windowFull", { failed_per_second: { queue_full: 50 } }],
  ["sloKeepsUp", { policy: "slo", failed_per_second: { overloaded: 0.5 } }],
  ["sloRefuses", { policy: "slo", failed_per_second: { overloaded: 50, too_late: 1 } }],
])("it is %s", (reading, change) => {
  expect(readingOf(live(change), 50)).toBe(reading);
});

it("failures of all reasons are summed up", () => {
  expect(failedPerSecond(live({ failed_per_second: { overloaded: 50, too_late: 1 } }))).toBe(51);
});
