/** Time lines and a histogram, drawn as SVG. Each says its newest values in words, too. */

import { formatNumber, text } from "../../i18n";
import { histogramOf, pathOf, peakOf, roundUp } from "./history";
import { HISTORY_SECONDS, objectiveMs, recentBatches, samples } from "./state";

type Series = keyof (typeof text.value)["convoy"]["charts"]["series"];

const WIDTH = 320;
const HEIGHT = 96;

export const rounded = (value: number): string => formatNumber(value, { maximumFractionDigits: value < 10 ? 1 : 0 });

interface TimeLineProps {
  readonly title: string;
  readonly series: readonly Series[];
  /** A level that is marked. */
  readonly limit?: { readonly value: number; readonly label: string };
}

function TimeLine({ title, series, limit }: TimeLineProps) {
  const words = text.value.convoy.charts;
  const shown = samples.value;
  const newest = shown.at(-1);
  const top = roundUp(Math.max(peakOf(shown, series), limit?.value ?? 0));
  const frame = { width: WIDTH, height: HEIGHT, now: newest?.at ?? 0, seconds: HISTORY_SECONDS, top };
  const limitY = limit && HEIGHT * (1 - limit.value / top);
  return (
    <figure class="chart">
      <figcaption>{title}</figcaption>
      <div class="chart-area">
        <span class="chart-top number" aria-hidden="true">
          {rounded(top)}
        </span>
        <svg viewBox={`0 0 ${WIDTH} ${HEIGHT}`} preserveAspectRatio="none" aria-hidden="true">
          {limitY !== undefined && <line class="chart-limit" x1="0" x2={WIDTH} y1={limitY} y2={limitY} />}
          {series.map((name) => (
            <path key={name} class={`line-${name}`} d={pathOf(shown, name, frame)} />
          ))}
        </svg>
      </div>
      <ul class="legend">
        {series.map((name) => (
          <li key={name}>
            <span class={`swatch line-${name}`} aria-hidden="true" />
            {words.series[name]} <span class="number">{value(newest?.values[name])}</span>
          </li>
        ))}
        {limit && (
          <li>
            <span class="swatch chart-limit" aria-hidden="true" />
            {limit.label} <span class="number">{rounded(limit.value)}</span>
          </li>
        )}
      </ul>
    </figure>
  );
}

function value(newest: number | null | undefined): string {
  return newest === null || newest === undefined ? text.value.convoy.figures.none : rounded(newest);
}

function Histogram() {
  const words = text.value.convoy.charts;
  const bars = histogramOf(recentBatches.value);
  return (
    <figure class="chart" data-batches={recentBatches.value.length}>
      <figcaption>
        {words.sizes} <span class="hint">{words.sizesHint}</span>
      </figcaption>
      {bars.length === 0 ? (
        <p class="hint">{words.noBatches}</p>
      ) : (
        <ul class="sizes">
          {bars.map(({ from, to, share }) => (
            <li key={from}>
              <span class="size-label number">{from === to ? formatNumber(from) : words.sizeRange(String(from), String(to))}</span>
              <span class="size-bar" aria-hidden="true">
                <span style={{ width: `${100 * share}%` }} />
              </span>
              <span class="size-share number">
                {formatNumber(share, { style: "percent", maximumFractionDigits: 0 })}
              </span>
            </li>
          ))}
        </ul>
      )}
    </figure>
  );
}

export function Charts() {
  const words = text.value.convoy.charts;
  return (
    <section class="card" aria-labelledby="charts-title">
      <h2 id="charts-title">{words.title(formatNumber(HISTORY_SECONDS))}</h2>
      <div class="charts">
        <TimeLine
          title={words.latency}
          series={["p50", "p99"]}
          limit={{ value: objectiveMs.value, label: words.objective }}
        />
        <TimeLine title={words.rates} series={["answered", "inTime", "failed"]} />
        <TimeLine title={words.queue} series={["waiting"]} />
        <Histogram />
      </div>
    </section>
  );
}
