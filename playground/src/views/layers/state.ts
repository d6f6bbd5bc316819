/** What the view asks: which models show their layers, how one is built, and what is inside of it for a picture. */

import { ApiError } from "../../api/errors";
import { floats, infer, texts, type RequestedOutput } from "../../api/inference";
import { layersOf, modelConfig, modelResource, readyConfigs, readyNames, repositoryIndex } from "../../api/models";
import type { Bar } from "../../components/bars";
import { classifierOf, scoresOf, type Classifier } from "../draw/classifiers";
import { tensorOf, type Picture } from "../draw/tensors";
import { countOf, fitting } from "./maps";
import { tableOf, type Layer, type LayerTable } from "./table";

/** Values that are asked for without being asked for: 4 MB. */
const ROOM = 1 << 20;
const MOST_CLASSES = 100;

/** A model that shows the layers of another. */
export interface Companion {
  readonly name: string;
  readonly of: string;
}

/** Such a model, as it is built. */
export interface Inside {
  readonly table: LayerTable;
  readonly classifier: Classifier;
}

/** What it answered about one picture. */
export interface Values {
  readonly tensors: ReadonlyMap<string, Float32Array>;
  /** Best first; of the last layer. */
  readonly scores: readonly Bar[];
}

let found: readonly Companion[] = [];
let foundIn = "";

/** Those that are ready. Configurations are read where others are ready than before. */
export async function findCompanions(signal: AbortSignal): Promise<readonly Companion[]> {
  const ready = (await repositoryIndex({ signal })).filter(({ state }) => state === "READY");
  const index = JSON.stringify(ready);
  if (index !== foundIn) {
    const configs = await readyConfigs(ready);
    found = configs.map((config) => ({ name: config.name, of: layersOf(config) })).filter(({ of }) => of);
    // One that was going or coming is asked again.
    foundIn = configs.length === readyNames(ready).length ? index : "";
  }
  return found;
}

/** The one that is wanted, by its own name or by that of the model whose layers it shows. */
export function companionOf(wanted: readonly (string | null)[], companions: readonly Companion[]): Companion | undefined {
  const named = (wish: string | null) => companions.find(({ name }) => name === wish);
  const of = (wish: string | null) => companions.find((companion) => companion.of === wish);
  return wanted.map((wish) => named(wish) ?? of(wish)).find((companion) => companion !== undefined) ?? companions[0];
}

/** `null` for a model without a table of layers, or that takes no picture. */
export async function lookInto(model: string, signal: AbortSignal): Promise<Inside | null> {
  const [config, card] = await Promise.all([
    modelConfig(model, { signal }),
    modelResource<{ readonly layers?: unknown }>(model, "card", "", { signal }).catch(missingAsEmpty),
  ]);
  const table = tableOf(card.layers);
  const [answer] = config.output;
  const classifier = answer ? classifierOf({ ...config, output: [answer] }) : null;
  return table && classifier ? { table, classifier } : null;
}

function missingAsEmpty(error: unknown): { readonly layers?: unknown } {
  if (error instanceof ApiError && error.kind === "missing") return {};
  throw error;
}

/** Layers that are asked for unasked. */
export function firstLayers({ layers }: LayerTable): ReadonlySet<string> {
  const first = fitting(layers, ({ outputShape }) => countOf(outputShape), ROOM);
  return new Set(first.map(({ output }) => output));
}

/** The values of some layers, of the filters, and the answer. */
export async function askValues(
  { table, classifier }: Inside,
  picture: Picture,
  wanted: ReadonlySet<string>,
  signal: AbortSignal,
): Promise<Values> {
  const { model, output: answer, classes } = classifier;
  const asked = table.layers.map(({ output }) => output).filter((output) => output !== answer && wanted.has(output));
  const requested: RequestedOutput[] = asked.map((name) => ({ name }));
  if (table.filters) requested.push({ name: table.filters.output });
  requested.push({ name: answer, classification: Math.min(classes, MOST_CLASSES) });
  const outputs = await infer(model, [tensorOf(picture, classifier)], requested, { signal });
  const best = outputs.get(answer);
  const tensors = [...outputs.values()].filter(({ name }) => name !== answer);
  return {
    tensors: new Map(tensors.map((tensor) => [tensor.name, floats(tensor)])),
    scores: best ? scoresOf(texts(best)) : [],
  };
}

/** Whether the layer is the one whose values are the answer. */
export function isAnswer({ output }: Layer, { classifier }: Inside): boolean {
  return output === classifier.output;
}
