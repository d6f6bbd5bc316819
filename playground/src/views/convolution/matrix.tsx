import { signed } from "./signed";
import type { Plane } from "./steps";

/** How a cell is set off. */
export type Mark = "" | "margin" | "window";

interface MatrixProps {
  readonly label: string;
  readonly rows: Plane;
  readonly mark?: (row: number, column: number) => Mark;
  /** A frame that slides over the cells. */
  readonly window?: { readonly top: number; readonly left: number; readonly side: number };
}

/** Numbers by row and column. */
export function Matrix({ label, rows, mark, window }: MatrixProps) {
  return (
    <div class="plane" style={{ "--columns": String(rows[0]?.length ?? 0) }}>
      <table aria-label={label}>
        <tbody>
          {rows.map((row, y) => (
            <tr key={y}>
              {row.map((value, x) => (
                <td key={x} class={mark?.(y, x) ?? ""}>
                  {signed(value)}
                </td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
      {window && (
        <div
          class="plane-window"
          style={{ "--top": String(window.top), "--left": String(window.left), "--side": String(window.side) }}
        />
      )}
    </div>
  );
}

interface SlotProps {
  readonly label: string;
  /** Empty: not calculated yet. */
  readonly shown: string;
  readonly current: boolean;
  readonly onClick: () => void;
}

/** One number of the output; a button to its window. */
export function Slot({ label, shown, current, onClick }: SlotProps) {
  return (
    <button
      type="button"
      class="slot number"
      aria-label={label}
      aria-current={current ? "step" : undefined}
      onClick={onClick}
    >
      {shown || "·"}
    </button>
  );
}
