/** The table of a network's layers: `layers` of a card, as `python -m training layers` writes it. Pure. */

export const KINDS = [
  "convolution",
  "pooling",
  "dense",
  "activation",
  "normalization",
  "softmax",
  "recurrent",
  "concatenation",
  "addition",
  "arithmetic",
] as const;

export type Kind = (typeof KINDS)[number];

/** Shapes are of one picture, without the batch. */
export interface Layer {
  readonly output: string;
  /** What the network calls it; "" where nobody says. */
  readonly label: string;
  readonly kind: Kind;
  readonly operators: readonly string[];
  readonly inputShape: readonly number[];
  readonly outputShape: readonly number[];
  /** Along height and width, as the next; empty without windows. */
  readonly kernel: readonly number[];
  readonly stride: readonly number[];
  /** At the top, at the left, at the bottom and at the right. */
  readonly padding: readonly number[];
  /** The lecture's, in numbers, of height and width. */
  readonly formulas: readonly string[];
  readonly parameters: number;
  readonly parametersFormula: string;
  /** Planes of filters that are not zero throughout, of how many; `null`: all. */
  readonly connections: readonly number[] | null;
}

export interface Filters {
  readonly output: string;
  readonly layer: string;
  /** (filters, channels, height, width). */
  readonly shape: readonly number[];
}

export interface LayerTable {
  readonly model: string;
  readonly layers: readonly Layer[];
  readonly filters: Filters | null;
}

/** A card may be of any hand. */
const MOST_LAYERS = 2000;
const MOST_DIMS = 8;

type Fields = Readonly<Record<string, unknown>>;

/** The table, or `null` for what is none. */
export function tableOf(value: unknown): LayerTable | null {
  if (!isFields(value) || !Array.isArray(value.layers) || value.layers.length > MOST_LAYERS) return null;
  const layers = value.layers.map(layerOf);
  if (layers.length === 0 || layers.some((layer) => layer === null)) return null;
  return { model: textOf(value.model), layers: layers as Layer[], filters: filtersOf(value.filters) };
}

function layerOf(value: unknown): Layer | null {
  if (!isFields(value) || typeof value.output !== "string" || !isShape(value.output_shape)) return null;
  return {
    output: value.output,
    label: textOf(value.label),
    kind: KINDS.find((kind) => kind === value.kind) ?? "arithmetic",
    operators: listOf(value.operators, isText),
    inputShape: isShape(value.input_shape) ? value.input_shape : [],
    outputShape: value.output_shape,
    kernel: listOf(value.kernel, isCount),
    stride: listOf(value.stride, isCount),
    padding: listOf(value.padding, isCount),
    formulas: listOf(value.formulas, isText),
    parameters: isCount(value.parameters) ? value.parameters : 0,
    parametersFormula: textOf(value.parameters_formula),
    connections: listOf(value.connections, isCount).length === 2 ? listOf(value.connections, isCount) : null,
  };
}

function filtersOf(value: unknown): Filters | null {
  if (!isFields(value) || typeof value.output !== "string" || !isShape(value.shape) || value.shape.length !== 4)
    return null;
  return { output: value.output, layer: textOf(value.layer), shape: value.shape };
}

function isFields(value: unknown): value is Fields {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function isShape(value: unknown): value is number[] {
  return Array.isArray(value) && value.length <= MOST_DIMS && value.every((dim) => isCount(dim) && dim > 0);
}

function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}

function isText(value: unknown): value is string {
  return typeof value === "string";
}

function textOf(value: unknown): string {
  return isText(value) ? value : "";
}

/** The elements, if each is as it should be. */
function listOf<T>(value: unknown, is: (element: unknown) => element is T): readonly T[] {
  return Array.isArray(value) && value.every(is) ? value : [];
}
