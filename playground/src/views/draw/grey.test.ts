import { describe, expect, it } from "vitest";

import { greyOf, inkBox, inked, shrunk, type Grey } from "./grey";

/** A picture of rows of digits, each a ninth of white. */
function picture(...rows: string[]): Grey {
  const data = Uint8ClampedArray.from(rows.join(""), (digit) => (Number(digit) / 9) * 255);
  return { width: rows[0]?.length ?? 0, height: rows.length, data };
}

describe("grey", () => {
  it("weighs the colours, and shows white through", () => {
    const rgba = new Uint8ClampedArray([255, 0, 0, 255, 0, 255, 0, 255, 0, 0, 255, 255, 0, 0, 0, 0]);

    expect([...greyOf(rgba, 4, 1).data]).toEqual([76, 150, 29, 255]);
  });
});

describe("ink", () => {
  it("is black on white, however faint it was", () => {
    expect([...inked(picture("888", "848", "888"))!.data]).toEqual([255, 255, 255, 255, 0, 255, 255, 255, 255]);
  });

  it("is black on white, too, where it was chalk", () => {
    expect([...inked(picture("000", "090", "000"))!.data]).toEqual([255, 255, 255, 255, 0, 255, 255, 255, 255]);
  });

  it("is not there on an empty page", () => {
    expect(inked(picture("999", "999"))).toBeNull();
  });

  it("has a box around it, without what is only a shade", () => {
    const box = inkBox(picture("99999", "99099", "99008", "99999"));

    expect(box).toEqual({ left: 2 / 5, top: 1 / 4, right: 4 / 5, bottom: 3 / 4 });
  });
});

describe("a smaller picture", () => {
  it("has the means of the larger one", () => {
    expect([...shrunk(picture("0099", "0099", "9909", "9999"), 2, 2, 2).data]).toEqual([0, 255, 255, 191]);
  });
});
