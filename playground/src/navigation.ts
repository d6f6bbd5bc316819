/** Which view is shown: the hash of the page's address, `#/VIEW` or `#/VIEW?model=NAME`. */

import { signal } from "@preact/signals";

export const VIEWS = ["draw", "layers", "convolution", "convoy", "models"] as const;

export type View = (typeof VIEWS)[number];

export interface Place {
  readonly view: View;
  readonly parameters: URLSearchParams;
}

/** The place that a hash names; the first view where it names none. */
export function placeOf(hash: string): Place {
  const [path = "", query = ""] = hash.replace(/^#\/?/, "").split("?", 2);
  const view = VIEWS.find((each) => each === path) ?? VIEWS[0];
  return { view, parameters: new URLSearchParams(query) };
}

/** The hash of a place. */
export function hashOf(view: View, parameters: Readonly<Record<string, string>> = {}): string {
  const query = new URLSearchParams(parameters).toString();
  return query ? `#/${view}?${query}` : `#/${view}`;
}

/** Where the page is; follows the address from `followAddress` on. */
export const place = signal<Place>({ view: VIEWS[0], parameters: new URLSearchParams() });

export function followAddress(): void {
  const follow = (): void => {
    place.value = placeOf(location.hash);
  };
  addEventListener("hashchange", follow);
  follow();
}
