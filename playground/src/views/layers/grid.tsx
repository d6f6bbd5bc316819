/** Many maps beside each other; the chosen one is shown large beside them. */

import { useId, useRef, useState } from "preact/hooks";

import { text } from "../../i18n";
import { MapCanvas } from "./canvas";
import { valueText } from "./format";
import { Lens } from "./lens";
import { mostOf, rangeOf, type FeatureMap } from "./maps";

const FIRST_SHOWN = 24;
const MORE_SHOWN = 72;
/** So many are shown larger. */
const FEW = 8;

interface GridProps {
  readonly maps: readonly FeatureMap[];
  readonly label: string;
  readonly nameOf: (index: number) => string;
  /** The magnitude of the deepest colour of all maps; without it, each has its own. */
  readonly most?: number;
}

export function Grid({ maps, label, nameOf, most }: GridProps) {
  const words = text.value.layers;
  const id = useId();
  const list = useRef<HTMLUListElement>(null);
  const [chosen, setChosen] = useState(0);
  const [shown, setShown] = useState(FIRST_SHOWN);
  const at = Math.min(chosen, maps.length - 1);
  const map = maps[at];

  const onKey = (event: KeyboardEvent): void => {
    const columns = columnsOf(list.current);
    const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns }[event.key];
    if (step === undefined) return;
    event.preventDefault();
    setChosen((before) => {
      const to = Math.min(before, maps.length - 1) + step;
      return to < 0 || to >= Math.min(shown, maps.length) ? before : to;
    });
    requestAnimationFrame(() => {
      list.current?.querySelector("[aria-selected=true]")?.scrollIntoView({ block: "nearest" });
    });
  };
  return (
    <div class="map-grid-and-lens">
      <div class="map-grid">
        <ul
          ref={list}
          class={maps.length <= FEW ? "few" : ""}
          role="listbox"
          tabIndex={0}
          aria-label={`${label}. ${words.gridKeys}`}
          aria-activedescendant={`${id}-${at}`}
          onKeyDown={onKey}
        >
          {maps.slice(0, shown).map((each, index) => (
            <li
              key={index}
              id={`${id}-${index}`}
              role="option"
              aria-selected={index === at}
              aria-label={`${nameOf(index)}: ${rangeText(each)}`}
              onPointerEnter={() => setChosen(index)}
              onClick={() => setChosen(index)}
            >
              <MapCanvas map={each} most={most ?? mostOf(rangeOf(each.values))} />
            </li>
          ))}
        </ul>
        {shown < maps.length && (
          <button type="button" onClick={() => setShown(shown + MORE_SHOWN)}>
            {words.more(Math.min(MORE_SHOWN, maps.length - shown), maps.length - shown)}
          </button>
        )}
      </div>
      {map && <Lens map={map} most={most ?? mostOf(rangeOf(map.values))} title={`${nameOf(at)}: ${rangeText(map)}`} />}
    </div>
  );
}

function rangeText(map: FeatureMap): string {
  const { least, greatest } = rangeOf(map.values);
  return text.value.layers.range(valueText(least), valueText(greatest));
}

/** How many are beside each other, as the style sheet has it. */
function columnsOf(list: HTMLElement | null): number {
  if (!list) return 1;
  const tops = [...list.children].map((child) => (child as HTMLElement).offsetTop);
  const next = tops.findIndex((top) => top !== tops[0]);
  return next < 0 ? tops.length : next;
}
