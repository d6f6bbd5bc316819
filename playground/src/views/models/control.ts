/** Loads and unloads that this page has asked for. One at a time for each model; they outlive the view. */

import { signal } from "@preact/signals";

import { loadModel, unloadModel } from "../../api/models";

export interface Order {
  readonly action: "load" | "unload";
  /** Milliseconds since the epoch. */
  readonly since: number;
  readonly state: "pending" | "done" | "failed";
  readonly error?: unknown;
}

/** The latest order for each model. */
export const orders = signal<ReadonlyMap<string, Order>>(new Map());

/** How many orders have come to an end: what was known of models before may not be so now. */
export const settled = signal(0);

export async function order(model: string, action: Order["action"]): Promise<void> {
  const since = Date.now();
  note(model, { action, since, state: "pending" });
  try {
    await (action === "load" ? loadModel(model) : unloadModel(model));
    note(model, { action, since, state: "done" });
  } catch (error) {
    note(model, { action, since, state: "failed", error });
  }
  settled.value += 1;
}

export function isPending(model: string): boolean {
  return orders.value.get(model)?.state === "pending";
}

function note(model: string, order: Order): void {
  orders.value = new Map([...orders.value, [model, order]]);
}
