/** The repository index by models. */

import type { IndexLine, ModelState } from "../../api/models";

export type State = ModelState | "ABSENT";

export interface Version {
  readonly version: string;
  readonly state: ModelState;
  readonly reason: string;
}

export interface Model {
  readonly name: string;
  /** Of the model as a whole: the best that one of its versions is in, or comes to; ABSENT: never loaded. */
  readonly state: State;
  /** Why the model as a whole is not served. */
  readonly reason: string;
  /** The newest first. */
  readonly versions: readonly Version[];
}

/** What says most of a model comes first. */
const RANKS: readonly State[] = ["LOADING", "UNLOADING", "READY", "UNAVAILABLE", "UNKNOWN"];

/** What the server says of a version that was asked to go: no failure. */
const UNLOADED = "unloaded";

/** Models in the order of the index. A line without a version is the model's own. */
export function modelsOf(lines: readonly IndexLine[]): readonly Model[] {
  const names = [...new Set(lines.map(({ name }) => name))];
  return names.map((name) => {
    const mine = lines.filter((line) => line.name === name);
    const versions = mine
      .filter(({ version }) => version)
      .map(({ version = "", state = "UNKNOWN", reason = "" }) => ({ version, state, reason }))
      .sort((one, other) => Number(other.version) - Number(one.version));
    const own = mine.find(({ version }) => !version);
    const states = new Set<State>(mine.map(({ state }) => state ?? "UNKNOWN"));
    const state = RANKS.find((each) => states.has(each)) ?? "UNKNOWN";
    const reason = own?.reason ?? "";
    return { name, versions, reason, state: isAbsent(state, reason, versions) ? "ABSENT" : state };
  });
}

/** The versions that answer, the newest first. */
export function readyVersions(model: Model): readonly string[] {
  return model.versions.filter(({ state }) => state === "READY").map(({ version }) => version);
}

/** What is shown where nobody has chosen: a model that serves, if there is one. */
export function firstToShow(models: readonly Model[]): Model | undefined {
  return models.find(({ state }) => state === "READY") ?? models[0];
}

/** How many models are in each state. */
export function countsOf(models: readonly Model[]): ReadonlyMap<State, number> {
  const counts = new Map<State, number>();
  for (const { state } of models) counts.set(state, (counts.get(state) ?? 0) + 1);
  return counts;
}

function isAbsent(state: State, reason: string, versions: readonly Version[]): boolean {
  if (state !== "UNAVAILABLE" && state !== "UNKNOWN") return false;
  return !reason && versions.every((version) => version.reason === UNLOADED || !version.reason);
}
