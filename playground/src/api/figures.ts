/** What a server tells about itself and its models: extensions, statistics, costs, cards. */

import { askJson, type Options } from "./http";

export interface ServerMetadata {
  readonly name: string;
  readonly version: string;
  readonly extensions: readonly string[];
}

/** The extension of servers that load and unload models on request. */
export const LOADS_ON_REQUEST = "model_repository(load)";

export interface Duration {
  readonly count: number;
  readonly ns: number;
}

export interface VersionStatistics {
  readonly name: string;
  readonly version: string;
  /** Milliseconds since the epoch; 0: never. */
  readonly last_inference: number;
  /** Rows. */
  readonly inference_count: number;
  /** Batches. */
  readonly execution_count: number;
  readonly inference_stats: {
    readonly success: Duration;
    readonly fail: Duration;
    readonly queue: Duration;
    readonly compute_input: Duration;
    readonly compute_infer: Duration;
    readonly compute_output: Duration;
    readonly cache_hit: Duration;
    readonly cache_miss: Duration;
  };
  readonly batch_stats: readonly { readonly batch_size: number; readonly compute_infer: Duration }[];
}

export interface ModelStatistics {
  readonly model_stats: readonly VersionStatistics[];
}

export interface CostTable {
  readonly max_batch_size: number;
  readonly objective_ms: number | null;
  readonly instances: number;
  readonly buckets: readonly {
    readonly rows: number;
    readonly p50_us: number;
    readonly p99_us: number;
    readonly runs: number;
  }[];
}

export interface Score {
  readonly right: number;
  readonly of: number;
}

/** A model card as export writes it. The server vouches for no key but the names: a card may be of another hand. */
export interface ModelCard {
  readonly model_name: string;
  readonly model_version: string;
  readonly task?: string;
  readonly network?: string;
  readonly parameters?: number;
  readonly labels?: readonly string[];
  readonly training?: {
    readonly recipe: string;
    readonly seed: number;
    readonly epochs: number;
    readonly device: string;
    readonly pretraining: string | null;
  } | null;
  readonly weights?: string;
  readonly accuracy?: Score | null;
  readonly float32_accuracy?: Score | null;
  /** A row for each class: how often it was taken for which. */
  readonly confusion?: readonly (readonly number[])[] | null;
  readonly agreement?: readonly {
    readonly precision: string;
    readonly worst: number;
    readonly batch: number;
    readonly inputs: string;
    readonly allowed: number;
  }[];
  readonly file?: { readonly bytes: number; readonly precision: string; readonly opset: number };
  readonly exported?: { readonly date: string; readonly libraries: Readonly<Record<string, string>> };
  readonly latency?: {
    readonly machine: string;
    readonly onnxruntime: string;
    readonly date: string;
    readonly medians: Readonly<Record<string, readonly { readonly batch: number; readonly milliseconds: number }[]>>;
  };
  readonly data?: { readonly source: string; readonly licence: string; readonly split: string } | null;
  readonly again?: readonly string[];
  /** The table of its layers. */
  readonly layers?: unknown;
}

export function serverMetadata(options: Options = {}): Promise<ServerMetadata> {
  return askJson("/v2", options);
}
