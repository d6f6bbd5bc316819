import { expect, test } from "vitest";

import { companionOf } from "./state";

const COMPANIONS = [
  { name: "inside", of: "letters" },
  { name: "digits_layers", of: "digits" },
];

test.each([
  ["by its own name", ["digits_layers", "letters"], "digits_layers"],
  ["by the name of the model whose layers it shows", [null, "digits"], "digits_layers"],
  ["by the first wish that there is", ["gone", "letters", "digits"], "inside"],
  ["or else it is the first", ["gone"], "inside"],
])("a model to look into is found %s", (_, wanted, name) => {
  expect(companionOf(wanted, COMPANIONS)?.name).toBe(name);
});

test("there may be none", () => {
  expect(companionOf(["digits"], [])).toBeUndefined();
});
