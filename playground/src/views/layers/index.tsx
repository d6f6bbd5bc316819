/** Look inside of a network: every layer's size by the lecture's formula, and its values for a picture. */

import { useMemo, useRef, useState } from "preact/hooks";

import { useAsked } from "../../components/asked";
import { ModelSelect } from "../../components/model-choice";
import { ErrorNotice, Notice } from "../../components/notice";
import { ViewHead } from "../../components/view-head";
import { text } from "../../i18n";
import { hashOf, place } from "../../navigation";
import { pictureOf, type Drawing } from "../draw/pictures";
import { centre, chosenName } from "../draw/state";
import { shapeText } from "./format";
import { LayerCard } from "./layer";
import "./layers.css";
import { chosenDrawing, PictureChoice } from "./picture";
import { askValues, companionOf, findCompanions, firstLayers, lookInto, type Inside, type Values } from "./state";

const POLL_MS = 5000;
/** Looked into where nothing else is wanted: the network of the paper. */
const FAVOURITE = "lenet5";

export function LayersView() {
  const words = text.value.layers;
  const companions = useAsked("layers", findCompanions, { everyMs: POLL_MS });
  const known = companions.value ?? [];
  const wanted = place.value.parameters.get("model");
  const companion = companionOf([wanted, chosenName.value, FAVOURITE], known);
  const model = companion?.name;
  const inside = useAsked(model ?? null, (signal) => lookInto(model ?? "", signal));
  return (
    <div class="layers">
      <ViewHead title={words.title} lead={words.lead} />
      {companions.error !== undefined && <ErrorNotice error={companions.error} />}
      {inside.error !== undefined && <ErrorNotice error={inside.error} />}
      {companions.value?.length === 0 && companions.error === undefined && (
        <Notice title={words.none}>
          <p>
            {words.noneHint} <code>python -m training layers lenet5</code>
          </p>
          <p>
            <a href={hashOf("models")}>{text.value.shell.views.models}</a>
          </p>
        </Notice>
      )}
      {model && (
        <ModelSelect
          id="layers-model"
          label={words.model}
          models={known.map(({ name }) => name)}
          chosen={model}
          wanted={companion.of === wanted ? model : wanted}
          choose={(name) => (location.hash = hashOf("layers", { model: name }))}
        />
      )}
      {model && inside.value === null && <Notice kind="warning" title={words.noTable(model)} />}
      {inside.value && <Network key={inside.value.classifier.model} inside={inside.value} />}
      {model && inside.value === undefined && inside.error === undefined && (
        <p role="status">{text.value.shell.loading}</p>
      )}
    </div>
  );
}

function Network({ inside }: { readonly inside: Inside }) {
  const words = text.value.layers;
  const { table, classifier } = inside;
  const [eachByItself, setEachByItself] = useState(false);
  const [wanted, setWanted] = useState(() => firstLayers(table));
  const [key, drawing] = chosenDrawing(classifier);
  const picture = useMemo(() => pictureOf(drawing, classifier, centre.value), [drawing, classifier, centre.value]);
  const { values, error } = useValues(inside, picture, wanted, drawing);
  return (
    <>
      <PictureChoice chosen={key} picture={picture} classifier={classifier} />
      {error !== undefined && <ErrorNotice error={error} />}
      <nav class="layers-path" aria-label={words.path}>
        <ol>
          {table.layers.map(({ output, kind, label, outputShape }, index) => (
            <li key={output}>
              <button type="button" onClick={() => show(index)}>
                <span>{label || words.kinds[kind]}</span>
                <span class="number">{shapeText(outputShape)}</span>
              </button>
            </li>
          ))}
        </ol>
      </nav>
      <label class="field layers-scale">
        <input type="checkbox" checked={eachByItself} onChange={() => setEachByItself(!eachByItself)} />
        {words.eachByItself}
      </label>
      {table.layers.map((layer, index) => (
        <LayerCard
          key={layer.output}
          layer={layer}
          index={index}
          inside={inside}
          values={values}
          eachByItself={eachByItself}
          waits={!wanted.has(layer.output) && layer.output !== classifier.output}
          ask={() => setWanted(new Set([...wanted, layer.output]))}
        />
      ))}
    </>
  );
}

/** The values for the picture; those of the one before stay until they are there. */
function useValues(
  inside: Inside,
  picture: Parameters<typeof askValues>[1],
  wanted: ReadonlySet<string>,
  drawing: Drawing,
) {
  const question = `${numberOf(drawing)} ${centre.value} ${wanted.size}`;
  const asked = useAsked(question, (signal) => askValues(inside, picture, wanted, signal));
  const latest = useRef<Values | undefined>(undefined);
  if (asked.value) latest.current = asked.value;
  return { values: latest.current, error: asked.error };
}

const numbers = new WeakMap<Drawing, number>();
let counted = 0;

/** Another number for another drawing. */
function numberOf(drawing: Drawing): number {
  const known = numbers.get(drawing) ?? ++counted;
  numbers.set(drawing, known);
  return known;
}

function show(index: number): void {
  const heading = document.getElementById(`layer-${index}`);
  heading?.scrollIntoView({ block: "start" });
  heading?.focus({ preventScroll: true });
}
