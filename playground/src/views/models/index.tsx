/** The view of the models: the repository beside one model of it. */

import { ApiError } from "../../api/errors";
import { serverMetadata, LOADS_ON_REQUEST } from "../../api/figures";
import { useAsked } from "../../components/asked";
import { ErrorNotice, Notice } from "../../components/notice";
import { ViewHead } from "../../components/view-head";
import { text } from "../../i18n";
import { hashOf, place } from "../../navigation";
import { index, look, orders } from "./control";
import { ModelDetails } from "./details";
import { countsOf, firstToShow, modelsOf, type Model } from "./repository";
import { StateBadge } from "./state";
import "./models.css";

const POLL_MS = 3000;
const POLL_WHILE_ORDERED_MS = 1000;

export function ModelsView() {
  const words = text.value.models;
  const ordered = [...orders.value.values()].some(({ state }) => state === "pending");
  const { error } = useAsked("index", look, { everyMs: ordered ? POLL_WHILE_ORDERED_MS : POLL_MS });
  const server = useAsked("server", (signal) => serverMetadata({ signal }));

  // Whoever may not see the repository sees nothing of it, not even as it was.
  const refused = error instanceof ApiError && error.kind === "unauthenticated";
  const models = modelsOf(refused ? [] : (index.value ?? []));
  const wanted = place.value.parameters.get("model");
  const chosen = wanted === null ? firstToShow(models) : models.find(({ name }) => name === wanted);
  return (
    <div class="models">
      <ViewHead title={words.title} lead={words.intro}>
        {server.value && <p class="hint number">{words.server(server.value.name, server.value.version)}</p>}
      </ViewHead>
      {error !== undefined && <ErrorNotice error={error} />}
      {index.value === undefined && error === undefined && <p role="status">{text.value.shell.loading}</p>}
      {index.value?.length === 0 && !refused && <Notice title={words.none} />}
      {models.length > 0 && (
        <div class="models-columns">
          <ModelList models={models} chosen={chosen?.name} />
          {chosen === undefined ? (
            <Notice kind="warning" title={words.unknown(wanted ?? "")}>
              <p>{words.choose}</p>
            </Notice>
          ) : (
            <ModelDetails
              key={chosen.name}
              model={chosen}
              onRequest={server.value === undefined || server.value.extensions.includes(LOADS_ON_REQUEST)}
            />
          )}
        </div>
      )}
    </div>
  );
}

interface ModelListProps {
  readonly models: readonly Model[];
  readonly chosen: string | undefined;
}

function ModelList({ models, chosen }: ModelListProps) {
  const words = text.value.models;
  return (
    <nav class="model-list card" aria-label={words.list}>
      <ul>
        {models.map(({ name, state }) => (
          <li key={name}>
            <a href={hashOf("models", { model: name })} aria-current={name === chosen ? "true" : undefined}>
              <span class="model-name">{name}</span>
              <StateBadge state={state} />
            </a>
          </li>
        ))}
      </ul>
      <p class="hint">
        {[...countsOf(models)].map(([state, count]) => words.count(count, words.states[state])).join(" · ")}
      </p>
    </nav>
  );
}
