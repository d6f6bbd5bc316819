/** What is looked at: the drawing of the view to draw in, a handwritten digit, or a printed character. */

import { signal } from "@preact/signals";
import { useLayoutEffect, useRef } from "preact/hooks";

import { text } from "../../i18n";
import { hashOf } from "../../navigation";
import type { Classifier } from "../draw/classifiers";
import { enlarged, paintPicture, printed, type Drawing } from "../draw/pictures";
import { SAMPLES } from "../draw/samples";
import { drawing } from "../draw/state";
import type { Picture } from "../draw/tensors";

/** By a key: "drawing", the character of a sample, or "A" for a printed A; "" until a person chooses. */
export const choice = signal("");

const DRAWING = "drawing";
const DIGITS = SAMPLES.map((_, digit) => String(digit));
const LETTERS = [..."ABCEKRSX"];
const made = new Map<string, Drawing>();

/** What is chosen; where nobody has, the drawing, or a sample that the network may know. */
export function chosenDrawing({ classes }: Classifier): readonly [key: string, drawing: Drawing] {
  const usual = drawing.value ? DRAWING : classes === DIGITS.length ? "3" : "A";
  const key = choice.value && (choice.value !== DRAWING || drawing.value) ? choice.value : usual;
  return [key, (key === DRAWING && drawing.value) || sample(key)];
}

function sample(key: string): Drawing {
  const known = made.get(key);
  if (known) return known;
  const grey = SAMPLES[DIGITS.indexOf(key)];
  const fresh: Drawing = { kind: "image", image: grey ? enlarged(grey) : printed(key) };
  made.set(key, fresh);
  return fresh;
}

interface PictureChoiceProps {
  readonly chosen: string;
  readonly picture: Picture;
  readonly classifier: Classifier;
}

export function PictureChoice({ chosen, picture, classifier }: PictureChoiceProps) {
  const words = text.value.layers.picture;
  const canvas = useRef<HTMLCanvasElement>(null);
  const { height, width } = classifier.seen;
  useLayoutEffect(() => {
    const context = canvas.current?.getContext("2d");
    if (context) paintPicture(context, picture, classifier);
  }, [picture, classifier]);
  return (
    <section class="card layers-picture" aria-labelledby="layers-picture">
      <canvas ref={canvas} class="map" width={width} height={height} role="img" aria-label={words.alt(height, width)} />
      <div>
        <h2 id="layers-picture">{words.title}</h2>
        <p class="field">
          <Choice name={DRAWING} label={words.drawing} chosen={chosen} disabled={!drawing.value} />
          <a href={hashOf("draw")}>{drawing.value ? words.change : words.draw}</a>
        </p>
        <div class="layers-samples" role="group" aria-label={words.samples}>
          {DIGITS.map((digit) => (
            <Choice key={digit} name={digit} label={digit} chosen={chosen} />
          ))}
        </div>
        <div class="layers-samples" role="group" aria-label={words.letters}>
          {LETTERS.map((letter) => (
            <Choice key={letter} name={letter} label={letter} chosen={chosen} />
          ))}
        </div>
      </div>
    </section>
  );
}

interface ChoiceProps {
  readonly name: string;
  readonly label: string;
  readonly chosen: string;
  readonly disabled?: boolean;
}

function Choice({ name, label, chosen, disabled = false }: ChoiceProps) {
  return (
    <button type="button" aria-pressed={name === chosen} disabled={disabled} onClick={() => (choice.value = name)}>
      {label}
    </button>
  );
}
