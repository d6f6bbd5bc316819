import { expect, it } from "vitest";

import { Latest } from "./latest";

/** Work that ends when the test says so. */
function workshop() {
  const begun: number[] = [];
  const ends: (() => void)[] = [];
  const latest = new Latest<number>((job) => {
    begun.push(job);
    return new Promise((resolve) => ends.push(resolve));
  });
  const finish = async () => {
    ends.shift()?.();
    await Promise.resolve();
    await Promise.resolve();
  };
  return { begun, latest, finish };
}

it("does one job at a time, and the newest next", async () => {
  const { begun, latest, finish } = workshop();

  for (const job of [1, 2, 3]) latest.submit(job);
  expect(begun).toEqual([1]);
  await finish();
  expect(begun).toEqual([1, 3]);
  await finish();
  latest.submit(4);
  expect(begun).toEqual([1, 3, 4]);
});

it("forgets what waits", async () => {
  const { begun, latest, finish } = workshop();

  latest.submit(1);
  latest.submit(2);
  latest.clear();
  await finish();

  expect(begun).toEqual([1]);
});
