/** What the model says, and what it was shown. */

import { useLayoutEffect, useRef } from "preact/hooks";

import { Bars, percent } from "../../components/bars";
import { ErrorNotice } from "../../components/notice";
import { formatNumber, text } from "../../i18n";
import { hashOf } from "../../navigation";
import { paintPicture } from "./pictures";
import { answer, askAgain, centre, chosen, failure, shownInside, shownMilliseconds } from "./state";

const SHOWN_CLASSES = 5;

const milliseconds = (value: number): string => formatNumber(value, { maximumFractionDigits: value < 10 ? 1 : 0 });

export function Answers() {
  const words = text.value.draw.answers;
  const given = answer.value;
  const [best] = given?.scores ?? [];
  return (
    <section class="answers" aria-labelledby="answers-title">
      <h2 id="answers-title">{words.title}</h2>
      <p class="unseen" role="status">
        {best && words.best(best.label, percent(best.share))}
      </p>
      {failure.value !== null && <ErrorNotice error={failure.value} />}
      {given ? (
        <Bars bars={given.scores.slice(0, SHOWN_CLASSES)} stale={failure.value !== null} />
      ) : (
        failure.value === null && <p class="hint waiting">{words.waiting}</p>
      )}
      {given && shownMilliseconds.value !== null && (
        <p class="hint times">
          <span data-shown={shownMilliseconds.value}>{words.shown(milliseconds(shownMilliseconds.value))}</span>
          {" · "}
          <span>{words.request(milliseconds(given.requestMilliseconds))}</span>
        </p>
      )}
    </section>
  );
}

export function Seen() {
  const canvas = useRef<HTMLCanvasElement>(null);
  const words = text.value.draw.seen;
  const given = answer.value;
  const classifier = given?.classifier ?? chosen.value;

  useLayoutEffect(() => {
    const context = canvas.current?.getContext("2d");
    if (!context) return;
    if (given) paintPicture(context, given.picture, given.classifier);
    else context.clearRect(0, 0, context.canvas.width, context.canvas.height);
  }, [given, classifier]);

  if (!classifier) return null;
  const { height, width } = classifier.seen;
  return (
    <section class="seen" aria-labelledby="seen-title">
      <canvas ref={canvas} width={width} height={height} role="img" aria-label={words.alt} />
      <div>
        <h2 id="seen-title">{words.title}</h2>
        <p class="hint">{words.size(height, width)}</p>
        {shownInside.value.includes(classifier.model) && (
          <p>
            <a href={hashOf("layers", { model: classifier.model })}>{words.inside}</a>
          </p>
        )}
        {classifier.channels === 1 && (
          <>
            <label class="check">
              <input
                type="checkbox"
                checked={centre.value}
                aria-describedby="centre-hint"
                onChange={(event) => {
                  centre.value = event.currentTarget.checked;
                  askAgain();
                }}
              />
              {words.centre}
            </label>
            <p id="centre-hint" class="hint">
              {words.centreHint}
            </p>
            {!classifier.takesPixels && <p class="hint">{words.inverted}</p>}
          </>
        )}
      </div>
    </section>
  );
}
