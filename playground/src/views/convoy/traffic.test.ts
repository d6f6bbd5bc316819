import { describe, expect, it } from "vitest";

import { advance, EMPTY, shownOneIn, still, type Traffic } from "./traffic";

const STEP = 1 / 64;
const NO_FLOW = { arrivals: 0, refusedShare: 0 };

function during(seconds: number, flow: { arrivals: number; refusedShare: number }, from: Traffic = EMPTY): Traffic {
  let traffic = from;
  for (let passed = 0; passed < seconds; passed += STEP) traffic = advance(traffic, STEP, flow, []);
  return traffic;
}

describe("requests", () => {
  it("come at their rate, and are gone when they have arrived", () => {
    const traffic = during(1, { arrivals: 8, refusedShare: 0 });

    expect(traffic.dots).toHaveLength(8);
    expect(during(2, NO_FLOW, traffic).dots).toEqual([]);
  });

  it("turn off in proportion to the refusals", () => {
    const traffic = during(1, { arrivals: 16, refusedShare: 0.25 });

    expect(traffic.dots.filter(({ refused }) => refused)).toHaveLength(4);
  });

  it("are no more than can be followed", () => {
    expect(during(10, { arrivals: 5000, refusedShare: 0 }).dots.length).toBeLessThan(40);
  });
});

describe("convoys", () => {
  it("leave with as many wagons as the last batch has requests", () => {
    const { convoys } = advance(EMPTY, 1, NO_FLOW, [
      { requests: 1, rows: 32 },
      { requests: 4, rows: 128 },
    ]);

    expect(convoys).toEqual([{ progress: 0, lane: 0, wagons: 4, rows: 128 }]);
  });

  it("keep a distance, and take the lanes in turn", () => {
    const batch = [{ requests: 1, rows: 1 }];
    const first = advance(EMPTY, 1, NO_FLOW, batch);
    const tooSoon = advance(first, STEP, NO_FLOW, batch);
    const second = advance(tooSoon, 0.2, NO_FLOW, batch);

    expect(tooSoon.convoys).toHaveLength(1);
    expect(second.convoys.map(({ lane }) => lane)).toEqual([0, 1]);
  });

  it("keep a longer distance behind a long one", () => {
    const long = advance(EMPTY, 1, NO_FLOW, [{ requests: 16, rows: 16 }]);

    expect(advance(long, 0.3, NO_FLOW, [{ requests: 1, rows: 1 }]).convoys).toHaveLength(1);
    expect(advance(long, 0.4, NO_FLOW, [{ requests: 1, rows: 1 }]).convoys).toHaveLength(2);
  });

  it.each([
    [6, 1, 1],
    [150, 1, 8],
    [150, 16, 17],
  ])("of %i batches in 3 seconds, of %i requests, one in %i is shown", (count, requests, oneIn) => {
    const batches = Array.from({ length: count }, () => ({ requests, rows: requests }));
    expect(shownOneIn(batches, 3)).toBe(oneIn);
  });
});

it("a still picture has the last batches", () => {
  const batches = [1, 2, 3, 4].map((requests) => ({ requests, rows: requests }));

  expect(still(batches).convoys.map(({ wagons, lane }) => [wagons, lane])).toEqual([[2, 0], [3, 1], [4, 2]]);
});
