/** One map, large, and the value under the pointer or the keyboard's cursor. */

import { useState } from "preact/hooks";

import { text } from "../../i18n";
import { MapCanvas } from "./canvas";
import { valueText } from "./format";
import { valuesAt, type FeatureMap } from "./maps";

interface LensProps {
  readonly map: FeatureMap;
  readonly most: number;
  /** What the map is: "Map 3 of 16". */
  readonly title: string;
}

interface Cell {
  readonly x: number;
  readonly y: number;
}

const MOVES: Readonly<Record<string, Cell>> = {
  ArrowLeft: { x: -1, y: 0 },
  ArrowRight: { x: 1, y: 0 },
  ArrowUp: { x: 0, y: -1 },
  ArrowDown: { x: 0, y: 1 },
};

export function Lens({ map, most, title }: LensProps) {
  const words = text.value.layers.lens;
  const [cell, setCell] = useState<Cell | null>(null);
  const [x, y] = [clamped(cell?.x ?? 0, map.width), clamped(cell?.y ?? 0, map.height)];
  const values = valuesAt(map, x, y).map(valueText);
  const [red = words.nothing, green = "", blue = ""] = values;
  const read = map.inColour ? words.colours(red, green, blue) : red;
  const place = map.isVector ? words.unit(y * map.width + x) : words.place(y + 1, x + 1);

  const onPointer = (event: PointerEvent): void => {
    const { left, top, width, height } = (event.currentTarget as HTMLElement).getBoundingClientRect();
    setCell({
      x: cellAt(event.clientX - left, width, map.width),
      y: cellAt(event.clientY - top, height, map.height),
    });
  };
  const onKey = (event: KeyboardEvent): void => {
    const move = MOVES[event.key];
    if (!move) return;
    event.preventDefault();
    setCell((before) => (before ? moved(before, move, map) : { x: 0, y: 0 }));
  };
  return (
    <figure
      class={map.isVector ? "map-lens map-lens-vector" : "map-lens"}
      style={{ "--columns": String(map.width), "--rows": String(map.height) }}
    >
      <div
        class="map-lens-sheet"
        tabIndex={0}
        role="img"
        aria-label={`${title}. ${words.keys}`}
        onPointerMove={onPointer}
        onPointerDown={onPointer}
        onKeyDown={onKey}
      >
        <MapCanvas map={map} most={most} />
        <span class="map-lens-cursor" style={{ "--x": String(x), "--y": String(y) }} />
      </div>
      <figcaption>
        {!map.isVector && <span>{title}</span>}
        <output class={cell ? "number" : "hint"} aria-live="polite">
          {cell ? `${place}: ${read}` : words.point}
        </output>
      </figcaption>
    </figure>
  );
}

function cellAt(offset: number, length: number, cells: number): number {
  return Math.floor((offset / length) * cells);
}

function moved({ x, y }: Cell, move: Cell, { width, height }: FeatureMap): Cell {
  return { x: clamped(x + move.x, width), y: clamped(y + move.y, height) };
}

function clamped(at: number, cells: number): number {
  return Math.min(Math.max(at, 0), cells - 1);
}
