/**
 * Where a drawing goes in the picture: in the middle, as large as models were trained with. Pure. Lengths are shares of
 * the picture's side, from 0 at its top left corner to 1.
 */

export interface Point {
  readonly x: number;
  readonly y: number;
}

export type Stroke = readonly Point[];

export interface Box {
  readonly left: number;
  readonly top: number;
  readonly right: number;
  readonly bottom: number;
}

/** A point p goes to p · scale + (x, y). */
export interface Placement {
  readonly scale: number;
  readonly x: number;
  readonly y: number;
}

/** How much of the picture the ink fills: the middle three quarters, as the cards of the models say. */
export const INK_SHARE = 0.75;

/** The pen's width in the model's picture. */
export const PEN = 0.085;

/** A dot is not made a blot. */
const MOST_ENLARGED = 4;

export const UNCHANGED: Placement = { scale: 1, x: 0, y: 0 };

/** Around all points; `null` where there is none. */
export function boundsOf(strokes: readonly Stroke[]): Box | null {
  const points = strokes.flat();
  if (points.length === 0) return null;
  const box = { left: Infinity, top: Infinity, right: -Infinity, bottom: -Infinity };
  for (const { x, y } of points) {
    box.left = Math.min(box.left, x);
    box.top = Math.min(box.top, y);
    box.right = Math.max(box.right, x);
    box.bottom = Math.max(box.bottom, y);
  }
  return box;
}

/** Puts a box into the middle, its longer side `share` of the picture's. */
export function centred(box: Box, share: number): Placement {
  const longer = Math.max(box.right - box.left, box.bottom - box.top);
  const scale = Math.min(longer > 0 ? share / longer : MOST_ENLARGED, MOST_ENLARGED);
  return {
    scale,
    x: 0.5 - (scale * (box.left + box.right)) / 2,
    y: 0.5 - (scale * (box.top + box.bottom)) / 2,
  };
}

/** Where strokes go: the middle of their lines is placed so that their ink, half a pen wider on each side, fits. */
export function placedStrokes(strokes: readonly Stroke[]): Placement {
  const box = boundsOf(strokes);
  return box ? centred(box, INK_SHARE - PEN) : UNCHANGED;
}
