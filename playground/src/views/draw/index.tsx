/** Draw, and see what a classifier makes of it. */

import { useEffect } from "preact/hooks";

import { token } from "../../api/token";
import { ModelChoice } from "../../components/model-choice";
import { ViewHead } from "../../components/view-head";
import { text } from "../../i18n";
import { place } from "../../navigation";
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
      <ViewHead title={words.title} lead={words.lead} />
      <div class="draw">
        <Paper />
        <div class="card draw-side">
          <ClassifierChoice wanted={wanted} />
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

function ClassifierChoice({ wanted }: { readonly wanted: string }) {
  const words = text.value.draw.model;
  return (
    <ModelChoice
      id="draw-model"
      models={classifiers.value?.map(({ model }) => model) ?? null}
      chosen={chosenName.value}
      choose={choose}
      wanted={wanted}
      error={listError.value}
      none={{ title: words.none, hint: words.noneHint }}
      lookAgain={() => void findClassifiers()}
    >
      {sleeping.value.map(({ name, state }) => (
        <option key={name} value={name} disabled>
          {words.sleeping(name, state)}
        </option>
      ))}
    </ModelChoice>
  );
}
