import type { ComponentChildren } from "preact";

interface ViewHeadProps {
  readonly title: string;
  readonly lead: string;
  readonly children?: ComponentChildren;
}

/** What a view is about, above all that it shows. */
export function ViewHead({ title, lead, children }: ViewHeadProps) {
  return (
    <header class="view-head">
      <h1>{title}</h1>
      <p>{lead}</p>
      {children}
    </header>
  );
}
