/** What the sections of a model are made of. */

import type { ComponentChildren } from "preact";

/** A part of 1 as a bar, beside the figure that says it. */
export function Bar({ part }: { readonly part: number }) {
  return <span class="part-bar" aria-hidden="true" style={{ width: `${Math.max(1, Math.min(100, part * 100))}%` }} />;
}

interface ScrollsProps {
  readonly label: string;
  readonly children: ComponentChildren;
}

/** What may be wider than the page: it scrolls, by keyboard too. */
export function Scrolls({ label, children }: ScrollsProps) {
  return (
    <div class="scrolls" role="group" aria-label={label} tabIndex={0}>
      {children}
    </div>
  );
}
