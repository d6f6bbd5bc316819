/** Numbers and shapes as the view writes them. */

import { formatNumber } from "../../i18n";

/** Three significant digits; a minus, not a hyphen. */
export function valueText(value: number): string {
  return formatNumber(value, { maximumSignificantDigits: 3 }).replace("-", "−");
}

/** 16×10×10. */
export function shapeText(shape: readonly number[]): string {
  return shape.join("×");
}

/** 5×5, or 5 where nothing else is meant: the numbers of height and width. */
export function pairText(numbers: readonly number[]): string {
  const [first] = numbers;
  return numbers.every((number) => number === first) ? String(first) : numbers.join("×");
}
