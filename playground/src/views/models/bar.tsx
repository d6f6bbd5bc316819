/** A part of 1 as a bar, beside the figure that says it. */
export function Bar({ part }: { readonly part: number }) {
  return <span class="bar" aria-hidden="true" style={{ width: `${Math.max(1, Math.min(100, part * 100))}%` }} />;
}
