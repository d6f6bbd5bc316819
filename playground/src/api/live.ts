/** What a model does now, and the load that the server makes itself. */

import { ask, askJson, part, postJson, type Options } from "./http";

/** How requests of a model wait for each other; "single": they never share a batch. */
export type Policy = "window" | "slo" | "sequence" | "ensemble" | "single";

/** An answer of `…/live`. Rates are per second, over the last `window_seconds`. */
export interface Live {
  readonly model_name: string;
  readonly model_version: string;
  readonly policy: Policy;
  readonly objective_ms: number | null;
  /** By the server's clock. */
  readonly now_us: number;
  readonly waiting: { readonly requests: number; readonly rows: number; readonly oldest_us: number };
  readonly running: { readonly batches: number; readonly requests: number };
  readonly window_seconds: number;
  readonly latency_us: { readonly p50: number | null; readonly p99: number | null };
  readonly answered_per_second: number;
  readonly in_time_per_second: number | null;
  readonly failed_per_second: Readonly<Record<string, number>>;
  readonly cursor: number;
  readonly missed_batches: number;
  readonly batches: BatchColumns;
}

/** Batches that ended since the cursor: a column for each figure. */
export interface BatchColumns {
  readonly started_us: readonly number[];
  readonly rows: readonly number[];
  readonly requests: readonly number[];
  readonly duration_us: readonly number[];
  readonly queue_delay_us: readonly number[];
}

export interface OfferedLoad {
  readonly model: string;
  readonly rows: number;
  /** Requests per second, on average. */
  readonly rate: number;
  readonly seconds: number;
}

export interface LoadState {
  readonly running: boolean;
  readonly model: string | null;
  readonly rows: number | null;
  readonly rate: number | null;
  readonly seconds_left: number;
  readonly sent: number;
  readonly answered: number;
  readonly failed: Readonly<Record<string, number>>;
  readonly skipped: number;
  readonly in_progress: number;
  readonly limits: { readonly rows: number; readonly rate: number; readonly seconds: number };
}

const LOAD = "/v2/playground/load";

export function live(
  model: string,
  since: number | null,
  objectiveMs: number,
  options: Options = {},
): Promise<Live> {
  const query = new URLSearchParams({ objective_ms: String(objectiveMs) });
  if (since !== null) query.set("since", String(since));
  return askJson(`/v2/models/${part(model)}/live?${query}`, options);
}

export function loadState(options: Options = {}): Promise<LoadState> {
  return askJson(LOAD, options);
}

export function offerLoad(load: OfferedLoad): Promise<LoadState> {
  return postJson(LOAD, load);
}

/** Also works while the page goes away. */
export async function endLoad(): Promise<void> {
  await ask(LOAD, { method: "DELETE", keepalive: true });
}
