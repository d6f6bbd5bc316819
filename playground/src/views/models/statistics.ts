/** Averages out of Triton's cumulative statistics. */

import type { Duration, VersionStatistics } from "../../api/figures";

export interface Averages {
  readonly succeeded: number;
  readonly failed: number;
  readonly cacheHits: number;
  /** Requests in a batch; `null` where nothing ran. */
  readonly rowsPerBatch: number | null;
  /** Microseconds of a request that succeeded, from arrival to answer; `null` where there was none. */
  readonly requestMicroseconds: number | null;
  readonly queueMicroseconds: number | null;
  readonly inputMicroseconds: number | null;
  readonly inferMicroseconds: number | null;
  readonly outputMicroseconds: number | null;
}

export function averagesOf(statistics: VersionStatistics): Averages {
  const { success, fail, queue, compute_input, compute_infer, compute_output, cache_hit } = statistics.inference_stats;
  return {
    succeeded: success.count,
    failed: fail.count,
    cacheHits: cache_hit.count,
    rowsPerBatch: statistics.execution_count ? statistics.inference_count / statistics.execution_count : null,
    requestMicroseconds: microseconds(success),
    queueMicroseconds: microseconds(queue),
    inputMicroseconds: microseconds(compute_input),
    inferMicroseconds: microseconds(compute_infer),
    outputMicroseconds: microseconds(compute_output),
  };
}

function microseconds({ count, ns }: Duration): number | null {
  return count ? ns / count / 1000 : null;
}
