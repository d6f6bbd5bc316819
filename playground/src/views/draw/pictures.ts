/** Drawings, on canvases: as a person sees them, and as a model is shown them. */

import type { Classifier } from "./classifiers";
import { greyOf, inkBox, inked, shrunk, type Grey } from "./grey";
import { centred, INK_SHARE, PEN, placedStrokes, UNCHANGED, type Placement, type Stroke } from "./placing";
import type { Picture } from "./tensors";

export type Image = ImageBitmap | OffscreenCanvas;

/** What is on the paper. */
export type Drawing =
  | { readonly kind: "strokes"; readonly strokes: readonly Stroke[] }
  | { readonly kind: "image"; readonly image: Image };

type Context = CanvasRenderingContext2D | OffscreenCanvasRenderingContext2D;

/** Strokes are drawn so many times as large and made small then: pixels are means, as a scanner has them. */
const OVERSAMPLING = 4;
/** Ink is looked for in images of this size. */
const SEARCHED_SIDE = 256;
const INK = "#000000";
const PAPER = "#ffffff";

/** Draws on square paper of `side` pixels, as a person sees it. */
export function paint(context: Context, side: number, drawing: Drawing | null): void {
  blank(context, side, side);
  if (drawing?.kind === "strokes") paintStrokes(context, side, drawing.strokes, UNCHANGED);
  if (drawing?.kind === "image") {
    const { width, height } = drawing.image;
    const scale = side / Math.max(width, height);
    const [x, y] = [(side - width * scale) / 2, (side - height * scale) / 2];
    context.drawImage(drawing.image, x, y, width * scale, height * scale);
  }
}

/** The picture that a model is shown. `centre`: the ink alone, in the middle; for models of one channel. */
export function pictureOf(drawing: Drawing, classifier: Classifier, centre: boolean): Picture {
  if (classifier.channels === 3 && drawing.kind === "image") return covered(drawing.image, classifier);
  const { width, height, data } =
    drawing.kind === "strokes"
      ? drawn(drawing.strokes, classifier, centre)
      : found(drawing.image, classifier, centre);
  const { channels } = classifier;
  const pixels = channels === 1 ? data : tripled(data);
  return { width, height, channels, pixels };
}

/** A printed character. */
export function printed(character: string): Image {
  const { context, canvas } = surface(SEARCHED_SIDE, SEARCHED_SIDE);
  context.fillStyle = INK;
  context.font = `${SEARCHED_SIDE * 0.7}px sans-serif`;
  context.textAlign = "center";
  context.textBaseline = "middle";
  context.fillText(character, SEARCHED_SIDE / 2, SEARCHED_SIDE / 2);
  return canvas;
}

/** A small grey picture as an image, its pixels run into each other. */
export function enlarged({ width, height, data }: Grey): Image {
  const small = surface(width, height);
  small.context.putImageData(new ImageData(rgba(data, 1), width, height), 0, 0);
  const { canvas, context } = surface(SEARCHED_SIDE, SEARCHED_SIDE);
  context.imageSmoothingEnabled = true;
  context.drawImage(small.canvas, 0, 0, SEARCHED_SIDE, SEARCHED_SIDE);
  return canvas;
}

/** Shows a model's picture pixel by pixel: the part of it that the network sees. */
export function paintPicture(context: Context, picture: Picture, { seen }: Classifier): void {
  const { width, height, channels, pixels } = picture;
  const data = new ImageData(rgba(pixels, channels), width, height);
  context.putImageData(data, Math.round((seen.width - width) / 2), Math.round((seen.height - height) / 2));
}

function drawn(strokes: readonly Stroke[], classifier: Classifier, centre: boolean): Grey {
  return inTheMiddle(classifier, (context, side) => {
    paintStrokes(context, side, strokes, centre ? placedStrokes(strokes) : UNCHANGED);
  });
}

