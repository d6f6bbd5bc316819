/** Which models tell what is in a picture, and how each takes one. Pure. */

import type { ModelConfig } from "../../api/models";

export interface Size {
  readonly height: number;
  readonly width: number;
}

/** A model of one picture and one answer with labels. */
export interface Classifier {
  readonly model: string;
  readonly input: string;
  readonly output: string;
  /** How many classes it tells apart. */
  readonly classes: number;
  readonly channels: 1 | 3;
  /** What the network sees. */
  readonly seen: Size;
  /** The picture that is made for it: larger than what it sees where the server crops it. */
  readonly made: Size;
  /** The server makes the numbers of pixels, by the model's image.* parameters. */
  readonly takesPixels: boolean;
  readonly datatype: "FP32" | "UINT8";
  readonly channelsLast: boolean;
  /** The channels that the network reads are blue, green and red. */
  readonly blueFirst: boolean;
  readonly batched: boolean;
}

const DATATYPES: Readonly<Record<string, Classifier["datatype"]>> = { TYPE_FP32: "FP32", TYPE_UINT8: "UINT8" };

/** The classifier that a model is; `null` where it is none, or of a kind that the page cannot make pictures for. */
export function classifierOf(config: ModelConfig): Classifier | null {
  const [input, ...otherInputs] = config.input;
  const [output, ...otherOutputs] = config.output;
  if (!input || !output || otherInputs.length || otherOutputs.length || !output.label_filename) return null;
  const resize = parameter(config, "image.resize");
  const datatype = DATATYPES[input.data_type] ?? (resize ? "FP32" : undefined);
  const layout = layoutOf(input.dims, input.format);
  if (!datatype || !layout) return null;
  const { channels, channelsLast, seen } = layout;
  const made = resize ? resizedTo(resize, seen) : seen;
  if (!made) return null;
  return {
    model: config.name,
    input: input.name,
    output: output.name,
    classes: output.dims.reduce((product, dim) => product * dim, 1),
    channels,
    seen,
    made,
    takesPixels: resize !== "",
    datatype,
    channelsLast,
    blueFirst: parameter(config, "image.color") === "BGR",
    batched: config.max_batch_size > 0,
  };
}

function layoutOf(dims: readonly number[], format: string | undefined) {
  const [first = 0, second = 0, third = 0] = dims;
  if (dims.length !== 3 || dims.some((dim) => dim < 1)) return null;
  const channelsLast = format === "FORMAT_NHWC" || (format !== "FORMAT_NCHW" && !isColour(first));
  const channels = channelsLast ? third : first;
  if (!isColour(channels)) return null;
  const seen = channelsLast ? { height: first, width: second } : { height: second, width: third };
  // A grid of a few numbers is no picture that a person draws.
  return Math.min(seen.height, seen.width) < 8 ? null : { channels, channelsLast, seen };
}

function isColour(channels: number): channels is 1 | 3 {
  return channels === 1 || channels === 3;
}

/** What `image.resize` makes of a picture with the proportions of what the network sees. */
function resizedTo(resize: string, seen: Size): Size | null {
  const exact = /^(\d+)x(\d+)$/.exec(resize);
  if (exact) return { height: Number(exact[1]), width: Number(exact[2]) };
  const shorter = Number(resize);
  if (!(shorter > 0)) return null;
  const scale = shorter / Math.min(seen.height, seen.width);
  return { height: Math.round(seen.height * scale), width: Math.round(seen.width * scale) };
}

function parameter(config: ModelConfig, key: string): string {
  return config.parameters?.[key]?.string_value ?? "";
}

/** One class and how much the model is for it. */
export interface Score {
  readonly index: number;
  readonly label: string;
  /** From 0 to 1. */
  readonly share: number;
}

/**
 * Scores of texts "value:index:label", as Triton's classification extension writes them, best first. Values that are no
 * probabilities become some, by softmax over those that are given.
 */
export function scoresOf(classes: readonly string[]): readonly Score[] {
  const parsed = classes.map((text) => {
    const [value = "", index = "", ...label] = text.split(":");
    return { value: Number(value), index: Number(index), label: label.join(":") || index };
  });
  const values = parsed.map(({ value }) => value);
  const shares = areProbabilities(values) ? values : softmax(values);
  return parsed.map(({ index, label }, at) => ({ index, label, share: shares[at] ?? 0 }));
}

function areProbabilities(values: readonly number[]): boolean {
  const sum = values.reduce((total, value) => total + value, 0);
  return values.every((value) => value >= 0 && value <= 1) && sum <= 1.001;
}

function softmax(values: readonly number[]): readonly number[] {
  const greatest = Math.max(...values);
  const powers = values.map((value) => Math.exp(value - greatest));
  const sum = powers.reduce((total, power) => total + power, 0);
  return powers.map((power) => power / sum);
}
