import { expect, test } from "vitest";

import { language } from "../../i18n";
import { decimalText, pairText, shapeText, valueText } from "./format";

test("values have three significant digits and a minus", () => {
  expect(valueText(-1.7159)).toBe("−1.72");
  expect(valueText(12.345)).toBe("12.3");
  expect(valueText(-0)).toBe("0");
});

test("nothing that is rounded to 0 is negative", () => {
  expect(decimalText(-0.001, 2)).toBe("0.00");
  expect(decimalText(-0.284, 2)).toBe("−0.28");
});

test("numbers are written as the language writes them", () => {
  language.value = "pt";
  expect(decimalText(-0.284, 2)).toBe("−0,28");
  language.value = "en";
});

test("shapes, and numbers of height and width", () => {
  expect(shapeText([16, 10, 10])).toBe("16×10×10");
  expect(pairText([0, 0, 0, 0])).toBe("0");
  expect(pairText([2, 1])).toBe("2×1");
});
