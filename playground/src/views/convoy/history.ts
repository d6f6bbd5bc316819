/** What was seen in the last seconds: samples for time lines, and batches for a histogram. Pure. */

import type { BatchColumns } from "../../api/live";

export interface Sample {
  /** Seconds, by any clock that goes on evenly. */
  readonly at: number;
  readonly values: Readonly<Record<string, number | null>>;
}

/** The samples with one more, without those that are older than `seconds` before it. */
export function withSample(samples: readonly Sample[], next: Sample, seconds: number): readonly Sample[] {
  return [...samples.filter(({ at }) => at > next.at - seconds), next];
}

/** The largest value of some series; 0 where there is none. */
export function peakOf(samples: readonly Sample[], series: readonly string[]): number {
  let peak = 0;
  for (const { values } of samples) {
    for (const name of series) peak = Math.max(peak, values[name] ?? 0);
  }
  return peak;
}

/** 1, 2 or 5 times a power of ten: the smallest that is no less. An axis ends there. */
export function roundUp(value: number): number {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return power * ([1, 2, 5, 10].find((step) => step * power >= value) ?? 10);
}

export interface Frame {
  readonly width: number;
  readonly height: number;
  /** The time at the right edge, and how long the line is. */
  readonly now: number;
  readonly seconds: number;
  /** The value at the upper edge. */
  readonly top: number;
}

/** An SVG path through a series' samples, from the left, with gaps where there is no value. */
export function pathOf(samples: readonly Sample[], name: string, frame: Frame): string {
  const { width, height, now, seconds, top } = frame;
  let path = "";
  let joined = false;
  for (const { at, values } of samples) {
    const value = values[name] ?? null;
    if (value !== null) {
      const x = width * (1 - (now - at) / seconds);
      const y = height * (1 - Math.min(1, value / top));
      path += `${joined ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`;
    }
    joined = value !== null;
  }
  return path;
}

/** One batch. Times in microseconds. */
export interface Batch {
  readonly startedUs: number;
  readonly rows: number;
  readonly requests: number;
  readonly durationUs: number;
  readonly queueDelayUs: number;
}

export function batchesOf(columns: BatchColumns): readonly Batch[] {
  return columns.rows.map((rows, index) => ({
    startedUs: columns.started_us[index] ?? 0,
    rows,
    requests: columns.requests[index] ?? 0,
    durationUs: columns.duration_us[index] ?? 0,
    queueDelayUs: columns.queue_delay_us[index] ?? 0,
  }));
}

export interface Bar {
  readonly from: number;
  readonly to: number;
  /** The part of all that it has, from 0 to 1. */
  readonly share: number;
}

/** How many batches had how many requests: a bar for each of 1, 2, 3–4, 5–8, … up to the largest. */
export function histogramOf(batches: readonly Batch[]): readonly Bar[] {
  const largest = batches.reduce((most, { requests }) => Math.max(most, requests), 0);
  const bars: Bar[] = [];
  for (let from = 1, to = 1; from <= largest; from = to + 1, to = 2 * to) {
    const count = batches.filter(({ requests }) => requests >= from && requests <= to).length;
    bars.push({ from, to, share: count / batches.length });
  }
  return bars;
}
