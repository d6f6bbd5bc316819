/** The model card: how good the version is, where it errs, how long it takes, and how it was made. */

import type { ComponentChildren } from "preact";

import { ApiError } from "../../api/errors";
import type { ModelCard } from "../../api/figures";
import { modelResource } from "../../api/models";
import { useAsked } from "../../components/asked";
import { ErrorNotice } from "../../components/notice";
import { formatNumber, text } from "../../i18n";
import { hashOf } from "../../navigation";
import { Bar, Scrolls } from "./parts";
import { ConfusionMatrix } from "./confusion-table";
import { isSquare } from "./confusion";
import type { VersionProps } from "./details";
import { duration, percent, size, tiny } from "./format";

/** Keys of a card that say nothing of how good a version is. */
const NO_FACTS = ["model_name", "model_version", "layers"];

export function CardSection({ model, version, load }: VersionProps) {
  const words = text.value.models.card;
  const { value, error } = useAsked(
    `card/${model}/${version}`,
    (signal) => modelResource<ModelCard>(model, "card", version, { signal }),
    { again: load },
  );
  const missing = error instanceof ApiError && error.kind === "missing";
  const empty = value !== undefined && Object.keys(value).every((key) => NO_FACTS.includes(key));
  return (
    <section class="card" aria-labelledby="card-title">
      <h3 id="card-title">{words.title}</h3>
      {(missing || empty) && <p class="hint">{words.none}</p>}
      {missing && (
        <p class="hint" lang="en">
          {error.message}
        </p>
      )}
      {error !== undefined && !missing && <ErrorNotice error={error} />}
      {value !== undefined && error === undefined && !empty && <CardFacts card={value} />}
      {value?.layers !== undefined && (
        <p>
          <a href={hashOf("layers", { model })}>{words.layers}</a>
        </p>
      )}
    </section>
  );
}

function CardFacts({ card }: { readonly card: ModelCard }) {
  const words = text.value.models.card;
  const { confusion, labels } = card;
  return (
    <>
      {card.task && (
        <p lang="en" class="card-task">
          {card.task}
        </p>
      )}
      <div class="card-head">
        {card.accuracy && <Accuracy card={card} />}
        <Facts card={card} />
      </div>
      {confusion && labels && isSquare(confusion, labels.length) && (
        <ConfusionMatrix matrix={confusion} labels={labels} />
      )}
      {card.latency && <Latency latency={card.latency} />}
      {labels && labels.length > 0 && (
        <p>
          <a href={hashOf("draw", { model: card.model_name })}>{words.draw}</a>
        </p>
      )}
      <Sources card={card} />
    </>
  );
}

function Accuracy({ card }: { readonly card: ModelCard }) {
  const words = text.value.models.card;
  const { accuracy, float32_accuracy } = card;
  if (!accuracy) return null;
  return (
    <div class="accuracy">
      <span class="accuracy-label">{words.accuracy}</span>
      <strong>{percent(accuracy)}</strong>
      <span class="hint">{words.counts(formatNumber(accuracy.right), formatNumber(accuracy.of))}</span>
      {float32_accuracy && <span class="hint">{words.before(percent(float32_accuracy))}</span>}
    </div>
  );
}

function Facts({ card }: { readonly card: ModelCard }) {
  const words = text.value.models.card;
  const { network, parameters, training, weights, file, agreement, exported } = card;
  const worst = agreement?.at(-1);
  return (
    <dl class="facts">
      {network && (
        <Fact term={words.network}>
          <code>{network}</code>
          {parameters !== undefined && `, ${words.parameters(formatNumber(parameters))}`}
        </Fact>
      )}
      {training && (
        <Fact term={words.training}>
          {words.run(training.recipe, training.seed, training.epochs, training.device)}
          {training.pretraining && words.pretraining(training.pretraining)}
        </Fact>
      )}
      {weights && (
        <Fact term={words.weights}>
          <span lang="en">{weights}</span>
        </Fact>
      )}
      {file && <Fact term={words.file}>{words.fileText(size(file.bytes), file.precision, file.opset)}</Fact>}
      {worst && <Fact term={words.agreement}>{words.agreementText(tiny(worst.worst), tiny(worst.allowed))}</Fact>}
      {exported && <Fact term={words.exported}>{exported.date}</Fact>}
    </dl>
  );
}

function Fact({ term, children }: { readonly term: string; readonly children: ComponentChildren }) {
  return (
    <div>
      <dt>{term}</dt>
      <dd>{children}</dd>
    </div>
  );
}

function Latency({ latency }: { readonly latency: NonNullable<ModelCard["latency"]> }) {
  const words = text.value.models.latency;
  const precisions = Object.entries(latency.medians);
  const rows = precisions.flatMap(([precision, medians]) =>
    medians.map(({ batch, milliseconds }) => ({ precision, batch, whole: milliseconds * 1000 })),
  );
  const most = Math.max(...rows.map(({ whole, batch }) => whole / batch));
  return (
    <>
      <h4>{words.title}</h4>
      <p class="hint" id="latency-caption">
        {words.caption(latency.machine, latency.onnxruntime, latency.date)}
      </p>
      <Scrolls label={words.title}>
        <table aria-describedby="latency-caption">
          <thead>
            <tr>
              {precisions.length > 1 && <th scope="col">{words.precision}</th>}
              <th scope="col">{words.batch}</th>
              <th scope="col" class="figure">
                {words.whole}
              </th>
              <th scope="col" class="figure">
                {words.each}
              </th>
              <td />
            </tr>
          </thead>
          <tbody>
            {rows.map(({ precision, batch, whole }) => (
              <tr key={`${precision}/${batch}`}>
                {precisions.length > 1 && <td>{precision}</td>}
                <th scope="row">{formatNumber(batch)}</th>
                <td class="figure">{duration(whole)}</td>
                <td class="figure">{duration(whole / batch)}</td>
                <td class="bar-cell">
                  <Bar part={whole / batch / most} />
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      </Scrolls>
    </>
  );
}

/** What few will read each time. */
function Sources({ card }: { readonly card: ModelCard }) {
  const words = text.value.models.card;
  const { data, again, exported } = card;
  return (
    <div class="folds">
      {data && (
        <details>
          <summary>{words.data}</summary>
          <div lang="en">
            <p>{data.source}</p>
            <p>{data.licence}</p>
            <p>{data.split}</p>
          </div>
        </details>
      )}
      {again && again.length > 0 && (
        <details>
          <summary>{words.again}</summary>
          <pre tabIndex={0}>{again.join("\n")}</pre>
        </details>
      )}
      {exported && (
        <details>
          <summary>{words.libraries}</summary>
          <p class="number">
            {Object.entries(exported.libraries)
              .map(([name, version]) => `${name} ${version}`)
              .join(", ")}
          </p>
        </details>
      )}
    </div>
  );
}
