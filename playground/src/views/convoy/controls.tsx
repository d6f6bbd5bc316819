/** What a person decides: the model, the policy, and how much is asked. */

import { ModelChoice } from "../../components/model-choice";
import { ErrorNotice } from "../../components/notice";
import { formatNumber, text } from "../../i18n";
import { rounded } from "./charts";
import { BATCH_REQUESTS } from "./reading";
import * as state from "./state";

const MOST_FACTOR = 3;
const LEAST_OBJECTIVE_MS = 5;
const MOST_OBJECTIVE_MS = 2000;

export function WatchedChoice({ wanted }: { readonly wanted: string }) {
  const words = text.value.convoy.model;
  return (
    <ModelChoice
      id="convoy-model"
      models={state.models.value}
      chosen={state.chosen.value}
      disabled={state.busy.value}
      choose={(model) => void state.choose(model)}
      wanted={wanted}
      error={state.listError.value}
      none={{ title: words.none, hint: words.noneHint }}
      lookAgain={() => void state.findModels("")}
    />
  );
}

export function LoadControls() {
  const words = text.value.convoy.load;
  const able = state.capacity.value;
  const running = state.load.value?.running === true && state.load.value.model === state.chosen.value;
  const skipped = state.load.value?.skipped ?? 0;
  const shownFactor = formatNumber(state.factor.value, { minimumFractionDigits: 1 });
  const value = words.value(shownFactor, rounded(state.offeredRate.value));
  return (
    <section class="controls" aria-labelledby="load-title">
      <h2 id="load-title">{words.title}</h2>
      <label for="convoy-factor">{words.factor}</label>
      <input
        id="convoy-factor"
        type="range"
        min="0.1"
        max={MOST_FACTOR}
        step="0.1"
        value={state.factor.value}
        aria-valuetext={value}
        onInput={(event) => state.changeFactor(event.currentTarget.valueAsNumber)}
      />
      <output class="number" for="convoy-factor">
        {value}
      </output>
      <div class="buttons">
        {running ? (
          <button type="button" onClick={() => void state.stop()}>
            {words.stop}
          </button>
        ) : (
          <button
            type="button"
            class="primary"
            disabled={state.busy.value || !able || able.requestsPerSecond === 0}
            onClick={() => void state.start()}
          >
            {words.start}
          </button>
        )}
      </div>
      {state.loadError.value !== null && <ErrorNotice error={state.loadError.value} />}
      {able && (
        <p class="hint">
          {able.requestsPerSecond > 0
            ? words.capacity(rounded(able.requestsPerSecond), formatNumber(able.rows))
            : words.unmeasured}
        </p>
      )}
      {running && skipped > 0 && <p class="hint">{words.skipped(formatNumber(skipped))}</p>}
    </section>
  );
}

export function PolicyControls() {
  const words = text.value.convoy.policy;
  const rows = BATCH_REQUESTS * (state.capacity.value?.rows ?? 1);
  const radio = (policy: state.WantedPolicy, label: string, hint: string) => (
    <label class="choice">
      <input
        type="radio"
        name="convoy-policy"
        value={policy}
        checked={state.wantedPolicy.value === policy}
        disabled={state.busy.value || !state.canConfigure.value}
        onChange={() => void state.changePolicy(policy)}
      />
      <span>
        {label}
        <span class="hint">{hint}</span>
      </span>
    </label>
  );
  return (
    <section class="controls" aria-labelledby="policy-title">
      <fieldset>
        <legend>
          <h2 id="policy-title">{words.title}</h2>
        </legend>
        {radio("window", words.window, words.windowHint)}
        {radio("slo", words.slo, words.sloHint)}
      </fieldset>
      <div class="field">
        <label for="convoy-objective">{words.objective}</label>
        <input
          id="convoy-objective"
          type="number"
          min={LEAST_OBJECTIVE_MS}
          max={MOST_OBJECTIVE_MS}
          value={state.objectiveMs.value}
          disabled={state.busy.value}
          onChange={(event) => {
            const wanted = event.currentTarget.valueAsNumber || state.objectiveMs.value;
            const milliseconds = Math.min(MOST_OBJECTIVE_MS, Math.max(LEAST_OBJECTIVE_MS, wanted));
            event.currentTarget.value = String(milliseconds);
            void state.changeObjective(milliseconds);
          }}
        />
      </div>
      <p class="hint" role="status">
        {state.busy.value ? words.busy : ""}
      </p>
      {!state.canConfigure.value && <p>{words.fixed}</p>}
      {state.policyError.value !== null && (
        <>
          <p>{words.failed}:</p>
          <ErrorNotice error={state.policyError.value} />
        </>
      )}
      {state.isChanged.value && !state.busy.value && (
        <>
          <p class="hint">{words.changed(formatNumber(rows))}</p>
          <button type="button" onClick={() => void state.restore()}>
            {words.restore}
          </button>
        </>
      )}
    </section>
  );
}
