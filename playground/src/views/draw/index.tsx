/** Draw, and see what a classifier makes of it. */

import type { ComponentChildren } from "preact";
import { useEffect } from "preact/hooks";

import { token } from "../../api/token";
import { ErrorNotice, Notice } from "../../components/notice";
import { text } from "../../i18n";
import { hashOf, place } from "../../navigation";
import { Answers, Seen } from "./answers";
import "./draw.css";
import { Paper, Samples } from "./paper";
import { choose, chosen, chosenName, classifiers, findClassifiers, listError, sleeping } from "./state";

export function DrawView() {
  const words = text.value.draw;
  const wanted = place.value.parameters.get("model") ?? "";

  // Anew for each token, and when a person comes back: models may have come and gone.
  const shown = token.value;
  useEffect(() => {
    if (wanted) chosenName.value = wanted;
    const look = (): void => {
      if (document.visibilityState === "visible") void findClassifiers();
    };
    look();
    document.addEventListener("visibilitychange", look);
    return () => document.removeEventListener("visibilitychange", look);
  }, [shown, wanted]);

  return (
    <>
      <div class="view-head">
        <h1>{words.title}</h1>
        <p>{words.lead}</p>
      </div>
      <div class="draw">
        <Paper />
        <div class="card draw-side">
          <ModelChoice />
          {chosen.value && (
            <>
              <Answers />
              <Seen />
            </>
          )}
        </div>
        <Samples />
      </div>
    </>
  );
}

function ModelChoice() {
  const words = text.value.draw.model;
  const known = classifiers.value;
  if (listError.value !== null) return <Retry children={<ErrorNotice error={listError.value} />} />;
  if (known === null) return <p class="hint">{text.value.shell.loading}</p>;
  if (known.length === 0) {
    return (
      <Retry>
        <Notice title={words.none}>
          <p>
            {words.noneHint} <a href={hashOf("models")}>{text.value.shell.views.models}</a>
          </p>
        </Notice>
      </Retry>
    );
  }
  return (
    <div class="field">
      <label for="draw-model">{words.label}</label>
      <select id="draw-model" value={chosenName.value} onChange={(event) => choose(event.currentTarget.value)}>
        {known.map(({ model }) => (
          <option key={model} value={model}>
            {model}
          </option>
        ))}
        {sleeping.value.map(({ name, state }) => (
          <option key={name} value={name} disabled>
            {words.sleeping(name, state)}
          </option>
        ))}
      </select>
    </div>
  );
}

function Retry({ children }: { readonly children: ComponentChildren }) {
  return (
    <div class="retry">
      {children}
      <button type="button" onClick={() => void findClassifiers()}>
        {text.value.draw.model.refresh}
      </button>
    </div>
  );
}
