/** One model: its versions and how they are, then what the chosen version is, has done and costs. */

import { useState } from "preact/hooks";

import { Notice } from "../../components/notice";
import { text } from "../../i18n";
import { CardSection } from "./card";
import { ConfigSection } from "./config";
import { isPending, loads } from "./control";
import { Controls } from "./controls";
import { CostsSection, StatisticsSection, TensorsSection } from "./figures";
import { readyVersions, type Model } from "./repository";
import { StateBadge } from "./state";

interface ModelDetailsProps {
  readonly model: Model;
  readonly onRequest: boolean;
}

/** What a section is about. */
export interface VersionProps {
  readonly model: string;
  readonly version: string;
  /** Another number where the version may have been loaded anew. */
  readonly load: number;
}

export function ModelDetails({ model, onRequest }: ModelDetailsProps) {
  const words = text.value.models;
  const ready = readyVersions(model);
  const [wanted, setWanted] = useState("");
  // A version that is about to go is not asked any more.
  const version = isPending(model.name, "unload") ? undefined : ready.includes(wanted) ? wanted : ready[0];
  const only = model.versions.length === 1 ? model.versions[0]?.version : undefined;
  return (
    <article class="model-details" aria-labelledby="model-name">
      <section class="card">
        <header class="model-head">
          <h2 id="model-name">{model.name}</h2>
          <StateBadge state={model.state} />
          {only !== undefined && model.state !== "ABSENT" && <span class="hint">{words.oneVersion(only)}</span>}
        </header>
        <Reasons model={model} />
        <Controls model={model} onRequest={onRequest} />
        {model.versions.length > 1 && model.state !== "ABSENT" && <VersionTable model={model} />}
        {ready.length > 1 && (
          <label class="field">
            {words.shownVersion}
            <select value={version} onChange={(event) => setWanted(event.currentTarget.value)}>
              {ready.map((each) => (
                <option key={each}>{each}</option>
              ))}
            </select>
          </label>
        )}
      </section>
      {version !== undefined && <VersionSections model={model.name} version={version} load={loads.value} />}
    </article>
  );
}

function VersionSections(props: VersionProps) {
  return (
    <>
      <CardSection {...props} />
      <TensorsSection {...props} />
      <StatisticsSection {...props} />
      <CostsSection {...props} />
      <ConfigSection {...props} />
    </>
  );
}

/** Why the model, or a version of it, does not serve: in the server's words. */
function Reasons({ model }: { readonly model: Model }) {
  const words = text.value.models;
  if (model.state === "ABSENT") return <p class="hint">{words.absentHint}</p>;
  const failed = model.versions.filter(({ reason }) => reason);
  if (!model.reason && failed.length === 0) return null;
  const serves = readyVersions(model).length > 0;
  return (
    <Notice kind={serves ? "warning" : "error"} title={serves ? words.problem : words.whyNot}>
      {model.reason && <p lang="en">{model.reason}</p>}
      {failed.map(({ version, reason }) => (
        <p key={version} lang="en">
          {model.versions.length > 1 && `${words.version} ${version}: `}
          {reason}
        </p>
      ))}
    </Notice>
  );
}

function VersionTable({ model }: { readonly model: Model }) {
  const words = text.value.models;
  return (
    <table class="model-versions">
      <caption class="unseen">{words.versions}</caption>
      <thead>
        <tr>
          <th scope="col">{words.version}</th>
          <th scope="col">{words.state}</th>
        </tr>
      </thead>
      <tbody>
        {model.versions.map(({ version, state }) => (
          <tr key={version}>
            <th scope="row" class="number">
              {version}
            </th>
            <td>
              <StateBadge state={state} />
            </td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}
