/** What the view knows, and what it has the server do: look, offer a load, and load the model with another policy. */

import { computed, signal } from "@preact/signals";

import { ApiError } from "../../api/errors";
import { LOADS_ON_REQUEST, serverMetadata } from "../../api/figures";
import { endLoad, live, loadState, offerLoad, type Live, type LoadState } from "../../api/live";
import { loadModel, modelConfig, modelResource, readyConfigs, repositoryIndex } from "../../api/models";
import { batchesOf, withSample, type Batch, type Sample } from "./history";
import { canBeWatched, overrideOf, type FullConfig } from "./override";
import { BATCH_REQUESTS, failedPerSecond, rowsOfRequest, rowsPerSecond, type Measured } from "./reading";
import { shownOneIn } from "./traffic";

export type WantedPolicy = "window" | "slo";

/** What a model can do, by its own measurements. */
export interface Capacity {
  readonly requestsPerSecond: number;
  /** Of each request of the load. */
  readonly rows: number;
}

export const HISTORY_SECONDS = 30;
const BATCH_SECONDS = 3;
const SHOWN_BATCHES = 8;
const LOOK_MILLISECONDS = 200;
const RETRY_MILLISECONDS = 1000;
/** A load ends so long after the page has gone without a word. */
const LOAD_SECONDS = 20;
const RENEW_MILLISECONDS = 5000;
/** A slider that is moved is waited for. */
const SETTLE_MILLISECONDS = 80;
const MOST_DEPARTURES = 64;
/** Chosen where nobody has chosen: a model that this repository trains. */
const FAVOURITE = "lenet5_modern";

/** `null` until the server has said which models there are. */
export const models = signal<readonly string[] | null>(null);
export const listError = signal<unknown>(null);
export const chosen = signal("");

export const now = signal<Live | null>(null);
export const samples = signal<readonly Sample[]>([]);
/** Of the last seconds, oldest first. */
export const recentBatches = signal<readonly Batch[]>([]);
export const lastBatches = computed(() => recentBatches.value.slice(-SHOWN_BATCHES));
/** How many batches there are for each that is drawn. */
export const oneIn = computed(() => shownOneIn(recentBatches.value, BATCH_SECONDS));
/** Batches that the road has not shown yet. It takes them out. */
export const departures: Batch[] = [];
export const lookError = signal<unknown>(null);

export const wantedPolicy = signal<WantedPolicy>("window");
export const objectiveMs = signal(50);
/** The offered load, in multiples of the capacity. */
export const factor = signal(0.5);
export const capacity = signal<Capacity | null>(null);
export const load = signal<LoadState | null>(null);
export const loadError = signal<unknown>(null);
/** Whether the server loads models on request: without that, a policy is as it is. */
export const canConfigure = signal(true);
/** Why the model could not be loaded with another policy. */
export const policyError = signal<unknown>(null);
/** Whether something is under way that takes a while. */
export const busy = signal(false);
/** Whether the model serves with a configuration of this view's. */
export const isChanged = signal(false);

export const offeredRate = computed(() => {
  const { requestsPerSecond = 0 } = capacity.value ?? {};
  return Math.min(factor.value * requestsPerSecond, load.value?.limits.rate ?? Infinity);
});

let isOffering = false;
let offerSoon = 0;
let turn: Promise<void> = Promise.resolve();
let original: FullConfig | null = null;
/** The configuration that this view had the model loaded with, as the server shows it. */
let changedTo = "";
let cursor: number | null = null;

/** Learn which models can be watched. */
export async function findModels(wanted: string): Promise<void> {
  try {
    const [index, server] = await Promise.all([repositoryIndex(), serverMetadata()]);
    canConfigure.value = server.extensions.includes(LOADS_ON_REQUEST);
    const configs = await readyConfigs(index);
    const found = configs.flatMap((config) => (canBeWatched(config as FullConfig) ? config.name : []));
    models.value = found;
    listError.value = null;
    const next = [wanted, chosen.value, FAVOURITE, ...found].find((name) => found.includes(name)) ?? "";
    if (next !== chosen.value) await choose(next);
  } catch (error) {
    listError.value = error;
  }
}

/** Watch another model. What was done to the one before is undone. */
export async function choose(model: string): Promise<void> {
  leave();
  chosen.value = model;
  [cursor, original] = [null, null];
  samples.value = recentBatches.value = [];
  departures.length = 0;
  now.value = capacity.value = loadError.value = policyError.value = null;
  if (model) await measure();
}

/** Look at the model again and again, until the signal is given or the server wants another token. */
export async function watch(signal: AbortSignal): Promise<void> {
  let renewAt = 0;
  let wasGone = false;
  while (!signal.aborted) {
    let pause = LOOK_MILLISECONDS;
    if (chosen.value && document.visibilityState === "visible") {
      try {
        await look(signal);
        if (wasGone) await comeBack();
        wasGone = false;
        if (performance.now() >= renewAt) {
          renewAt = performance.now() + RENEW_MILLISECONDS;
          if (isOffering && !busy.value) await offer();
          else if (load.value) load.value = await loadState({ signal });
        }
      } catch (error) {
        if (signal.aborted) return;
        lookError.value = error;
        if (error instanceof ApiError && (error.kind === "unauthenticated" || error.kind === "forbidden")) return;
        wasGone ||= error instanceof ApiError && error.kind === "unreachable";
        pause = RETRY_MILLISECONDS;
      }
    }
    await new Promise((resolve) => setTimeout(resolve, pause));
  }
}

