import { expect, it } from "vitest";

import type { Classifier } from "./classifiers";
import { tensorOf, type Picture } from "./tensors";

const CLASSIFIER: Classifier = {
  model: "model",
  input: "input",
  output: "output",
  classes: 10,
  channels: 1,
  seen: { height: 1, width: 2 },
  made: { height: 1, width: 2 },
  takesPixels: false,
  datatype: "FP32",
  channelsLast: false,
  blueFirst: false,
  batched: true,
};
const GREY: Picture = { height: 1, width: 2, channels: 1, pixels: new Uint8ClampedArray([255, 0]) };
const COLOUR: Picture = { height: 1, width: 2, channels: 3, pixels: new Uint8ClampedArray([1, 2, 3, 4, 5, 6]) };

it("is pixels as they are where the server makes numbers of them", () => {
  const tensor = tensorOf(COLOUR, { ...CLASSIFIER, channels: 3, takesPixels: true });

  expect(tensor).toMatchObject({ name: "input", datatype: "UINT8", shape: [1, 1, 2, 3] });
  expect(tensor.data).toEqual(new Uint8Array([1, 2, 3, 4, 5, 6]));
});

it("is light ink on dark paper for a model of one channel", () => {
  const tensor = tensorOf(GREY, CLASSIFIER);

  expect(tensor).toMatchObject({ datatype: "FP32", shape: [1, 1, 1, 2] });
  expect(tensor.data).toEqual(new Float32Array([0, 1]));
});

it.each([
  [false, [1, 4, 2, 5, 3, 6], [3, 1, 2]],
  [true, [1, 2, 3, 4, 5, 6], [1, 2, 3]],
])("has its channels where the model has them: last %j", (channelsLast, numbers, shape) => {
  const tensor = tensorOf(COLOUR, { ...CLASSIFIER, channels: 3, datatype: "UINT8", channelsLast, batched: false });

  expect(tensor.shape).toEqual(shape);
  expect(tensor.data).toEqual(new Uint8Array(numbers));
});
