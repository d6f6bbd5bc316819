/** What the view knows: the classifiers that there are, the drawing, and the newest answer about it. */

import { computed, signal } from "@preact/signals";

import { ApiError } from "../../api/errors";
import { infer, texts } from "../../api/inference";
import { modelConfig, repositoryIndex } from "../../api/models";
import { classifierOf, scoresOf, type Classifier, type Score } from "./classifiers";
import { Latest } from "./latest";
import { pictureOf, type Drawing } from "./pictures";
import { tensorOf, type Picture } from "./tensors";

export interface Answer {
  readonly classifier: Classifier;
  readonly picture: Picture;
  readonly scores: readonly Score[];
  /** From the request's beginning to its answer. */
  readonly requestMilliseconds: number;
}

interface Job {
  readonly drawing: Drawing;
  readonly classifier: Classifier;
  readonly centre: boolean;
  /** When the hand moved, by the clock of `performance.now`. */
  readonly at: number;
}

/** Scores are asked for up to so many classes; of more, for the best. */
const MOST_CLASSES = 100;
const RETRY_SECONDS = 2;
/** Chosen where nobody has chosen: a model that this repository trains. */
const FAVOURITE = "lenet5_modern";

/** `null` until the server has said which models there are. */
export const classifiers = signal<readonly Classifier[] | null>(null);
/** Models that do not serve now, and why, as the index says it. */
export const sleeping = signal<readonly { readonly name: string; readonly state: string }[]>([]);
export const listError = signal<unknown>(null);

export const chosenName = signal("");
export const chosen = computed(() => {
  const all = classifiers.value ?? [];
  return all.find(({ model }) => model === chosenName.value) ?? null;
});

export const drawing = signal<Drawing | null>(null);
/** Whether the ink is moved to the middle. */
export const centre = signal(true);
export const answer = signal<Answer | null>(null);
export const failure = signal<unknown>(null);
/** From the hand's movement until its answer is on the screen. */
export const shownMilliseconds = signal<number | null>(null);

const latest = new Latest<Job>(work);
let retry = 0;

/** Learn which models there are. The chosen one stays so; where it is none of them, another is chosen. */
export async function findClassifiers(): Promise<void> {
  try {
    const index = await repositoryIndex();
    const ready = [...new Set(index.filter(({ state }) => state === "READY").map(({ name }) => name))];
    const configs = await Promise.all(ready.map((name) => modelConfig(name).catch(missingAsNull)));
    const found = configs.flatMap((config) => (config && classifierOf(config)) ?? []);
    sleeping.value = index
      .filter(({ name, state }) => state && state !== "READY" && !ready.includes(name))
      .map(({ name, state = "" }) => ({ name, state }));
    classifiers.value = found;
    listError.value = null;
    const names = [chosenName.value, FAVOURITE, ...found.map(({ model }) => model)];
    chosenName.value = names.find((name) => found.some(({ model }) => model === name)) ?? chosenName.value;
  } catch (error) {
    listError.value = error;
  }
}

/** A model may go between the index and its configuration. */
function missingAsNull(error: unknown): null {
  if (error instanceof ApiError && (error.kind === "missing" || error.kind === "invalid" || error.mayPass)) return null;
  throw error;
}

/** Put this on the paper and ask about it. */
export function draw(next: Drawing, at: number): void {
  drawing.value = next;
  askAgain(at);
}

/** Ask about what is on the paper. */
export function askAgain(at = performance.now()): void {
  clearTimeout(retry);
  const [shown, classifier] = [drawing.value, chosen.value];
  if (shown && classifier) latest.submit({ drawing: shown, classifier, centre: centre.value, at });
}

export function clear(): void {
  clearTimeout(retry);
  latest.clear();
  drawing.value = answer.value = failure.value = shownMilliseconds.value = null;
}

async function work({ drawing: asked, classifier, centre: moved, at }: Job): Promise<void> {
  const picture = pictureOf(asked, classifier, moved);
  const began = performance.now();
  try {
    const outputs = await infer(
      classifier.model,
      [tensorOf(picture, classifier)],
      [{ name: classifier.output, classification: Math.min(classifier.classes, MOST_CLASSES) }],
    );
    const output = outputs.get(classifier.output);
    if (!output || isOver(classifier)) return;
    failure.value = null;
    answer.value = {
      classifier,
      picture,
      scores: scoresOf(texts(output)),
      requestMilliseconds: performance.now() - began,
    };
    afterPaint(() => (shownMilliseconds.value = performance.now() - at));
  } catch (error) {
    if (isOver(classifier)) return;
    failure.value = error;
    if (error instanceof ApiError && error.mayPass) {
      retry = setTimeout(askAgain, 1000 * (error.retryAfterSeconds ?? RETRY_SECONDS));
    }
  }
}

/** Whether an answer comes too late: the paper was cleared, or another model was chosen. */
function isOver(classifier: Classifier): boolean {
  return drawing.value === null || chosenName.value !== classifier.model;
}

/** Once the browser has drawn what was changed before. */
function afterPaint(then: () => void): void {
  requestAnimationFrame(() => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = then;
    port2.postMessage(null);
  });
}
