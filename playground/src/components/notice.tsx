import type { ComponentChildren } from "preact";

import { ApiError } from "../api/errors";
import { text } from "../i18n";

interface NoticeProps {
  readonly kind?: "info" | "warning" | "error";
  readonly title: string;
  readonly children?: ComponentChildren;
}

/** Something that a person should know, said politely to screen readers too. */
export function Notice({ kind = "info", title, children }: NoticeProps) {
  return (
    <div class={`notice ${kind}`} role={kind === "error" ? "alert" : "status"}>
      <strong>{title}</strong>
      {children}
    </div>
  );
}

/** What went wrong with a request: what that means in the person's language, then the server's own words. */
export function ErrorNotice({ error }: { readonly error: unknown }) {
  const words = text.value.shell.errors;
  if (!(error instanceof ApiError)) {
    return <Notice kind="error" title={words.other} children={<p>{String(error)}</p>} />;
  }
  const kind = error.mayPass ? "warning" : "error";
  return (
    <Notice kind={kind} title={words[error.kind]}>
      {error.message && <p lang="en">{error.message}</p>}
      {error.retryAfterSeconds !== null && <p>{words.again(error.retryAfterSeconds)}</p>}
    </Notice>
  );
}
