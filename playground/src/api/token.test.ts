import { beforeEach, expect, it, vi } from "vitest";

import { setToken, token, tokenAsked, tokenChallenge, tokenRefusal, tokenRefused } from "./token";

beforeEach(() => {
  token.value = "mine";
  tokenRefusal.value = "";
  tokenAsked.value = false;
});

it("is asked for once for each that is wrong", () => {
  tokenRefused("mine", "no", false, "Bearer");
  expect(tokenAsked.value).toBe(true);
  tokenAsked.value = false;
  tokenRefused("mine", "no", false, "Bearer");
  expect(tokenAsked.value).toBe(false);
});

it("is only offered where the caller may not do this", () => {
  tokenRefused("mine", "you may not", true, "Bearer");

  expect(tokenAsked.value).toBe(false);
  expect(tokenRefusal.value).toBe("you may not");
});

it("that has been changed meanwhile is not held against the new one", () => {
  tokenRefused("old", "no", false, "Bearer");

  expect([tokenAsked.value, tokenRefusal.value]).toEqual([false, ""]);
});

it("is forgotten with what was said of it", () => {
  const kept = new Map([["convoy-token", "mine"]]);
  vi.stubGlobal("sessionStorage", { removeItem: (key: string) => kept.delete(key) });
  tokenRefused("mine", "no", false, "Bearer");
  expect(tokenChallenge.value).toBe("Bearer");
  setToken("");
  vi.unstubAllGlobals();

  expect([token.value, tokenRefusal.value, tokenChallenge.value, kept.size]).toEqual(["", "", "", 0]);
});
