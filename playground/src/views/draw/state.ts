/** What the view knows: the classifiers that there are, the drawing, and the newest answer about it. */

import { computed, signal } from "@preact/signals";

import { ApiError } from "../../api/errors";
import { infer, texts } from "../../api/inference";
import { layersOf, readyConfigs, readyNames, repositoryIndex } from "../../api/models";
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
/** Models that do not serve now, by name, with their states. */
export const sleeping = signal<readonly { readonly name: string; readonly state: string }[]>([]);
/** The models whose layers another model shows. */
export const shownInside = signal<readonly string[]>([]);
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
/** Until when a server that refused is left alone, by the clock of `performance.now`. */
let quietUntil = 0;
let retry = 0;

/** Learn which models there are. The chosen one stays so; where it is none of them, another is chosen. */
export async function findClassifiers(): Promise<void> {
  try {
    const index = await repositoryIndex();
    const configs = await readyConfigs(index);
    const found = configs.flatMap((config) => classifierOf(config) ?? []);
    shownInside.value = configs.map(layersOf);
    const ready = readyNames(index);
    const others = index.filter(({ name, state }) => state && !ready.includes(name));
    sleeping.value = [...new Map(others.map(({ name, state = "" }) => [name, { name, state }])).values()];
    classifiers.value = found;
    listError.value = null;
    const names = [chosenName.value, FAVOURITE, ...found.map(({ model }) => model)];
    const next = names.find((name) => found.some(({ model }) => model === name)) ?? chosenName.value;
    // A hand may have been quicker than the list.
    if (next !== chosenName.value || !answer.value) choose(next);
  } catch (error) {
    listError.value = error;
  }
}

/** Put this on the paper and ask about it. */
export function draw(next: Drawing, at: number): void {
  drawing.value = next;
  askAgain(at);
}

/** Ask about what is on the paper: now, or once a server that refused may be asked again. */
export function askAgain(at = performance.now()): void {
  clearTimeout(retry);
  const [shown, classifier] = [drawing.value, chosen.value];
  const wait = quietUntil - performance.now();
  if (!shown || !classifier) return;
  if (wait > 0) retry = setTimeout(askAgain, wait);
  else latest.submit({ drawing: shown, classifier, centre: centre.value, at });
}

/** Another model answers from now on. */
export function choose(model: string): void {
  chosenName.value = model;
  answer.value = failure.value = null;
  quietUntil = 0;
  askAgain();
}

export function clear(): void {
  clearTimeout(retry);
  quietUntil = 0;
  latest.clear();
  drawing.value = answer.value = failure.value = shownMilliseconds.value = null;
}

async function work({ drawing: asked, classifier, centre: moved, at }: Job): Promise<void> {
  try {
    const picture = pictureOf(asked, classifier, moved);
    const began = performance.now();
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
    if (!(error instanceof ApiError)) return;
    quietUntil = performance.now() + 1000 * (error.retryAfterSeconds ?? RETRY_SECONDS);
    latest.clear();
    // A model that is missing may be loaded again.
    if (error.mayPass || error.kind === "missing") askAgain();
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
