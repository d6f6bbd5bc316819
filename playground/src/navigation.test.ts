import { describe, expect, it } from "vitest";

import { hashOf, placeOf } from "./navigation";

describe("places", () => {
  it("come back from their hash", () => {
    const place = placeOf(hashOf("models", { model: "a model/1" }));

    expect(place.view).toBe("models");
    expect(place.parameters.get("model")).toBe("a model/1");
  });

  it.each(["", "#", "#/", "#/nowhere", "#draws"])("of no view are the first view's: %j", (hash) => {
    expect(placeOf(hash).view).toBe("draw");
  });
});
