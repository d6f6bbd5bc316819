import { describe, expect, it } from "vitest";

import type { ModelConfig, TensorConfig } from "../../api/models";
import { classifierOf, scoresOf } from "./classifiers";

const LABELLED = { name: "probabilities", data_type: "TYPE_FP32", dims: [10], label_filename: "labels.txt" };

function model(input: Partial<TensorConfig>, more: Partial<ModelConfig> = {}): ModelConfig {
  return {
    name: "model",
    max_batch_size: 8,
    input: [{ name: "input", data_type: "TYPE_FP32", dims: [1, 32, 32], ...input }],
    output: [LABELLED],
    ...more,
  };
}

const resize = (text: string) => ({ parameters: { "image.resize": { string_value: text } } });

describe("a classifier", () => {
  it("of pixels is made as the server resizes them, and seen as it crops them", () => {
    const input = { dims: [3, 224, 224], format: "FORMAT_NCHW" } as const;

    expect(classifierOf(model(input, resize("256")))).toMatchObject({
      channels: 3,
      seen: { height: 224, width: 224 },
      made: { height: 256, width: 256 },
      takesPixels: true,
    });
  });

  it.each([
    [{ dims: [1, 28, 20] }, { channelsLast: false, seen: { height: 28, width: 20 } }],
    [{ dims: [28, 20, 1] }, { channelsLast: true, seen: { height: 28, width: 20 } }],
    [{ dims: [28, 20, 3], data_type: "TYPE_UINT8" }, { channelsLast: true, channels: 3, datatype: "UINT8" }],
  ])("of tensors is known by its dims: %j", (input, expected) => {
    expect(classifierOf(model(input))).toMatchObject({ takesPixels: false, classes: 10, ...expected });
  });

  it("reads blue first where its configuration says so", () => {
    const { parameters } = resize("28x28");
    const blue = { ...parameters, "image.color": { string_value: "BGR" } };

    expect(classifierOf(model({ dims: [3, 28, 28] }, { parameters }))?.blueFirst).toBe(false);
    expect(classifierOf(model({ dims: [3, 28, 28] }, { parameters: blue }))?.blueFirst).toBe(true);
  });

  it("takes a batch only where the model has one", () => {
    expect(classifierOf(model({}, { max_batch_size: 0 }))?.batched).toBe(false);
  });

  it.each([
    ["without labels", model({}, { output: [{ name: "o", data_type: "TYPE_FP32", dims: [10] }] })],
    ["of two answers", model({}, { output: [LABELLED, LABELLED] })],
    ["of no picture", model({ dims: [1024] })],
    ["of a few numbers", model({ dims: [3, 5, 5] })],
    ["of any size", model({ dims: [3, -1, -1] })],
    ["of many channels", model({ dims: [16, 32, 32] })],
    ["of other numbers", model({ data_type: "TYPE_INT64" })],
  ])("is no model %s", (_, config) => {
    expect(classifierOf(config)).toBeNull();
  });
});

describe("scores", () => {
  it("are the probabilities that came, with labels as they are written", () => {
    expect(scoresOf(["0.900000:7:seven: 7", "0.100000:1"])).toEqual([
      { index: 7, label: "seven: 7", share: 0.9 },
      { index: 1, label: "1", share: 0.1 },
    ]);
  });

  it("of a network without softmax become probabilities", () => {
    const [first, second] = scoresOf(["2:0:a", "2:1:b"]);

    expect([first?.share, second?.share]).toEqual([0.5, 0.5]);
  });
});
