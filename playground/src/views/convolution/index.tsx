/** A convolution, stepped window by window on the lecture's example. */

import { useEffect, useLayoutEffect, useState } from "preact/hooks";

import { ViewHead } from "../../components/view-head";
import { text } from "../../i18n";
import "./convolution.css";
import { LAYER, VOLUME } from "./example";
import { Matrix, Slot, type Mark } from "./matrix";
import { ServerSays } from "./server";
import { signed } from "./signed";
import { padded, sizeOf, stepsOf, type Step } from "./steps";

const PLAY_MS = 1400;
const STEPS = stepsOf(VOLUME, LAYER);
const INPUT = padded(VOLUME, LAYER.padding);
const SIDE = VOLUME[0]?.length ?? 0;
const KERNEL = LAYER.filters[0]?.[0]?.length ?? 0;
const STEPS_OF_FILTERS = LAYER.filters.map((_, index) => STEPS.filter(({ filter }) => filter === index));
const LAST = STEPS.length - 1;

/** From one step to another. */
type Move = (at: number) => number;

/** By the key that does it. */
const MOVES = {
  Home: () => 0,
  ArrowLeft: (at) => at - 1,
  ArrowRight: (at) => at + 1,
  End: () => LAST,
} satisfies Record<string, Move>;

const FORMULA = [
  `(${SIDE} − ${KERNEL} + 2·${LAYER.padding})/${LAYER.stride} + 1`,
  sizeOf(SIDE, KERNEL, LAYER.padding, LAYER.stride),
].join(" = ");

export function ConvolutionView() {
  const words = text.value.convolution;
  const [at, setAt] = useState(0);
  const [playing, setPlaying] = useState(false);
  const go = (move: Move): void => {
    setPlaying(false);
    setAt((before) => Math.min(Math.max(move(before), 0), LAST));
  };
  const play = (): void => {
    if (at === LAST) setAt(0);
    setPlaying(!playing);
  };
  useArrowKeys(go);
  // Whoever steps ends the timer in the same turn: an effect after the next frame might come behind it.
  useLayoutEffect(() => {
    if (!playing) return;
    if (at === LAST) return setPlaying(false);
    const timer = setTimeout(() => setAt(at + 1), PLAY_MS);
    return () => clearTimeout(timer);
  }, [playing, at]);

  const step = STEPS[at] as Step;
  return (
    <div class="convolution">
      <ViewHead title={words.title} lead={words.lead}>
        <p>
          {words.size}: <span class="number">W₂ = (W₁ − F + 2·P)/S + 1 = {FORMULA}</span>
        </p>
      </ViewHead>
      <div class="convolution-controls card" role="group" aria-label={words.controls}>
        <div class="buttons">
          <button type="button" onClick={() => go(MOVES.Home)} disabled={at === 0}>
            {words.first}
          </button>
          <button type="button" onClick={() => go(MOVES.ArrowLeft)} disabled={at === 0}>
            {words.previous}
          </button>
          <button type="button" class="primary" onClick={play}>
            {playing ? words.pause : words.play}
          </button>
          <button type="button" onClick={() => go(MOVES.ArrowRight)} disabled={at === LAST}>
            {words.next}
          </button>
        </div>
        <span class="number">{words.step(at + 1, STEPS.length)}</span>
        <span class="hint">{words.keys}</span>
      </div>
      <div class="convolution-columns">
        <Channels step={step} />
        <div class="convolution-results">
          <Outputs at={at} go={go} />
          <ServerSays />
        </div>
      </div>
    </div>
  );
}

/** The window on each channel, its products with the filter, and their sum. */
function Channels({ step }: { readonly step: Step }) {
  const words = text.value.convolution;
  const { filter, row, column, top, left, products, sums, bias, output } = step;
  const planes = LAYER.filters[filter] ?? [];
  const terms = [...sums, bias].map((term) => signed(term));
  const total = signed(output);
  return (
    <section class="card convolution-work" aria-labelledby="convolution-filter">
      <h2 id="convolution-filter">{words.filter(filter)}</h2>
      {INPUT.map((plane, channel) => (
        <div class="convolution-channel" key={channel}>
          <h3>{words.channel(channel)}</h3>
          <Matrix
            label={words.input(channel)}
            rows={plane}
            mark={windowAt(top, left)}
            window={{ top, left, side: KERNEL }}
          />
          <span class="operator">×</span>
          <Matrix label={words.filterPlane(filter, channel)} rows={planes[channel] ?? []} />
          <span class="operator">=</span>
          <Matrix label={words.productsOf(channel)} rows={products[channel] ?? []} />
          <span class="convolution-sum">
            <abbr class="operator" title={words.sum}>
              Σ
            </abbr>
            <output class="number" aria-label={words.sumOf(channel)}>
              {signed(sums[channel] ?? 0)}
            </output>
          </span>
        </div>
      ))}
      <p class="convolution-total number" aria-live="polite">
        <span aria-hidden="true">
          {sums.map((sum) => grouped(sum)).join(" + ")} + <span class="bias">{grouped(bias)}</span> ={" "}
          <strong>{total}</strong>
        </span>
        <span class="unseen">{words.said(filter, row + 1, column + 1, terms.join(" + "), total)}</span>
      </p>
      <p class="hint convolution-legend">
        {sums.map((_, channel) => `Σ${channel}`).join(" + ")} + {words.bias} b{filter}
      </p>
    </section>
  );
}

interface OutputsProps {
  readonly at: number;
  readonly go: (move: Move) => void;
}

/** Both planes of the output, as far as they are calculated; each number leads to its window. */
function Outputs({ at, go }: OutputsProps) {
  const words = text.value.convolution;
  return (
    <section class="card" aria-labelledby="convolution-outputs">
      <h2 id="convolution-outputs">{words.outputs}</h2>
      <div class="convolution-planes">
        {STEPS_OF_FILTERS.map((steps, filter) => (
          <div key={filter} role="group" aria-label={words.outputOf(filter)}>
            <h3>W{filter}</h3>
            <div class="convolution-slots">
              {steps.map((each) => {
                const index = STEPS.indexOf(each);
                const place = words.goTo(filter, each.row + 1, each.column + 1);
                const shown = index <= at ? signed(each.output) : "";
                return (
                  <Slot
                    key={index}
                    label={`${place}: ${shown || words.notYet}`}
                    shown={shown}
                    current={index === at}
                    onClick={() => go(() => index)}
                  />
                );
              })}
            </div>
          </div>
        ))}
      </div>
    </section>
  );
}

function windowAt(top: number, left: number): (row: number, column: number) => Mark {
  const end = SIDE + LAYER.padding;
  return (row, column) => {
    if (row >= top && row < top + KERNEL && column >= left && column < left + KERNEL) return "window";
    const inside = Math.min(row, column) >= LAYER.padding && Math.max(row, column) < end;
    return inside ? "" : "margin";
  };
}

/** In a sum, a negative number in brackets. */
function grouped(value: number): string {
  return value < 0 ? `(${signed(value)})` : signed(value);
}

/** Arrows step wherever the focus is, but for controls that know arrows themselves. */
function useArrowKeys(go: (move: Move) => void): void {
  useEffect(() => {
    const onKey = (event: KeyboardEvent): void => {
      const target = event.target instanceof Element ? event.target : null;
      const move = Object.entries(MOVES).find(([key]) => key === event.key)?.[1];
      if (!move || event.altKey || event.ctrlKey || event.metaKey || target?.closest("select, input, dialog")) return;
      event.preventDefault();
      go(move);
    };
    document.addEventListener("keydown", onKey);
    return () => document.removeEventListener("keydown", onKey);
  }, []);
}
