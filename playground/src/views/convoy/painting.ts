/** Paints the road: requests come from the left, wait, and leave in convoys to the right; refused ones turn off. */

import { CONVOY_LANES, DOT_LANES, MOST_WAGONS, type Convoy, type Dot, type Traffic } from "./traffic";

export interface Colours {
  readonly road: string;
  readonly line: string;
  readonly ink: string;
  readonly muted: string;
  readonly request: string;
  readonly engine: string;
  readonly refused: string;
  /** A font's families. */
  readonly font: string;
}

export interface Words {
  readonly waiting: string;
  readonly refused: string;
  readonly rows: (count: number) => string;
}

export interface Scene {
  readonly traffic: Traffic;
  readonly waiting: number;
  readonly colours: Colours;
  readonly words: Words;
}

const NAMES: Readonly<Record<keyof Omit<Colours, "font">, string>> = {
  road: "--sunken",
  line: "--line-strong",
  ink: "--ink",
  muted: "--muted",
  request: "--series-1",
  engine: "--series-3",
  refused: "--bad",
};

/** The colours of the scheme that is on. Takes a while: not for every frame. */
export function coloursOf(element: Element): Colours {
  const style = getComputedStyle(element);
  const entries = Object.entries(NAMES).map(([name, property]) => [name, style.getPropertyValue(property).trim()]);
  return Object.fromEntries([...entries, ["font", style.fontFamily]]) as unknown as Colours;
}

/** Where what is, in pixels. */
interface Map {
  readonly width: number;
  readonly height: number;
  /** The queue's left and right edge. */
  readonly queue: number;
  readonly gate: number;
  /** The upper and lower edge of the road. */
  readonly top: number;
  readonly bottom: number;
  readonly dot: number;
}

const TEXT_PIXELS = 13;
/** On a narrower road there is no room for what a convoy carries. */
const LABELLED_WIDTH = 500;

export function paint(context: CanvasRenderingContext2D, width: number, height: number, scene: Scene): void {
  const map: Map = {
    width,
    height,
    queue: 0.27 * width,
    gate: 0.27 * width + Math.min(0.3 * width, 260),
    top: 34,
    bottom: height - 44,
    dot: width < LABELLED_WIDTH ? 3 : 3.5,
  };
  context.clearRect(0, 0, width, height);
  context.font = `${TEXT_PIXELS}px ${scene.colours.font}`;
  paintRoad(context, map, scene);
  const tail = paintQueue(context, map, scene);
  for (const dot of scene.traffic.dots) paintDot(context, map, dot, tail, scene.colours);
  for (const convoy of scene.traffic.convoys) paintConvoy(context, map, convoy, scene);
}

function paintRoad(context: CanvasRenderingContext2D, map: Map, { colours, words }: Scene): void {
  context.fillStyle = colours.road;
  context.beginPath();
  context.roundRect(0, map.top, map.width, map.bottom - map.top, 10);
  context.fill();
  // The exit of those that are refused.
  context.beginPath();
  context.roundRect(map.queue - 58, map.bottom - 12, 40, map.height - map.bottom + 12, 6);
  context.fill();
  context.strokeStyle = colours.line;
  context.setLineDash([10, 12]);
  context.lineWidth = 1;
  for (let lane = 1; lane < CONVOY_LANES; lane++) {
    const y = map.top + ((map.bottom - map.top) * lane) / CONVOY_LANES;
    context.beginPath();
    context.moveTo(map.gate + 8, y);
    context.lineTo(map.width, y);
    context.stroke();
  }
  context.setLineDash([]);
  context.lineWidth = 3;
  context.beginPath();
  context.moveTo(map.gate, map.top);
  context.lineTo(map.gate, map.bottom);
  context.stroke();
  context.fillStyle = colours.muted;
  context.textAlign = "left";
  context.fillText(words.refused, Math.max(2, map.queue - 12), map.height - 12);
}

function paintDot(context: CanvasRenderingContext2D, map: Map, dot: Dot, tail: number, colours: Colours): void {
  const lane = map.top + ((map.bottom - map.top) * (dot.lane + 0.5)) / DOT_LANES;
  // A refused request drives to the exit in two thirds of its time, and turns off in the rest.
  const turn = 0.66;
  const off = dot.refused ? Math.max(0, (dot.progress - turn) / (1 - turn)) : 0;
  const along = dot.refused ? Math.min(1, dot.progress / turn) * (map.queue - 38) : dot.progress * tail;
  const y = lane + off * (map.height - lane);
  disc(context, along, y, map.dot, dot.refused ? colours.refused : colours.request);
}

/** Returns where the queue ends, on the left. */
function paintQueue(context: CanvasRenderingContext2D, map: Map, { waiting, colours, words }: Scene): number {
  const step = 3 * map.dot;
  const rows = Math.floor((map.bottom - map.top - 10) / step);
  const columns = Math.floor((map.gate - map.queue - 10) / step);
  const shown = Math.min(waiting, rows * columns);
  for (let index = 0; index < shown; index++) {
    const x = map.gate - 10 - step * Math.floor(index / rows);
    const y = map.top + 9 + step * (index % rows);
    disc(context, x, y, map.dot, colours.request);
  }
  context.fillStyle = colours.ink;
  context.textAlign = "right";
  context.fillText(words.waiting, map.gate + 2, map.top - 12);
  return map.gate - 10 - step * Math.floor(shown / rows);
}

function paintConvoy(context: CanvasRenderingContext2D, map: Map, convoy: Convoy, { colours, words }: Scene): void {
  const wagons = Math.min(convoy.wagons, MOST_WAGONS);
  const size = 3 * map.dot;
  const length = (wagons + 1) * (size + 3);
  const laneHeight = (map.bottom - map.top) / CONVOY_LANES;
  const y = map.top + laneHeight * (convoy.lane + 0.5);
  // It comes out of the gate, and its last wagon leaves on the right.
  const front = map.gate + convoy.progress * (map.width + length - map.gate);
  context.save();
  context.beginPath();
  context.rect(map.gate + 2, 0, map.width, map.height);
  context.clip();
  for (let index = 0; index <= wagons; index++) {
    const x = front - (index + 1) * (size + 3);
    context.fillStyle = index === 0 ? colours.engine : colours.request;
    context.beginPath();
    context.roundRect(x, y - size / 2, size, size, index === 0 ? [2, 6, 6, 2] : 2);
    context.fill();
  }
  if (map.width >= LABELLED_WIDTH) {
    context.fillStyle = colours.ink;
    context.textAlign = "left";
    context.fillText(words.rows(convoy.rows), front - length + 3, y - size / 2 - 5);
  }
  context.restore();
}

function disc(context: CanvasRenderingContext2D, x: number, y: number, radius: number, colour: string): void {
  context.fillStyle = colour;
  context.beginPath();
  context.arc(x, y, radius, 0, 2 * Math.PI);
  context.fill();
}
