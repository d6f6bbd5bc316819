import { describe, expect, it } from "vitest";

import { countsOf, firstToShow, modelsOf, readyVersions } from "./repository";

describe("the index", () => {
  it("is grouped by models, newest versions first", () => {
    const models = modelsOf([
      { name: "b", version: "2", state: "READY" },
      { name: "b", version: "10", state: "UNAVAILABLE", reason: "no file" },
      { name: "a", version: "1", state: "LOADING" },
    ]);

    expect(models.map(({ name, state }) => [name, state])).toEqual([
      ["b", "READY"],
      ["a", "LOADING"],
    ]);
    expect(models[0]!.versions.map(({ version }) => version)).toEqual(["10", "2"]);
    expect(readyVersions(models[0]!)).toEqual(["2"]);
  });

  it.each([
    [[{ name: "m" }], "ABSENT"],
    [[{ name: "m", version: "1", state: "UNAVAILABLE", reason: "unloaded" }], "ABSENT"],
    [[{ name: "m", state: "UNAVAILABLE", reason: "is in two repositories" }], "UNAVAILABLE"],
    [[{ name: "m", version: "1", state: "UNAVAILABLE", reason: "no file" }], "UNAVAILABLE"],
    [
      [
        { name: "m", version: "1", state: "READY" },
        { name: "m", version: "2", state: "LOADING" },
      ],
      "LOADING",
    ],
  ] as const)("%j is a model that is %s", (lines, state) => {
    expect(modelsOf(lines).map((model) => model.state)).toEqual([state]);
  });

  it("begins with a model that serves, where there is one", () => {
    const models = modelsOf([{ name: "a" }, { name: "b", version: "1", state: "READY" }]);

    expect(firstToShow(models)?.name).toBe("b");
    expect(firstToShow(models.slice(0, 1))?.name).toBe("a");
    expect(firstToShow([])).toBeUndefined();
  });

  it("is counted by states", () => {
    const models = modelsOf([{ name: "a" }, { name: "b" }, { name: "c", version: "1", state: "READY" }]);

    expect([...countsOf(models)]).toEqual([
      ["ABSENT", 2],
      ["READY", 1],
    ]);
  });
});
