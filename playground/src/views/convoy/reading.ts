/** Numbers about the load, and what they mean in a few words. Pure. */

import type { Live } from "../../api/live";

/** What a request of the demonstration should take about, so that the model is the limit, not what is around it. */
const REQUEST_US = 1000;
/** How many of them a batch may hold. */
export const BATCH_REQUESTS = 16;

/** What is read here of a model's cost table. */
export interface Measured {
  readonly max_batch_size: number;
  readonly instances: number;
  readonly buckets: readonly { readonly rows: number; readonly p50_us: number }[];
}

/** Rows per second that a model's instances do at most, at the batch size at which they do most; 0 if unmeasured. */
export function rowsPerSecond({ buckets, instances }: Measured): number {
  return buckets.reduce((most, { rows, p50_us }) => Math.max(most, (instances * rows * 1e6) / p50_us), 0);
}

/** How many rows a request should have: a power of two, at most `most`. */
export function rowsOfRequest(cost: Measured, most: number): number {
  const rowUs = 1e6 / Math.max(1, rowsPerSecond(cost));
  const power = 2 ** Math.round(Math.log2(REQUEST_US / rowUs));
  return Math.max(1, Math.min(power, most, cost.max_batch_size));
}

export function failedPerSecond(live: Live): number {
  return Object.values(live.failed_per_second).reduce((sum, rate) => sum + rate, 0);
}

/** What is to be seen. */
export type Reading = "idle" | "keepsUp" | "filling" | "windowFull" | "sloRefuses" | "sloKeepsUp";

/** A part of all requests that may fail by chance. */
const FEW = 0.01;

/** What an answer shows. `objectiveMs` is what a person wants, whether the model knows of it or not. */
export function readingOf(live: Live, objectiveMs: number): Reading {
  const failed = failedPerSecond(live);
  const all = live.answered_per_second + failed;
  if (all === 0 && live.waiting.requests === 0) return "idle";
  const fails = failed > FEW * all;
  if (live.policy === "slo") return fails ? "sloRefuses" : "sloKeepsUp";
  if (fails) return "windowFull";
  return (live.latency_us.p99 ?? 0) > 1000 * objectiveMs ? "filling" : "keepsUp";
}
