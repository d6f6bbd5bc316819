/** The animated road. Whoever wants no motion gets a picture that changes with each look at the server. */

import { effect } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";

import { formatNumber, text } from "../../i18n";
import { coloursOf, paint, type Colours, type Words } from "./painting";
import { failedPerSecond } from "./reading";
import { departures, lastBatches, now } from "./state";
import { advance, EMPTY, still, type Flow, type Traffic } from "./traffic";

const HEIGHT = 220;
/** A tab that was hidden goes on from where it is, and does not catch up. */
const LONGEST_STEP_SECONDS = 0.1;
/** More pictures a second would take the processor from the model, on a machine without a graphics card. */
const FRAME_MILLISECONDS = 1000 / 31;

export function Road() {
  const canvas = useRef<HTMLCanvasElement>(null);
  const words = text.value.convoy.road;

  useEffect(() => {
    const element = canvas.current;
    if (!element) return;
    const quiet = matchMedia("(prefers-reduced-motion: reduce)");
    let frame = 0;
    let before = performance.now();
    let traffic: Traffic = EMPTY;
    let colours = coloursOf(element);

    const move = (at: number): void => {
      frame = requestAnimationFrame(move);
      if (at - before < FRAME_MILLISECONDS) return;
      const seconds = Math.min(LONGEST_STEP_SECONDS, (at - before) / 1000);
      before = at;
      traffic = advance(traffic, seconds, flow(), departures.splice(0));
      show(element, traffic, colours);
    };
    const begin = (): void => {
      cancelAnimationFrame(frame);
      if (!quiet.matches) frame = requestAnimationFrame(move);
    };
    begin();
    quiet.addEventListener("change", begin);
    const endStill = effect(() => {
      const batches = lastBatches.value;
      colours = coloursOf(element);
      if (now.value && quiet.matches) show(element, still(batches), colours);
    });
    return () => {
      cancelAnimationFrame(frame);
      quiet.removeEventListener("change", begin);
      endStill();
    };
  }, [words]);

  return <canvas ref={canvas} class="road" height={HEIGHT} role="img" aria-label={words.alt} />;
}

function flow(): Flow {
  const live = now.peek();
  if (!live) return { arrivals: 0, refusedShare: 0 };
  const failed = failedPerSecond(live);
  const arrivals = live.answered_per_second + failed;
  return { arrivals, refusedShare: arrivals ? failed / arrivals : 0 };
}

function show(canvas: HTMLCanvasElement, traffic: Traffic, colours: Colours): void {
  const context = canvas.getContext("2d");
  if (!context) return;
  const width = canvas.clientWidth;
  const [wide, high] = [Math.round(width * devicePixelRatio), Math.round(HEIGHT * devicePixelRatio)];
  if (canvas.width !== wide || canvas.height !== high) [canvas.width, canvas.height] = [wide, high];
  context.setTransform(devicePixelRatio, 0, 0, devicePixelRatio, 0, 0);
  const waiting = now.peek()?.waiting.requests ?? 0;
  const words = text.peek().convoy.road;
  const said: Words = {
    waiting: words.waiting(formatNumber(waiting)),
    refused: words.refused,
    rows: (count) => words.rows(formatNumber(count)),
  };
  paint(context, width, HEIGHT, { traffic, waiting, colours, words: said });
}
