import { formatNumber } from "../i18n";
import "./bars.css";

/** One class and how much a model is for it. */
export interface Bar {
  readonly index: number;
  readonly label: string;
  /** From 0 to 1. */
  readonly share: number;
}

interface BarsProps {
  readonly bars: readonly Bar[];
  /** The answer is not of what is shown now. */
  readonly stale?: boolean;
}

export const percent = (share: number): string => formatNumber(share, { style: "percent", maximumFractionDigits: 1 });

/** Classes, each with a bar as long as its share. */
export function Bars({ bars, stale = false }: BarsProps) {
  return (
    <ol class={stale ? "bars stale" : "bars"}>
      {bars.map(({ index, label, share }, rank) => (
        <li key={rank} data-class={index}>
          <span class="bar-label">{label}</span>
          <span class="bar" aria-hidden="true">
            <span style={{ width: `${100 * share}%` }} />
          </span>
          <span class="bar-share number">{percent(share)}</span>
        </li>
      ))}
    </ol>
  );
}
