import { describe, expect, it } from "vitest";

import { batchesOf, histogramOf, pathOf, peakOf, roundUp, withSample, type Batch, type Sample } from "./history";

const sample = (at: number, value: number | null): Sample => ({ at, values: { p99: value } });
const batch = (requests: number): Batch => ({ startedUs: 0, rows: requests, requests, durationUs: 1, queueDelayUs: 1 });

it("samples are kept for so long and no longer", () => {
  const kept = withSample([sample(1, 1), sample(3, 2)], sample(31, 3), 30);
  expect(kept.map(({ at }) => at)).toEqual([3, 31]);
});

it("the peak is that of all series that are asked for", () => {
  const samples = [sample(1, 4), sample(2, null), { at: 3, values: { p99: 1, other: 9 } }];
  expect(peakOf(samples, ["p99"])).toBe(4);
  expect(peakOf(samples, ["p99", "other"])).toBe(9);
  expect(peakOf([], ["p99"])).toBe(0);
});

it.each([
  [0, 1],
  [1, 1],
  [1.1, 2],
  [37, 50],
  [700, 1000],
  [0.03, 0.05],
])("an axis for %d ends at %d", (value, end) => {
  expect(roundUp(value)).toBeCloseTo(end);
});

describe("a line", () => {
  const frame = { width: 300, height: 100, now: 30, seconds: 30, top: 10 };

  it("runs to the right edge, and up with the values", () => {
    expect(pathOf([sample(0, 0), sample(15, 5), sample(30, 10)], "p99", frame)).toBe("M0.0 100.0L150.0 50.0L300.0 0.0");
  });

  it("has a gap where there is no value", () => {
    expect(pathOf([sample(0, 0), sample(15, null), sample(30, 10)], "p99", frame)).toBe("M0.0 100.0M300.0 0.0");
  });

  it("stays below the upper edge", () => {
    expect(pathOf([sample(30, 99)], "p99", frame)).toBe("M300.0 0.0");
  });
});

it("columns become batches", () => {
  const columns = { started_us: [5], rows: [64], requests: [2], duration_us: [7], queue_delay_us: [3] };
  expect(batchesOf(columns)).toEqual([{ startedUs: 5, rows: 64, requests: 2, durationUs: 7, queueDelayUs: 3 }]);
});

it("a histogram has every batch in one bar", () => {
  const bars = histogramOf([1, 1, 2, 3, 4, 5, 8, 9].map(batch));
  expect(bars.map(({ from, to }) => [from, to])).toEqual([[1, 1], [2, 2], [3, 4], [5, 8], [9, 16]]);
  expect(bars.map(({ share }) => 8 * share)).toEqual([2, 1, 2, 2, 1]);
});

it("a histogram of nothing has no bars", () => {
  expect(histogramOf([])).toEqual([]);
});
