import { useState } from "preact/hooks";

import { text } from "../../i18n";
import { decimalText } from "./format";
import { Grid } from "./grid";
import { filterPictures, filterPlanes, mostOf, rangeOf, type FeatureMap } from "./maps";

const DIGITS = 2;
const MOST_TABLES = 32;

interface FiltersProps {
  readonly values: Float32Array;
  readonly shape: readonly number[];
  /** What the channels are that they read: of a picture in colour, or of anything else. */
  readonly reads: "RGB" | "BGR" | null;
}

/** The filters of the first convolution, as pictures and as numbers. */
export function FilterPictures({ values, shape, reads }: FiltersProps) {
  const words = text.value.layers.filters;
  const [numbers, setNumbers] = useState(false);
  const [byChannel, setByChannel] = useState(reads === null);
  const [filters = 0, channels = 0] = shape;
  const planes = filterPlanes(values, shape);
  const filterName = (index: number): string => words.filter(index + 1, filters);
  const planeName = (index: number): string => {
    if (channels === 1) return filterName(index);
    const channel = index % channels;
    const name = reads ? words.colours[reads === "BGR" ? 2 - channel : channel] : words.channel(channel + 1);
    return words.plane(Math.floor(index / channels) + 1, name ?? "");
  };
  return (
    <section class="layer-filters">
      <h3>{words.title}</h3>
      <p class="hint">
        {words.hint} {!byChannel && words.colourHint}
      </p>
      {reads && (
        <label class="field layers-scale">
          <input type="checkbox" checked={byChannel} onChange={() => setByChannel(!byChannel)} />
          {words.byChannel}
        </label>
      )}
      <Grid
        key={byChannel}
        maps={byChannel ? planes : filterPictures(values, shape, reads === "BGR")}
        label={words.title}
        nameOf={byChannel ? planeName : filterName}
        most={mostOf(rangeOf(values))}
      />
      <button type="button" aria-expanded={numbers} onClick={() => setNumbers(!numbers)}>
        {numbers ? words.hideNumbers : words.showNumbers}
      </button>
      {numbers && (
        <div class="layer-filter-tables">
          {planes.slice(0, MOST_TABLES).map((plane, index) => (
            <Numbers key={index} plane={plane} label={planeName(index)} />
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
