import { Bars } from "../../components/bars";
import { text } from "../../i18n";
import { Legend } from "./canvas";
import type { Classifier } from "../draw/classifiers";
import { Facts } from "./facts";
import { FilterPictures } from "./filters";
import { valueText } from "./format";
import { Grid } from "./grid";
import { Lens } from "./lens";
import { mapsOf, mostOf, rangeOf } from "./maps";
import { isAnswer, type Inside, type Values } from "./state";
import type { Layer } from "./table";

const SHOWN_CLASSES = 5;

interface LayerCardProps {
  readonly layer: Layer;
  readonly index: number;
  readonly inside: Inside;
  /** `undefined` until there are some. */
  readonly values: Values | undefined;
  readonly eachByItself: boolean;
  /** Its values are not asked for yet. */
  readonly waits: boolean;
  readonly ask: () => void;
}

export function LayerCard({ layer, index, inside, values, eachByItself, waits, ask }: LayerCardProps) {
  const words = text.value.layers;
  const title = `layer-${index}`;
  const tensor = values?.tensors.get(layer.output);
  const filters = inside.table.filters;
  const weights = filters?.layer === layer.output ? values?.tensors.get(filters.output) : undefined;
  return (
    <section class="card layer" aria-labelledby={title} data-layer={layer.output}>
      <div class="layer-facts">
        <h2 id={title} tabIndex={-1}>
          {index + 1}. {words.kinds[layer.kind]} {layer.label && <code>{layer.label}</code>}
        </h2>
        <Facts layer={layer} />
      </div>
      <div class="layer-values">
        {isAnswer(layer, inside) && values && <Bars bars={values.scores.slice(0, SHOWN_CLASSES)} />}
        {tensor && <Maps layer={layer} tensor={tensor} eachByItself={eachByItself} />}
        {waits && (
          <button type="button" onClick={ask}>
            {words.ask}
          </button>
        )}
        {filters && weights && (
          <FilterPictures
            values={weights}
            shape={filters.shape}
            reads={coloursOf(inside.classifier, filters.shape)}
          />
        )}
      </div>
    </section>
  );
}

/** What the first filters read: the colours of the picture, unless they come after something else. */
function coloursOf({ channels, blueFirst }: Classifier, [, read]: readonly number[]) {
  if (channels !== 3 || read !== 3) return null;
  return blueFirst ? "BGR" : "RGB";
}

interface MapsProps {
  readonly layer: Layer;
  readonly tensor: Float32Array;
  readonly eachByItself: boolean;
}

function Maps({ layer, tensor, eachByItself }: MapsProps) {
  const words = text.value.layers;
  const maps = mapsOf(tensor, layer.outputShape);
  const range = rangeOf(tensor);
  const most = mostOf(range);
  const [only] = maps;
  const shown = words.range(valueText(range.least), valueText(range.greatest));
  return (
    <>
      <p class="hint layer-range">
        <span>{only?.isVector ? words.units(tensor.length, shown) : words.maps(maps.length, shown)}</span>
        {!(eachByItself && maps.length > 1) && <Legend most={most} shown={valueText} />}
      </p>
      {maps.length === 1 && only ? (
        <Lens map={only} most={most} title={words.units(tensor.length, shown)} />
      ) : (
        <Grid
          maps={maps}
          label={words.maps(maps.length, shown)}
          nameOf={(index) => words.map(index + 1, maps.length)}
          {...(eachByItself ? {} : { most })}
        />
      )}
    </>
  );
}
