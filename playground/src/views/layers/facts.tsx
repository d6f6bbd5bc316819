import { text } from "../../i18n";
import { pairText, shapeText } from "./format";
import type { Layer } from "./table";

/** What a layer is: shapes, window, the lecture's formula with its numbers, parameters. */
export function Facts({ layer }: { readonly layer: Layer }) {
  const words = text.value.layers.facts;
  const { inputShape, outputShape, kernel, stride, padding, formulas, parameters, parametersFormula, connections } =
    layer;
  const [height = "", width = height] = formulas;
  const shapes = inputShape.length ? `${shapeText(inputShape)} → ${shapeText(outputShape)}` : shapeText(outputShape);
  const rows: readonly (readonly [string, string])[] = [
    [words.shape, shapes],
    ...(kernel.length
      ? [[words.window, words.windowText(kernel.join("×"), pairText(stride), pairText(padding))] as const]
      : []),
    ...(height && height === width ? [[words.size, height] as const] : []),
    ...(height !== width ? [[words.height, height] as const, [words.width, width] as const] : []),
    ...(parameters ? [[words.parameters, parametersFormula || String(parameters)] as const] : []),
    ...(connections
      ? [[words.connections, words.connectionsText(connections[0] ?? 0, connections[1] ?? 0)] as const]
      : []),
    ...(layer.kind === "arithmetic" ? [[words.operators, layer.operators.join(", ")] as const] : []),
  ];
  return (
    <dl class="layer-list">
      {rows.map(([name, value]) => (
        <div key={name}>
          <dt>{name}</dt>
          <dd class="number">{value}</dd>
        </div>
      ))}
    </dl>
  );
}
