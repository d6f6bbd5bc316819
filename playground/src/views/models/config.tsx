/** A configuration as a tree that folds. */

import { useState } from "preact/hooks";

import { modelResource } from "../../api/models";
import { useAsked } from "../../components/asked";
import { text } from "../../i18n";
import type { VersionProps } from "./details";
import { Section } from "./figures";
import { isArray, isPlain, withoutDefaults, type Json } from "./json";

export function ConfigSection({ model, version, load }: VersionProps) {
  const words = text.value.models.config;
  const [whole, setWhole] = useState(false);
  const config = useAsked(
    `config/${model}/${version}`,
    (signal) => modelResource<Json>(model, "config", version, { signal }),
    { again: load },
  );
  const value = config.value ?? null;
  return (
    <Section id="config" title={words.title} hint={words.hint} asked={config}>
      <label class="field">
        <input type="checkbox" checked={whole} onChange={(event) => setWhole(event.currentTarget.checked)} />
        {words.whole}
      </label>
      <Entries value={whole ? value : withoutDefaults(value)} />
    </Section>
  );
}

/** The fields of an object, or the elements of an array. */
function Entries({ value }: { readonly value: Json }) {
  if (value === null || typeof value !== "object") return <code>{JSON.stringify(value)}</code>;
  return (
    <ul class="json">
      {Object.entries(value).map(([key, each]) => (
        <li key={key}>
          <Entry name={key} value={each} />
        </li>
      ))}
    </ul>
  );
}

function Entry({ name, value }: { readonly name: string; readonly value: Json }) {
  const words = text.value.models.config;
  if (value === null || typeof value !== "object" || isPlain(value)) {
    return (
      <>
        <span class="json-key">{name}:</span> <code>{JSON.stringify(value)}</code>
      </>
    );
  }
  const count = Object.keys(value).length;
  return (
    <details open>
      <summary>
        <span class="json-key">{name}</span>{" "}
        <span class="hint">{isArray(value) ? words.items(count) : words.fields(count)}</span>
      </summary>
      <Entries value={value} />
    </details>
  );
}
