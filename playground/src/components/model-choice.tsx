/** The choice of the model that a view is about. */

import type { ComponentChildren } from "preact";

import { text } from "../i18n";
import { hashOf } from "../navigation";
import { ErrorNotice, Notice } from "./notice";

interface ModelSelectProps {
  readonly id: string;
  readonly label: string;
  readonly models: readonly string[];
  readonly chosen: string;
  readonly disabled?: boolean;
  readonly choose: (model: string) => void;
  /** The model that the address names, where it names one. */
  readonly wanted?: string | null;
  /** Options after those of the models. */
  readonly children?: ComponentChildren;
}

export function ModelSelect({ id, label, models, chosen, disabled, choose, wanted, children }: ModelSelectProps) {
  return (
    <div class="field">
      <label for={id}>{label}</label>
      <select id={id} value={chosen} disabled={disabled ?? false} onChange={(event) => choose(event.currentTarget.value)}>
        {models.map((model) => (
          <option key={model} value={model}>
            {model}
          </option>
        ))}
        {children}
      </select>
      {wanted && !models.includes(wanted) && (
        <p class="hint" role="status">
          {text.value.shell.notHere(wanted)}
        </p>
      )}
    </div>
  );
}

interface ModelChoiceProps extends Omit<ModelSelectProps, "label" | "models"> {
  /** `null` until the server has said which there are. */
  readonly models: readonly string[] | null;
  /** Why it could not say; `null` where it could. */
  readonly error: unknown;
  /** What to say where the view can do nothing with any model. */
  readonly none: { readonly title: string; readonly hint: string };
  readonly lookAgain: () => void;
}

/** The choice, or why there is none, with a way to look again. */
export function ModelChoice({ models, error, none, lookAgain, ...select }: ModelChoiceProps) {
  const words = text.value.shell;
  if (models?.length && error === null) return <ModelSelect label={words.model} models={models} {...select} />;
  if (models === null && error === null) return <p class="hint">{words.loading}</p>;
  return (
    <div class="retry">
      {error === null ? (
        <Notice title={none.title}>
          <p>
            {none.hint} <a href={hashOf("models")}>{words.views.models}</a>
          </p>
        </Notice>
      ) : (
        <ErrorNotice error={error} />
      )}
      <button type="button" onClick={lookAgain}>
        {words.lookAgain}
      </button>
    </div>
  );
}