function found(image: Image, classifier: Classifier, centre: boolean): Grey {
  const scale = SEARCHED_SIDE / Math.max(image.width, image.height);
  const [width, height] = [Math.max(1, Math.round(image.width * scale)), Math.max(1, Math.round(image.height * scale))];
  const { canvas, context } = surface(width, height);
  context.drawImage(image, 0, 0, width, height);
  const ink = centre ? inked(greyOf(context.getImageData(0, 0, width, height).data, width, height)) : null;
  if (ink) context.putImageData(new ImageData(rgba(ink.data, 1), width, height), 0, 0);
  const placement = ink ? placedInk(ink) : contained(width, height);
  return inTheMiddle(classifier, (target, side) => {
    const [x, y] = [placement.x * side, placement.y * side];
    const unit = (placement.scale * side) / SEARCHED_SIDE;
    target.drawImage(canvas, x, y, width * unit, height * unit);
  });
}

/** The ink of an image whose longer side is 1. */
function placedInk(ink: Grey): Placement {
  const [width, height] = [ink.width / SEARCHED_SIDE, ink.height / SEARCHED_SIDE];
  const box = inkBox(ink);
  return centred(
    { left: box.left * width, right: box.right * width, top: box.top * height, bottom: box.bottom * height },
    INK_SHARE,
  );
}

function contained(width: number, height: number): Placement {
  return { scale: 1, x: (1 - width / SEARCHED_SIDE) / 2, y: (1 - height / SEARCHED_SIDE) / 2 };
}

/** A grey picture for a model; `draw` on the square in the middle of what the network sees. */
function inTheMiddle({ made, seen }: Classifier, draw: (context: Context, side: number) => void): Grey {
  const factor = OVERSAMPLING;
  const [width, height] = [made.width * factor, made.height * factor];
  const { context } = surface(width, height);
  const side = Math.min(seen.width, seen.height) * factor;
  context.translate((width - side) / 2, (height - side) / 2);
  context.imageSmoothingQuality = "high";
  draw(context, side);
  return shrunk(greyOf(context.getImageData(0, 0, width, height).data, width, height), made.height, made.width, factor);
}

/** An image in its colours, as large as covers the picture; what stands out is cut off evenly. */
function covered(image: Image, { made }: Classifier): Picture {
  const { context } = surface(made.width, made.height);
  const scale = Math.max(made.width / image.width, made.height / image.height);
  const [width, height] = [image.width * scale, image.height * scale];
  context.imageSmoothingQuality = "high";
  context.drawImage(image, (made.width - width) / 2, (made.height - height) / 2, width, height);
  const data = context.getImageData(0, 0, made.width, made.height).data;
  return { ...made, channels: 3, pixels: data.filter((_, at) => at % 4 !== 3) };
}

function paintStrokes(context: Context, side: number, strokes: readonly Stroke[], place: Placement): void {
  context.strokeStyle = INK;
  context.lineWidth = PEN * side;
  context.lineCap = "round";
  context.lineJoin = "round";
  for (const stroke of strokes) {
    const points = stroke.map(({ x, y }) => ({
      x: (x * place.scale + place.x) * side,
      y: (y * place.scale + place.y) * side,
    }));
    const [first, last] = [points[0], points.at(-1)];
    if (!first || !last) continue;
    context.beginPath();
    context.moveTo(first.x, first.y);
    // Through the middles between points, bent by the points: a hand's line has no corners where the screen looked.
    points.slice(1, -1).forEach((point, before) => {
      const next = points[before + 2] ?? last;
      context.quadraticCurveTo(point.x, point.y, (point.x + next.x) / 2, (point.y + next.y) / 2);
    });
    context.lineTo(last.x, last.y);
    context.stroke();
  }
}

function surface(width: number, height: number) {
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  if (!context) throw new Error("this browser has no 2D canvas");
  blank(context, width, height);
  return { canvas, context };
}

function blank(context: Context, width: number, height: number): void {
  context.fillStyle = PAPER;
  context.fillRect(0, 0, width, height);
}

/** Grey as three channels. */
function tripled(grey: Uint8ClampedArray): Uint8ClampedArray {
  return Uint8ClampedArray.from({ length: 3 * grey.length }, (_, at) => grey[Math.floor(at / 3)] ?? 0);
}

function rgba(pixels: Uint8ClampedArray, channels: number): Uint8ClampedArray<ArrayBuffer> {
  const data = new Uint8ClampedArray((pixels.length / channels) * 4).fill(255);
  for (let at = 0; at < pixels.length / channels; at++) {
    for (let channel = 0; channel < 3; channel++) {
      data[4 * at + channel] = pixels[at * channels + (channels === 3 ? channel : 0)] ?? 0;
    }
  }
  return data;
}
