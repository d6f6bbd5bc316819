import { afterEach, beforeEach, expect, it, vi } from "vitest";

import { index, isPending, look, order, orders } from "./control";

/** Requests that wait until the test answers them. */
let waiting: { readonly path: string; readonly answer: (body: unknown, status?: number) => void }[];

beforeEach(() => {
  waiting = [];
  vi.stubGlobal("fetch", (path: string) => {
    return new Promise<Response>((resolve) => {
      const answer = (body: unknown, status = 200): void => resolve(new Response(JSON.stringify(body), { status }));
      waiting.push({ path, answer });
    });
  });
});

afterEach(() => vi.unstubAllGlobals());

it("an index that was asked for earlier does not replace a later one", async () => {
  const looks = [look(), look()];
  waiting[1]!.answer([{ name: "new" }]);
  await looks[1];
  waiting[0]!.answer([{ name: "old" }]);
  await looks[0];

  expect(index.value).toEqual([{ name: "new" }]);
});

it("an order is pending until the index shows what has become of it", async () => {
  const done = order("m", "unload");
  expect(waiting[0]!.path).toBe("/v2/repository/models/m/unload");
  waiting[0]!.answer(null);
  await vi.waitFor(() => expect(waiting).toHaveLength(2));
  expect([isPending("m"), isPending("m", "unload"), isPending("m", "load")]).toEqual([true, true, false]);
  waiting[1]!.answer([{ name: "m", version: "1", state: "UNAVAILABLE", reason: "unloaded" }]);
  await done;

  expect(index.value?.[0]?.state).toBe("UNAVAILABLE");
  expect(orders.value.get("m")?.state).toBe("done");
});

it("an order that is refused says why", async () => {
  const done = order("m", "load");
  waiting[0]!.answer({ error: "it has no file" }, 400);
  await done;

  expect(orders.value.get("m")).toMatchObject({ state: "failed", error: { kind: "invalid", message: "it has no file" } });
});
