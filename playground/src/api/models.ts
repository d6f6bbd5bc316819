/** Models: which there are, what they are, loading and unloading. */

import { ApiError } from "./errors";
import { askJson, part, postJson, type Options } from "./http";

export type ModelState = "READY" | "LOADING" | "UNLOADING" | "UNAVAILABLE" | "UNKNOWN";

/** One line of the repository index. */
export interface IndexLine {
  readonly name: string;
  readonly version?: string;
  readonly state?: ModelState;
  readonly reason?: string;
}

export interface TensorMetadata {
  readonly name: string;
  readonly datatype: string;
  /** With the batch axis, where the model has one; -1 is free. */
  readonly shape: readonly number[];
}

export interface ModelMetadata {
  readonly name: string;
  readonly versions: readonly string[];
  readonly platform: string;
  readonly inputs: readonly TensorMetadata[];
  readonly outputs: readonly TensorMetadata[];
}

export interface TensorConfig {
  readonly name: string;
  readonly data_type: string;
  readonly format?: "FORMAT_NONE" | "FORMAT_NCHW" | "FORMAT_NHWC";
  /** Without the batch axis; -1 is free. */
  readonly dims: readonly number[];
  readonly label_filename?: string;
}

/** What is read here of a configuration; the server sends all of it. */
export interface ModelConfig {
  readonly name: string;
  readonly platform?: string;
  readonly max_batch_size: number;
  readonly input: readonly TensorConfig[];
  readonly output: readonly TensorConfig[];
  readonly parameters?: Readonly<Record<string, { readonly string_value: string }>>;
}

/** The parameter that `python -m training layers` writes: the model whose layers this one shows. */
const LAYERS_OF = "layers_of";

/** The model whose layers this one shows; "" where it shows none. */
export function layersOf({ parameters }: ModelConfig): string {
  return parameters?.[LAYERS_OF]?.string_value ?? "";
}

const path = (model: string, version = ""): string =>
  version ? `/v2/models/${part(model)}/versions/${part(version)}` : `/v2/models/${part(model)}`;

export function repositoryIndex(options: Options = {}): Promise<readonly IndexLine[]> {
  return postJson("/v2/repository/index", {}, options);
}

export function modelMetadata(model: string, options: Options = {}): Promise<ModelMetadata> {
  return askJson(path(model), options);
}

export function modelConfig(model: string, options: Options = {}): Promise<ModelConfig> {
  return askJson(`${path(model)}/config`, options);
}

/** The models with a version that is ready. */
export function readyNames(index: readonly IndexLine[]): readonly string[] {
  return [...new Set(index.filter(({ state }) => state === "READY").map(({ name }) => name))];
}

/** The configurations of the models that are ready; without those that have gone since the index was made. */
export async function readyConfigs(index: readonly IndexLine[]): Promise<readonly ModelConfig[]> {
  const configs = await Promise.all(readyNames(index).map((name) => modelConfig(name).catch(goneAsNull)));
  return configs.filter((config) => config !== null);
}

function goneAsNull(error: unknown): null {
  if (error instanceof ApiError && (error.kind === "missing" || error.kind === "invalid" || error.mayPass)) return null;
  throw error;
}

/** Any other resource of a model, as JSON: "card", "live", "stats", "cost". */
export function modelResource<T>(model: string, name: string, version = "", options: Options = {}): Promise<T> {
  return askJson(`${path(model, version)}/${name}`, options);
}

/** Parameters are strings, `config` the JSON of a configuration that replaces the model's file. */
export function loadModel(
  model: string,
  parameters: Readonly<Record<string, string>> = {},
  options: Options = {},
): Promise<null> {
  return postJson(`/v2/repository/models/${part(model)}/load`, { parameters }, options);
}

export function unloadModel(model: string): Promise<null> {
  return postJson(`/v2/repository/models/${part(model)}/unload`, {});
}
