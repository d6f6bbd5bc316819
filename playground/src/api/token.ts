/** The token that callers show where an operator's policy wants one. It is kept until the tab is closed. */

import { signal } from "@preact/signals";

const KEY = "convoy-token";

export const token = signal(stored());

/** In the server's words, why it wants a token, or another one; "" while it does not. */
export const tokenRefusal = signal("");

/** Whether the dialog is open. */
export const tokenAsked = signal(false);

export function setToken(value: string): void {
  token.value = value.trim();
  tokenRefusal.value = "";
  tokenAsked.value = false;
  sessionStorage.setItem(KEY, token.value);
}

/** The server turned a request away that carried `sent` as its token. Asks once for each token that is refused. */
export function tokenRefused(sent: string, message: string): void {
  if (sent !== token.value) return;
  if (!tokenRefusal.value) tokenAsked.value = true;
  tokenRefusal.value = message;
}

function stored(): string {
  return typeof sessionStorage === "undefined" ? "" : (sessionStorage.getItem(KEY) ?? "");
}
