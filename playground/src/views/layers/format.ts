/** Numbers and shapes as the view writes them. */

import { formatNumber } from "../../i18n";

/** Three significant digits; a minus, not a hyphen. */
export function valueText(value: number): string {
  return minus(formatNumber(value, { maximumSignificantDigits: 3, signDisplay: "negative" }));
}

/** With so many decimals. */
export function decimalText(value: number, digits: number): string {
  return minus(
    formatNumber(value, { minimumFractionDigits: digits, maximumFractionDigits: digits, signDisplay: "negative" }),
  );
}

function minus(text: string): string {
  return text.replace("-", "−");
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
