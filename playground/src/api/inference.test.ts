import { describe, expect, it } from "vitest";

import { ApiError } from "./errors";
import { decodeAnswer, encodeRequest, floats, texts } from "./inference";

const utf8 = new TextEncoder();

function answer(outputs: readonly { name: string; datatype: string; bytes: Uint8Array }[]) {
  const json = utf8.encode(
    JSON.stringify({
      outputs: outputs.map(({ name, datatype, bytes }) => ({
        name,
        datatype,
        shape: [1],
        parameters: { binary_data_size: bytes.length },
      })),
    }),
  );
  const body = new Uint8Array([...json, ...outputs.flatMap(({ bytes }) => [...bytes])]);
  return { length: String(json.length), body };
}

describe("a request", () => {
  it("has JSON, then the tensors in the order of the inputs", () => {
    const { headerLength, body } = encodeRequest(
      [
        { name: "a", datatype: "FP32", shape: [1, 2], data: new Float32Array([1, 2]) },
        { name: "b", datatype: "BYTES", shape: [1], data: [utf8.encode("xyz")] },
      ],
      [{ name: "out", classification: 5 }],
      250,
    );

    const json = JSON.parse(new TextDecoder().decode(body.subarray(0, headerLength)));
    expect(json.inputs.map((input: { parameters: unknown }) => input.parameters)).toEqual([
      { binary_data_size: 8 },
      { binary_data_size: 7 },
    ]);
    expect(json.outputs).toEqual([{ name: "out", parameters: { binary_data: true, classification: 5 } }]);
    expect(json.parameters).toEqual({ timeout: 250 });
    expect([...body.subarray(headerLength)]).toEqual([0, 0, 128, 63, 0, 0, 0, 64, 3, 0, 0, 0, 120, 121, 122]);
  });
});

describe("an answer", () => {
  it("is cut into its outputs, wherever their bytes begin", () => {
    const { length, body } = answer([
      { name: "text", datatype: "BYTES", bytes: new Uint8Array([1, 0, 0, 0, 55, 2, 0, 0, 0, 195, 169]) },
      { name: "number", datatype: "FP32", bytes: new Uint8Array([0, 0, 128, 63]) },
    ]);

    const outputs = decodeAnswer(length, body);

    expect(texts(outputs.get("text")!)).toEqual(["7", "é"]);
    expect([...floats(outputs.get("number")!)]).toEqual([1]);
  });

  it.each([null, "0", "many", "100000"])("with %j as its header's length is an error", (length) => {
    expect(() => decodeAnswer(length, answer([]).body)).toThrow(ApiError);
  });
});
