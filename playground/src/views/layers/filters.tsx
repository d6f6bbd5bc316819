import { useState } from "preact/hooks";

import { text } from "../../i18n";
import { decimalText } from "./format";
import { Grid } from "./grid";
import { filterPlanes, mostOf, rangeOf, type FeatureMap } from "./maps";

const DIGITS = 2;
const MOST_TABLES = 32;

interface FiltersProps {
  readonly values: Float32Array;
  readonly shape: readonly number[];
}

/** The filters of the first convolution, as pictures and as numbers. */
export function FilterPictures({ values, shape }: FiltersProps) {
  const words = text.value.layers.filters;
  const [numbers, setNumbers] = useState(false);
  const [filters = 0, channels = 0] = shape;
  const planes = filterPlanes(values, shape);
  const nameOf = (index: number): string =>
    channels === 1
      ? words.filter(index + 1, filters)
      : words.plane(Math.floor(index / channels) + 1, (index % channels) + 1);
  return (
    <section class="layer-filters">
      <h3>{words.title}</h3>
      <p class="hint">{words.hint}</p>
      <Grid maps={planes} label={words.title} nameOf={nameOf} most={mostOf(rangeOf(values))} />
      <button type="button" aria-expanded={numbers} onClick={() => setNumbers(!numbers)}>
        {numbers ? words.hideNumbers : words.showNumbers}
      </button>
      {numbers && (
        <div class="layer-filter-tables">
          {planes.slice(0, MOST_TABLES).map((plane, index) => (
            <Numbers key={index} plane={plane} label={nameOf(index)} />
          ))}
          {planes.length > MOST_TABLES && <p class="hint">{words.tooMany(MOST_TABLES, planes.length)}</p>}
        </div>
      )}
    </section>
  );
}

function Numbers({ plane, label }: { readonly plane: FeatureMap; readonly label: string }) {
  const rows = Array.from({ length: plane.height }, (_, y) => [
    ...plane.values.subarray(y * plane.width, (y + 1) * plane.width),
  ]);
  return (
    <div class="scrolls" tabIndex={0} role="group" aria-label={label}>
      <table>
        <caption>{label}</caption>
        <tbody>
          {rows.map((row, y) => (
            <tr key={y}>
              {row.map((value, x) => (
                <td key={x} class="number">
                  {decimalText(value, DIGITS)}
                </td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}
