/** The repository as it was seen last, and what this page has asked to be loaded and unloaded. Both outlive the view. */

import { signal } from "@preact/signals";

import { loadModel, repositoryIndex, unloadModel, type IndexLine } from "../../api/models";

export interface Order {
  readonly action: "load" | "unload";
  /** Milliseconds since the epoch. */
  readonly since: number;
  /** Pending until the index shows what has become of it. */
  readonly state: "pending" | "done" | "failed";
  readonly error?: unknown;
}

/** The repository index; nothing before the first answer. */
export const index = signal<readonly IndexLine[] | undefined>(undefined);

/** The latest order for each model. */
export const orders = signal<ReadonlyMap<string, Order>>(new Map());

/** How many loads are done: what was known of a version before may be of another one now. */
export const loads = signal(0);

let looks = 0;
let shown = 0;

/** Look at the index now. What an earlier look finds after this one no longer counts. Raises `ApiError`. */
export async function look(): Promise<void> {
  const mine = ++looks;
  const lines = await repositoryIndex();
  if (mine < shown) return;
  shown = mine;
  index.value = lines;
}

/** Load or unload a model, and look what has become of it. One order at a time for each model. */
export async function order(model: string, action: Order["action"]): Promise<void> {
  const since = Date.now();
  note(model, { action, since, state: "pending" });
  try {
    await (action === "load" ? loadModel(model) : unloadModel(model));
    await look();
    if (action === "load") loads.value += 1;
    note(model, { action, since, state: "done" });
  } catch (error) {
    note(model, { action, since, state: "failed", error });
  }
}

export function isPending(model: string, action?: Order["action"]): boolean {
  const latest = orders.value.get(model);
  return latest?.state === "pending" && (action === undefined || latest.action === action);
}

function note(model: string, order: Order): void {
  orders.value = new Map([...orders.value, [model, order]]);
}
