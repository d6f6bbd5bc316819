/** What moves on the road: requests that arrive or turn off, and convoys that leave. Pure: time is an argument. */

/** A request on its way. `progress` is from 0 to 1. */
export interface Dot {
  readonly progress: number;
  readonly lane: number;
  /** It will turn off before the queue. */
  readonly refused: boolean;
}

/** A batch on its way. */
export interface Convoy {
  readonly progress: number;
  readonly lane: number;
  /** Requests. */
  readonly wagons: number;
  readonly rows: number;
}

export interface Traffic {
  readonly dots: readonly Dot[];
  readonly convoys: readonly Convoy[];
  /** Parts of a request that have arrived, of one that is refused, and seconds since a convoy left. */
  readonly arrivalsOwed: number;
  readonly refusalsOwed: number;
  readonly sinceConvoy: number;
  readonly lanesUsed: number;
}

export interface Flow {
  /** Requests per second that arrive, and the part of them that is refused. */
  readonly arrivals: number;
  readonly refusedShare: number;
}

export interface Departure {
  readonly requests: number;
  readonly rows: number;
}

export const EMPTY: Traffic = {
  dots: [],
  convoys: [],
  arrivalsOwed: 0,
  refusalsOwed: 0,
  sinceConvoy: 0,
  lanesUsed: 0,
};

export const DOT_LANES = 5;
export const CONVOY_LANES = 3;
/** More cannot be followed by eye. */
const MOST_ARRIVALS = 30;
export const MOST_WAGONS = 16;
/** A convoy keeps so long behind the one before it, and longer behind a long one. */
const LEAST_GAP_SECONDS = 0.16;
const WAGON_SECONDS = 0.02;
const DOT_SECONDS = 1.1;
const CONVOY_SECONDS = 2.2;

function gapSeconds(wagons: number): number {
  return Math.max(LEAST_GAP_SECONDS, WAGON_SECONDS * (1 + Math.min(wagons, MOST_WAGONS)));
}

/** How many of these batches, seen in so many seconds, there are for each that is shown: 1 shows all. */
export function shownOneIn(batches: readonly Departure[], seconds: number): number {
  const gaps = batches.reduce((sum, { requests }) => sum + gapSeconds(requests), 0);
  return Math.max(1, Math.round(gaps / seconds));
}

/** The same a moment later. `departures` are the batches that may leave now: one of them does if there is room. */
export function advance(traffic: Traffic, seconds: number, flow: Flow, departures: readonly Departure[]): Traffic {
  const dots = traffic.dots
    .map((dot) => ({ ...dot, progress: dot.progress + seconds / DOT_SECONDS }))
    .filter(({ progress }) => progress < 1);
  let arrivalsOwed = traffic.arrivalsOwed + Math.min(flow.arrivals, MOST_ARRIVALS) * seconds;
  let { refusalsOwed, lanesUsed, sinceConvoy } = traffic;
  for (; arrivalsOwed >= 1; arrivalsOwed--) {
    refusalsOwed += flow.refusedShare;
    const refused = refusalsOwed >= 1;
    if (refused) refusalsOwed--;
    lanesUsed++;
    // Lanes in an order that looks like none.
    dots.push({ progress: 0, lane: (lanesUsed * 3) % DOT_LANES, refused });
  }
  const convoys = traffic.convoys
    .map((convoy) => ({ ...convoy, progress: convoy.progress + seconds / CONVOY_SECONDS }))
    .filter(({ progress }) => progress < 1);
  sinceConvoy += seconds;
  const last = departures.at(-1);
  const ahead = traffic.convoys.at(-1);
  if (last && sinceConvoy >= gapSeconds(ahead?.wagons ?? 0)) {
    const lane = ((ahead?.lane ?? -1) + 1) % CONVOY_LANES;
    convoys.push({ progress: 0, lane, wagons: last.requests, rows: last.rows });
    sinceConvoy = 0;
  }
  return { dots, convoys, arrivalsOwed, refusalsOwed, sinceConvoy, lanesUsed };
}

/** A picture for those who want no motion: the last batches, one behind the other, and nothing on the way. */
export function still(departures: readonly Departure[]): Traffic {
  const last = departures.slice(-CONVOY_LANES);
  const convoys = last.map(({ requests, rows }, lane) => ({ progress: 0.3, lane, wagons: requests, rows }));
  return { ...EMPTY, convoys };
}
