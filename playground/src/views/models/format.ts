/** Figures as the page's language writes them. */

import { formatNumber } from "../../i18n";
import type { Score } from "../../api/figures";

/** Three significant digits in µs, ms or s. */
export function duration(microseconds: number): string {
  const [value, unit] =
    microseconds < 1000
      ? [microseconds, "µs"]
      : microseconds < 1e6
        ? [microseconds / 1000, "ms"]
        : [microseconds / 1e6, "s"];
  return `${formatNumber(value, { maximumSignificantDigits: 3 })} ${unit}`;
}

export function percent(score: Score): string {
  return formatNumber(score.right / score.of, { style: "percent", minimumFractionDigits: 2, maximumFractionDigits: 2 });
}

/** Bytes, in units of 1,000. */
export function size(bytes: number): string {
  if (bytes < 1000) return `${formatNumber(bytes)} B`;
  if (bytes < 1e6) return `${formatNumber(bytes / 1000, { maximumFractionDigits: 0 })} kB`;
  return `${formatNumber(bytes / 1e6, { maximumFractionDigits: 1 })} MB`;
}

/** A small part of 1: "1.5 × 10⁻⁶". */
export function tiny(value: number): string {
  if (!(value > 0)) return formatNumber(value);
  const exponent = Math.floor(Math.log10(value));
  const mantissa = formatNumber(value / 10 ** exponent, { maximumSignificantDigits: 2 });
  return `${mantissa} × 10${raised(exponent)}`;
}

/** Axes, with "−1" for a free one. */
export function shape(axes: readonly number[]): string {
  return `[${axes.map((axis) => (axis < 0 ? "−1" : String(axis))).join(", ")}]`;
}

const RAISED: Readonly<Record<string, string>> = {
  "-": "⁻", 0: "⁰", 1: "¹", 2: "²", 3: "³", 4: "⁴", 5: "⁵", 6: "⁶", 7: "⁷", 8: "⁸", 9: "⁹",
};

function raised(number: number): string {
  return [...String(number)].map((digit) => RAISED[digit] ?? digit).join("");
}
