import { describe, expect, it } from "vitest";

import { languageOf } from ".";

describe("the language", () => {
  it.each([
    [["pt-BR", "en"], "pt"],
    [["de", "PT"], "pt"],
    [["de-CH", "en-GB", "pt"], "en"],
    [["de"], "en"],
    [[], "en"],
  ])("for a browser that asks for %j is %s", (wanted, expected) => {
    expect(languageOf(wanted)).toBe(expected);
  });
});
