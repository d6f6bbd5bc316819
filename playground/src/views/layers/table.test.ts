import { expect, test } from "vitest";

import { tableOf } from "./table";

const LAYER = {
  output: "convolution_2",
  label: "c3",
  kind: "convolution",
  operators: ["Conv"],
  input_shape: [6, 14, 14],
  output_shape: [16, 10, 10],
  kernel: [5, 5],
  stride: [1, 1],
  padding: [0, 0, 0, 0],
  formulas: ["(14 − 5 + 2·0)/1 + 1 = 10"],
  parameters: 1516,
  parameters_formula: "5·5·60 + 16 = 1516",
  connections: [60, 96],
};

test("a table as export writes it", () => {
  const filters = { output: "filters", layer: "convolution_1", shape: [6, 1, 5, 5] };

  const table = tableOf({ model: "lenet5", version: 1, layers: [LAYER], filters });

  expect(table).toMatchObject({ model: "lenet5", filters });
  expect(table?.layers[0]).toMatchObject({
    label: "c3",
    outputShape: [16, 10, 10],
    connections: [60, 96],
    parameters: 1516,
  });
});

test("a layer without windows, and of a kind that nobody knows here", () => {
  const { kernel, stride, padding, connections } = { kernel: null, stride: null, padding: null, connections: null };

  const table = tableOf({
    layers: [{ ...LAYER, kind: "attention", kernel, stride, padding, connections }],
    filters: null,
  });

  expect(table?.layers[0]).toMatchObject({ kind: "arithmetic", kernel: [], connections: null });
});

test.each([
  ["nothing", undefined],
  ["no object", [LAYER]],
  ["no layers", { layers: [] }],
  ["too many layers", { layers: new Array(2001).fill(LAYER) }],
  ["a layer without an output", { layers: [{ ...LAYER, output: 3 }] }],
  ["a shape that is none", { layers: [{ ...LAYER, output_shape: [16, -1, 10] }] }],
  ["a shape of too many axes", { layers: [{ ...LAYER, output_shape: new Array(9).fill(1) }] }],
])("%s is no table", (_, value) => {
  expect(tableOf(value)).toBeNull();
});
