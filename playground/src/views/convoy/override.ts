/** The configuration that a model is loaded with for the demonstration. Pure. */

import type { ModelConfig } from "../../api/models";

export type Choice =
  | { readonly policy: "window"; readonly batchRows: number }
  | { readonly policy: "slo"; readonly batchRows: number; readonly objectiveMs: number };

/** What the server sends of a configuration beside what is read here. */
export type FullConfig = ModelConfig & Readonly<Record<string, unknown>>;

const OBJECTIVE = "slo_ms";
/** Parameters that say how requests wait, as the objective does. */
const RIVALS = ["priority_aging_ms"];
/** Of `dynamic_batching`, what goes with an objective. */
const KEPT = ["priority_levels", "default_priority_level"];

/**
 * The model's configuration with another policy, and batches of up to `batchRows` rows where it has smaller ones. An
 * objective decides when a batch goes, so that delays, preferred sizes and timeouts go where it comes.
 */
export function overrideOf(config: FullConfig, choice: Choice): FullConfig {
  const own = (config.dynamic_batching ?? {}) as Readonly<Record<string, unknown>>;
  const parameters = Object.entries(config.parameters ?? {}).filter(([key]) => key !== OBJECTIVE);
  const max_batch_size = Math.max(config.max_batch_size, choice.batchRows);
  if (choice.policy === "window") {
    return { ...config, max_batch_size, dynamic_batching: own, parameters: Object.fromEntries(parameters) };
  }
  return {
    ...config,
    max_batch_size,
    dynamic_batching: Object.fromEntries(Object.entries(own).filter(([key]) => KEPT.includes(key))),
    parameters: {
      ...Object.fromEntries(parameters.filter(([key]) => !RIVALS.includes(key))),
      [OBJECTIVE]: { string_value: String(choice.objectiveMs) },
    },
  };
}

/** Whether the demonstration can ask a model: what it takes is known, and requests can share batches. */
export function canBeWatched(config: FullConfig): boolean {
  const known = config.input.every(({ dims }) => dims.every((dim) => dim > 0));
  return known && config.max_batch_size > 0 && !config.sequence_batching && !config.ensemble_scheduling;
}
