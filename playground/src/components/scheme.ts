/** Whether the system is set to dark colours: for what no style sheet paints. */

import { signal } from "@preact/signals";

const query = typeof matchMedia === "undefined" ? null : matchMedia("(prefers-color-scheme: dark)");

export const dark = signal(query?.matches ?? false);

query?.addEventListener("change", ({ matches }) => (dark.value = matches));
