/** Watch requests become batches, and what each policy does when more comes than the model can do. */

import { useEffect } from "preact/hooks";

import { token } from "../../api/token";
import { ErrorNotice } from "../../components/notice";
import { ViewHead } from "../../components/view-head";
import { formatNumber, text } from "../../i18n";
import { place } from "../../navigation";
import { Charts } from "./charts";
import { LoadControls, PolicyControls, WatchedChoice } from "./controls";
import "./convoy.css";
import { Figures, Tables } from "./figures";
import { readingOf } from "./reading";
import { Road } from "./road";
import { chosen, findModels, leave, lookError, models, now, objectiveMs, oneIn, watch } from "./state";

export function ConvoyView() {
  const words = text.value.convoy;
  const wanted = place.value.parameters.get("model") ?? "";

  // Anew for each token.
  const shown = token.value;
  useEffect(() => {
    const ending = new AbortController();
    void findModels(wanted);
    void watch(ending.signal);
    addEventListener("pagehide", leave);
    return () => {
      ending.abort();
      removeEventListener("pagehide", leave);
      leave();
    };
  }, [shown, wanted]);

  return (
    <>
      <ViewHead title={words.title} lead={words.lead} />
      <div class="convoy">
        {models.value?.length !== 0 && <RoadCard />}
        <div class="card convoy-controls">
          <WatchedChoice wanted={wanted} />
          {chosen.value && (
            <>
              <PolicyControls />
              <LoadControls />
            </>
          )}
        </div>
        {chosen.value && (
          <div class="convoy-figures">
            <Figures />
            <Charts />
            <Tables />
          </div>
        )}
      </div>
    </>
  );
}

function RoadCard() {
  const words = text.value.convoy;
  const live = now.value;
  const reading = live && lookError.value === null && readingOf(live, objectiveMs.value);
  return (
    <section class="card convoy-road" aria-label={words.title}>
      {lookError.value !== null && <ErrorNotice error={lookError.value} />}
      <div class="road-head">
        <ul class="legend">
          <li>
            <span class="swatch request" aria-hidden="true" />
            {words.road.legend.request}
          </li>
          <li>
            <span class="swatch engine" aria-hidden="true" />
            {words.road.legend.engine}
          </li>
          <li>
            <span class="swatch refused" aria-hidden="true" />
            {words.road.legend.refused}
          </li>
        </ul>
        {live && (
          <span class="badge" data-policy={live.policy}>
            {words.road.policy(words.policies[live.policy])}
          </span>
        )}
      </div>
      <Road />
      {oneIn.value > 1 && <p class="hint">{words.road.oneIn(formatNumber(oneIn.value))}</p>}
      <p class="reading" role="status" data-reading={reading || ""}>
        {reading && words.readings[reading]}
      </p>
      <p class="hint">{words.load.honest}</p>
    </section>
  );
}