/** The server answers again. It may have been started anew, and know of nothing that this view had it do. */
async function comeBack(): Promise<void> {
  load.value = await loadState();
  isOffering &&= load.value.running;
  isChanged.value &&= changedTo === JSON.stringify(await modelConfig(chosen.value));
  await measure();
}

async function look(signal: AbortSignal): Promise<void> {
  const model = chosen.value;
  const seen = await live(model, cursor, objectiveMs.value, { signal });
  if (model !== chosen.value) return;
  const isFirst = cursor === null;
  if (isFirst && seen.policy === "slo") wantedPolicy.value = "slo";
  cursor = seen.cursor;
  lookError.value = null;
  const batches = isFirst ? [] : batchesOf(seen.batches);
  departures.push(...batches);
  departures.splice(0, departures.length - MOST_DEPARTURES);
  const oldest = seen.now_us - BATCH_SECONDS * 1e6;
  recentBatches.value = [...recentBatches.value, ...batches].filter(({ startedUs }) => startedUs > oldest);
  samples.value = withSample(samples.value, sampleOf(seen), HISTORY_SECONDS);
  now.value = seen;
}

function sampleOf(seen: Live): Sample {
  const { p50, p99 } = seen.latency_us;
  return {
    at: seen.now_us / 1e6,
    values: {
      p50: p50 === null ? null : p50 / 1000,
      p99: p99 === null ? null : p99 / 1000,
      answered: seen.answered_per_second,
      inTime: seen.in_time_per_second,
      failed: failedPerSecond(seen),
      waiting: seen.waiting.requests,
    },
  };
}

/** Begin to offer the load, once the model serves with the policy that is wanted. */
export async function start(): Promise<void> {
  await during(async () => {
    await configure();
    isOffering = true;
    await offer();
  });
}

export function stop(): Promise<void> {
  isOffering = false;
  return inTurn(async () => {
    await endLoad();
    load.value = await loadState();
  });
}

export async function changePolicy(policy: WantedPolicy): Promise<void> {
  wantedPolicy.value = policy;
  await during(configure);
}

/** What answers are held against; the model has to know it where it promises to keep it. */
export async function changeObjective(milliseconds: number): Promise<void> {
  objectiveMs.value = milliseconds;
  if (wantedPolicy.value === "slo") await during(configure);
}

export function changeFactor(value: number): void {
  factor.value = value;
  clearTimeout(offerSoon);
  offerSoon = setTimeout(() => {
    if (isOffering && !busy.value) void offer();
  }, SETTLE_MILLISECONDS);
}

/** The model serves again as its folder in the repository says. */
export async function restore(): Promise<void> {
  await during(async () => {
    await loadModel(chosen.value);
    isChanged.value = false;
    policyError.value = null;
    await measure();
  });
}

/** Undo everything, also while the page goes away: nobody waits for the answers. */
export function leave(): void {
  const model = chosen.value;
  if (isOffering) void inTurn(endLoad);
  if (isChanged.value) void inTurn(() => loadModel(model, {}, { keepalive: true }));
  isOffering = isChanged.value = false;
}

/** Do something once what was begun before is done: a load that is renewed must not come after its end. */
function inTurn(work: () => Promise<unknown>): Promise<void> {
  turn = turn.then(async () => {
    try {
      await work();
    } catch (error) {
      loadError.value = error;
    }
  });
  return turn;
}

async function during(work: () => Promise<void>): Promise<void> {
  if (busy.value) return;
  busy.value = true;
  try {
    await work();
  } catch (error) {
    loadError.value = error;
  } finally {
    busy.value = false;
  }
}

/** Load the model with the policy that is wanted. Where that may not be, the load is offered to it as it is. */
async function configure(): Promise<void> {
  if (!canConfigure.value) return;
  const model = chosen.value;
  original ??= (await modelConfig(model)) as FullConfig;
  const batchRows = BATCH_REQUESTS * (capacity.value?.rows ?? 1);
  const policy = wantedPolicy.value;
  const config = overrideOf(original, { policy, batchRows, objectiveMs: objectiveMs.value });
  try {
    await loadModel(model, { config: JSON.stringify(config) });
    isChanged.value = true;
    changedTo = JSON.stringify(await modelConfig(model));
    policyError.value = null;
  } catch (error) {
    policyError.value = error;
  }
  await measure();
}

/** Learn what the model can do, and whether the server makes a load for whoever is here. */
async function measure(): Promise<void> {
  const model = chosen.value;
  try {
    load.value = await loadState();
    const costs = await modelResource<Measured>(model, "cost");
    const rows = capacity.value?.rows ?? rowsOfRequest(costs, load.value.limits.rows);
    if (model === chosen.value) capacity.value = { requestsPerSecond: rowsPerSecond(costs) / rows, rows };
  } catch (error) {
    loadError.value = error;
  }
}

function offer(): Promise<void> {
  return inTurn(async () => {
    const rate = offeredRate.value;
    if (!isOffering || !capacity.value || rate === 0) return;
    load.value = await offerLoad({ model: chosen.value, rows: capacity.value.rows, rate, seconds: LOAD_SECONDS });
    loadError.value = null;
  });
}
