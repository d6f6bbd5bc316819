import { text } from "../../i18n";
import type { State } from "./repository";

/** The state of a model or a version, in words and colour. */
export function StateBadge({ state }: { readonly state: State }) {
  return <span class={`state state-${state.toLowerCase()}`}>{text.value.models.states[state]}</span>;
}
