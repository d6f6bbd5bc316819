/** Inference over HTTP v2 with binary tensors: JSON, then the tensors' bytes in the order of the inputs. */

import { ApiError } from "./errors";
import { ask, part, type Options } from "./http";

export type Numbers = Float32Array | Float64Array | Uint8Array | Int8Array | Int32Array;

export interface InputTensor {
  readonly name: string;
  readonly datatype: string;
  readonly shape: readonly number[];
  /** Numbers in row-major order; for BYTES, the elements. */
  readonly data: Numbers | readonly Uint8Array[];
}

export interface RequestedOutput {
  readonly name: string;
  /** How many classes to return, as texts "score:index:label" (Triton's classification extension). */
  readonly classification?: number;
}

export interface OutputTensor {
  readonly name: string;
  readonly datatype: string;
  readonly shape: readonly number[];
  readonly bytes: Uint8Array;
}

export interface InferOptions extends Options {
  readonly version?: string;
  /** How long the request may wait in the server. */
  readonly timeoutMicroseconds?: number;
}

interface Header {
  readonly outputs: readonly {
    readonly name: string;
    readonly datatype: string;
    readonly shape: readonly number[];
    readonly parameters: { readonly binary_data_size: number };
  }[];
}

const HEADER_LENGTH = "Inference-Header-Content-Length";

/** One inference. Raises `ApiError`. Outputs by name. */
export async function infer(
  model: string,
  inputs: readonly InputTensor[],
  outputs: readonly RequestedOutput[],
  options: InferOptions = {},
): Promise<ReadonlyMap<string, OutputTensor>> {
  const { version, timeoutMicroseconds, ...rest } = options;
  const { headerLength, body } = encodeRequest(inputs, outputs, timeoutMicroseconds);
  const path = `/v2/models/${part(model)}${version ? `/versions/${part(version)}` : ""}/infer`;
  const response = await ask(path, {
    ...rest,
    method: "POST",
    headers: { "Content-Type": "application/octet-stream", [HEADER_LENGTH]: String(headerLength) },
    body,
  });
  return decodeAnswer(response.headers.get(HEADER_LENGTH), new Uint8Array(await response.arrayBuffer()));
}

/** The body of a request, and how much of it is JSON. */
export function encodeRequest(
  inputs: readonly InputTensor[],
  outputs: readonly RequestedOutput[],
  timeoutMicroseconds?: number,
): { readonly headerLength: number; readonly body: Uint8Array<ArrayBuffer> } {
  const tensors = inputs.map(({ data }) => tensorBytes(data));
  const json = {
    inputs: inputs.map(({ name, datatype, shape }, index) => ({
      name,
      datatype,
      shape,
      parameters: { binary_data_size: tensors[index]?.length ?? 0 },
    })),
    outputs: outputs.map(({ name, classification }) => ({
      name,
      parameters: { binary_data: true, ...(classification === undefined ? {} : { classification }) },
    })),
    ...(timeoutMicroseconds === undefined ? {} : { parameters: { timeout: timeoutMicroseconds } }),
  };
  const header = new TextEncoder().encode(JSON.stringify(json));
  return { headerLength: header.length, body: joined([header, ...tensors]) };
}

/** The outputs of an answer. `headerLength`: how much of it is JSON. Raises `ApiError` for what is no such answer. */
export function decodeAnswer(headerLength: string | null, body: Uint8Array): ReadonlyMap<string, OutputTensor> {
  const length = Number(headerLength ?? Number.NaN);
  if (!(length > 0 && length <= body.length)) throw new ApiError(502, `the answer has no ${HEADER_LENGTH}`);
  const header = JSON.parse(new TextDecoder().decode(body.subarray(0, length))) as Header;
  const outputs = new Map<string, OutputTensor>();
  let start = length;
  for (const { name, datatype, shape, parameters } of header.outputs) {
    const end = start + parameters.binary_data_size;
    outputs.set(name, { name, datatype, shape, bytes: body.slice(start, end) });
    start = end;
  }
  return outputs;
}

/** An FP32 tensor's numbers. */
export function floats({ bytes }: OutputTensor): Float32Array {
  return new Float32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4);
}

/** A BYTES tensor's elements as text. */
export function texts({ bytes }: OutputTensor): readonly string[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const decoder = new TextDecoder();
  const found: string[] = [];
  for (let start = 0; start < bytes.length; ) {
    const end = start + 4 + view.getUint32(start, true);
    found.push(decoder.decode(bytes.subarray(start + 4, end)));
    start = end;
  }
  return found;
}

function tensorBytes(data: InputTensor["data"]): Uint8Array {
  if (ArrayBuffer.isView(data)) return new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
  return joined(data.flatMap((element) => [lengthOf(element), element]));
}

function lengthOf(element: Uint8Array): Uint8Array {
  const prefix = new Uint8Array(4);
  new DataView(prefix.buffer).setUint32(0, element.length, true);
  return prefix;
}

function joined(parts: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const whole = new Uint8Array(parts.reduce((size, { length }) => size + length, 0));
  let start = 0;
  for (const each of parts) {
    whole.set(each, start);
    start += each.length;
  }
  return whole;
}
