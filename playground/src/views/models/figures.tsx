/** What a version reads and answers, what it has done, and what its batches cost. */

import type { ComponentChildren } from "preact";

import type { CostTable, ModelStatistics } from "../../api/figures";
import { modelMetadata, modelResource } from "../../api/models";
import { useAsked, type Asked } from "../../components/asked";
import { ErrorNotice } from "../../components/notice";
import { formatNumber, text } from "../../i18n";
import { Bar, Scrolls } from "./parts";
import type { VersionProps } from "./details";
import { duration, shape } from "./format";
import { averagesOf } from "./statistics";

const STATISTICS_MS = 2000;
const COSTS_MS = 10_000;

export function TensorsSection({ model, version, load }: VersionProps) {
  const words = text.value.models.tensors;
  const metadata = useAsked(`metadata/${model}/${version}`, (signal) => modelMetadata(model, { signal }), {
    again: load,
  });
  const tensors = [
    ...(metadata.value?.inputs ?? []).map((tensor) => ({ ...tensor, kind: words.input })),
    ...(metadata.value?.outputs ?? []).map((tensor) => ({ ...tensor, kind: words.output })),
  ];
  return (
    <Section id="tensors" title={words.title} asked={metadata}>
      <Scrolls label={words.title}>
        <table>
          <thead>
            <tr>
              <th scope="col">{words.name}</th>
              <th scope="col">{words.kind}</th>
              <th scope="col">{words.datatype}</th>
              <th scope="col">{words.shape}</th>
            </tr>
          </thead>
          <tbody>
            {tensors.map(({ name, kind, datatype, shape: axes }) => (
              <tr key={`${kind}/${name}`}>
                <th scope="row">
                  <code>{name}</code>
                </th>
                <td>{kind}</td>
                <td class="number">{datatype}</td>
                <td class="number whole">{shape(axes)}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </Scrolls>
      <p class="hint">{words.free}</p>
    </Section>
  );
}

export function StatisticsSection({ model, version }: VersionProps) {
  const words = text.value.models.statistics;
  const statistics = useAsked(
    `stats/${model}/${version}`,
    (signal) => modelResource<ModelStatistics>(model, "stats", version, { signal }),
    { everyMs: STATISTICS_MS },
  );
  const counted = statistics.value?.model_stats[0];
  if (counted === undefined) return <Section id="statistics" title={words.title} asked={statistics} />;
  const averages = averagesOf(counted);
  const figures: readonly (readonly [string, number | null])[] = [
    [words.succeeded, averages.succeeded],
    [words.failed, averages.failed],
    [words.rows, counted.inference_count],
    [words.batches, counted.execution_count],
    [words.rowsPerBatch, averages.rowsPerBatch],
    ...(averages.cacheHits ? [[words.cacheHits, averages.cacheHits] as const] : []),
  ];
  const times: readonly (readonly [string, number | null])[] = [
    [words.request, averages.requestMicroseconds],
    [words.queue, averages.queueMicroseconds],
    [words.input, averages.inputMicroseconds],
    [words.infer, averages.inferMicroseconds],
    [words.output, averages.outputMicroseconds],
  ];
  const batches = counted.batch_stats;
  const most = Math.max(1, ...batches.map(({ compute_infer }) => compute_infer.count));
  return (
    <Section id="statistics" title={words.title} hint={words.hint} asked={statistics}>
      <dl class="figures">
        {figures.map(([term, value]) => (
          <Figure key={term} term={term} value={value === null ? "–" : formatNumber(value, { maximumFractionDigits: 1 })} />
        ))}
      </dl>
      {averages.requestMicroseconds === null ? (
        averages.failed === 0 && averages.cacheHits === 0 && <p class="hint">{words.nothing}</p>
      ) : (
        <dl class="figures">
          {times.map(([term, value]) => (
            <Figure key={term} term={term} value={value === null ? "–" : duration(value)} />
          ))}
        </dl>
      )}
      {batches.length > 0 && (
        <details>
          <summary>{words.sizes}</summary>
          <Scrolls label={words.sizes}>
            <table>
              <thead>
                <tr>
                  <th scope="col">{words.size}</th>
                  <th scope="col" class="figure">
                {words.times}
              </th>
                  <th scope="col" class="figure">
                {words.compute}
              </th>
                  <td />
                </tr>
              </thead>
              <tbody>
                {batches.map(({ batch_size, compute_infer: { count, ns } }) => (
                  <tr key={batch_size}>
                    <th scope="row">{formatNumber(batch_size)}</th>
                    <td class="figure">{formatNumber(count)}</td>
                    <td class="figure">{count ? duration(ns / count / 1000) : "–"}</td>
                    <td class="bar-cell">
                      <Bar part={count / most} />
                    </td>
                  </tr>
                ))}
              </tbody>
            </table>
          </Scrolls>
        </details>
      )}
    </Section>
  );
}

export function CostsSection({ model, version, load }: VersionProps) {
  const words = text.value.models.costs;
  const costs = useAsked(
    `cost/${model}/${version}`,
    (signal) => modelResource<CostTable>(model, "cost", version, { signal }),
    { everyMs: COSTS_MS, again: load },
  );
  const buckets = costs.value?.buckets ?? [];
  const most = Math.max(...buckets.map(({ rows, p50_us }) => p50_us / rows));
  const objective = costs.value?.objective_ms;
  return (
    <Section id="costs" title={words.title} hint={words.hint} asked={costs}>
      {objective && <p>{words.objective(duration(objective * 1000))}</p>}
      {buckets.length === 0 ? (
        <p class="hint">{words.none}</p>
      ) : (
        <Scrolls label={words.title}>
          <table>
            <thead>
              <tr>
                <th scope="col">{words.rows}</th>
                <th scope="col" class="figure">
                {words.typical}
              </th>
                <th scope="col" class="figure">
                {words.worst}
              </th>
                <th scope="col" class="figure">
                {words.each}
              </th>
                <td />
                <th scope="col" class="figure">
                {words.runs}
              </th>
              </tr>
            </thead>
            <tbody>
              {buckets.map(({ rows, p50_us, p99_us, runs }) => (
                <tr key={rows}>
                  <th scope="row">{formatNumber(rows)}</th>
                  <td class="figure">{duration(p50_us)}</td>
                  <td class="figure">{duration(p99_us)}</td>
                  <td class="figure">{duration(p50_us / rows)}</td>
                  <td class="bar-cell">
                    <Bar part={p50_us / rows / most} />
                  </td>
                  <td class="figure">{formatNumber(runs)}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </Scrolls>
      )}
    </Section>
  );
}

function Figure({ term, value }: { readonly term: string; readonly value: string }) {
  return (
    <div>
      <dt>{term}</dt>
      <dd class="number">{value}</dd>
    </div>
  );
}

interface SectionProps {
  readonly id: string;
  readonly title: string;
  readonly hint?: string;
  readonly asked: Asked<unknown>;
  readonly children?: ComponentChildren;
}

/** A titled part, once its answer is there; why it is not, where it failed. */
export function Section({ id, title, hint, asked, children }: SectionProps) {
  return (
    <section class="card" aria-labelledby={`${id}-title`}>
      <h3 id={`${id}-title`}>{title}</h3>
      {asked.error !== undefined && <ErrorNotice error={asked.error} />}
      {asked.value !== undefined && (
        <>
          {hint && <p class="hint">{hint}</p>}
          {children}
        </>
      )}
    </section>
  );
}
