import { beforeEach, expect, it } from "vitest";

import { token, tokenAsked, tokenRefusal, tokenRefused } from "./token";

beforeEach(() => {
  token.value = "mine";
  tokenRefusal.value = "";
  tokenAsked.value = false;
});

it("is asked for once for each that is wrong", () => {
  tokenRefused("mine", "no", false);
  expect(tokenAsked.value).toBe(true);
  tokenAsked.value = false;
  tokenRefused("mine", "no", false);
  expect(tokenAsked.value).toBe(false);
});

it("is only offered where the caller may not do this", () => {
  tokenRefused("mine", "you may not", true);

  expect(tokenAsked.value).toBe(false);
  expect(tokenRefusal.value).toBe("you may not");
});

it("that has been changed meanwhile is not held against the new one", () => {
  tokenRefused("old", "no", false);

  expect([tokenAsked.value, tokenRefusal.value]).toEqual([false, ""]);
});
