import { describe, expect, it } from "vitest";

import { boundsOf, centred, INK_SHARE, PEN, placedStrokes, UNCHANGED, type Placement, type Stroke } from "./placing";

const moved = ({ scale, x, y }: Placement, strokes: readonly Stroke[]): readonly Stroke[] =>
  strokes.map((stroke) => stroke.map((point) => ({ x: point.x * scale + x, y: point.y * scale + y })));

const TALL: Stroke = [
  { x: 0.1, y: 0.1 },
  { x: 0.2, y: 0.4 },
];
const WIDE: Stroke = [
  { x: 0.5, y: 0.9 },
  { x: 0.9, y: 0.95 },
];

describe("strokes", () => {
  it.each([[[TALL]], [[WIDE]], [[TALL, WIDE]]])("come to the middle, and fill three quarters of it: %#", (strokes) => {
    const box = boundsOf(moved(placedStrokes(strokes), strokes))!;

    expect((box.left + box.right) / 2).toBeCloseTo(0.5);
    expect((box.top + box.bottom) / 2).toBeCloseTo(0.5);
    expect(Math.max(box.right - box.left, box.bottom - box.top) + PEN).toBeCloseTo(INK_SHARE);
  });

  it("keep their proportions", () => {
    const { scale } = placedStrokes([TALL]);

    expect(scale).toBeCloseTo((INK_SHARE - PEN) / 0.3);
  });

  it("that are a dot stay small, in the middle", () => {
    const placement = placedStrokes([[{ x: 0.2, y: 0.8 }]]);

    expect(moved(placement, [[{ x: 0.2, y: 0.8 }]])[0]?.[0]).toEqual({ x: 0.5, y: 0.5 });
    expect(placement.scale).toBeLessThanOrEqual(4);
  });

  it("that are none are nowhere", () => {
    expect(boundsOf([[], []])).toBeNull();
    expect(placedStrokes([])).toEqual(UNCHANGED);
  });
});

describe("a box", () => {
  it("that is in its place already stays there", () => {
    const place = centred({ left: 0.2, top: 0.1, right: 0.8, bottom: 0.9 }, 0.8);

    expect(place.scale).toBeCloseTo(1);
    expect(place.x).toBeCloseTo(0);
    expect(place.y).toBeCloseTo(0);
  });
});
