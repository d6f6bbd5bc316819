/** The figures of the moment, and the tables that say what the road shows. */

import type { Live } from "../../api/live";
import { formatNumber, text } from "../../i18n";
import { rounded } from "./charts";
import { failedPerSecond } from "./reading";
import { lastBatches, now, objectiveMs } from "./state";

interface TileProps {
  readonly name: string;
  readonly value: string;
  readonly label: string;
  readonly note?: string | undefined;
  readonly tone?: "good" | "bad" | undefined;
}

function Tile({ name, value, label, note, tone }: TileProps) {
  return (
    <div class={tone ? `tile ${tone}` : "tile"} data-figure={name}>
      <dt>{label}</dt>
      <dd>
        <span class="tile-value number">{value}</span>
        {note && <span class="hint">{note}</span>}
      </dd>
    </div>
  );
}

export function Figures() {
  const words = text.value.convoy.figures;
  const live = now.value;
  if (!live) return null;
  const objective = objectiveMs.value;
  const failed = failedPerSecond(live);
  const offered = live.answered_per_second + failed;
  const inTime = live.in_time_per_second ?? 0;
  const percent = (value: number) => formatNumber(value, { style: "percent", maximumFractionDigits: 0 });
  const share = offered ? Math.min(1, inTime / offered) : 0;
  const late = (live.latency_us.p99 ?? 0) > 1000 * objective;
  return (
    <section class="card" aria-labelledby="figures-title">
      <h2 id="figures-title">{words.title}</h2>
      <dl class="tiles">
        <Tile
          name="waiting"
          label={words.waiting}
          value={formatNumber(live.waiting.requests)}
          note={words.waitingRows(formatNumber(live.waiting.rows))}
        />
        <Tile name="p50" label={words.p50} value={latency(live.latency_us.p50)} />
        <Tile
          name="p99"
          label={words.p99}
          value={latency(live.latency_us.p99)}
          tone={live.latency_us.p99 === null ? undefined : late ? "bad" : "good"}
        />
        <Tile
          name="answered"
          label={words.answered}
          value={rounded(live.answered_per_second)}
          note={words.running(formatNumber(live.running.requests))}
        />
        <Tile
          name="goodput"
          label={words.goodput}
          value={rounded(inTime)}
          note={offered ? words.ofOffered(percent(share)) : words.objective(rounded(objective))}
        />
        <Tile name="refused" label={words.refused} value={rounded(failed)} tone={failed >= 1 ? "bad" : undefined} />
      </dl>
    </section>
  );
}

function latency(microseconds: number | null): string {
  const words = text.value.convoy.figures;
  if (microseconds === null) return words.none;
  return microseconds < 1e6
    ? words.milliseconds(rounded(microseconds / 1000))
    : words.seconds(formatNumber(microseconds / 1e6, { maximumFractionDigits: 2 }));
}

export function Tables() {
  const words = text.value.convoy.tables;
  const live = now.value;
  if (!live) return null;
  return (
    <div class="tables">
      <section class="card" aria-labelledby="reasons-title">
        <h2 id="reasons-title">{words.reasons}</h2>
        <Reasons live={live} />
      </section>
      <section class="card" aria-labelledby="batches-title">
        <h2 id="batches-title">{words.batches}</h2>
        <Batches />
      </section>
    </div>
  );
}

function Reasons({ live }: { readonly live: Live }) {
  const words = text.value.convoy.tables;
  const reasons = Object.entries(live.failed_per_second);
  if (reasons.length === 0) return <p class="hint">{words.noReasons}</p>;
  return (
    <table>
      <thead>
        <tr>
          <th scope="col">{words.reason}</th>
          <th scope="col" class="numeric">
            {words.perSecond}
          </th>
        </tr>
      </thead>
      <tbody>
        {reasons.map(([reason, rate]) => (
          <tr key={reason} data-reason={reason}>
            <td>
              {words.names[reason] ?? reason} <code class="hint">{reason}</code>
            </td>
            <td class="numeric number">{rounded(rate)}</td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}

function Batches() {
  const { columns } = text.value.convoy.tables;
  const shown = [...lastBatches.value].reverse();
  if (shown.length === 0) return <p class="hint">{text.value.convoy.charts.noBatches}</p>;
  return (
    <table>
      <thead>
        <tr>
          {[columns.requests, columns.rows, columns.waited, columns.took].map((name) => (
            <th key={name} scope="col" class="numeric">
              {name}
            </th>
          ))}
        </tr>
      </thead>
      <tbody>
        {shown.map(({ startedUs, requests, rows, queueDelayUs, durationUs }) => (
          <tr key={startedUs}>
            <td class="numeric number">{formatNumber(requests)}</td>
            <td class="numeric number">{formatNumber(rows)}</td>
            <td class="numeric number">{latency(queueDelayUs)}</td>
            <td class="numeric number">{latency(durationUs)}</td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}
