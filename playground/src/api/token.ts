/** The token that callers show where an operator's policy wants one. It is kept until the tab is closed. */

import { signal } from "@preact/signals";

const KEY = "convoy-token";

export const token = signal(stored());

/** In the server's words, why it wants a token, or another one; "" while it does not. */
export const tokenRefusal = signal("");

/** What it said it wants to see (`WWW-Authenticate`); "" where it said nothing of the kind. */
export const tokenChallenge = signal("");

/** Whether the dialog is open. */
export const tokenAsked = signal(false);

export function setToken(value: string): void {
  token.value = value.trim();
  tokenRefusal.value = "";
  tokenChallenge.value = "";
  tokenAsked.value = false;
  if (token.value) sessionStorage.setItem(KEY, token.value);
  else sessionStorage.removeItem(KEY);
}

/**
 * The server turned a request away that carried `sent` as its token. Asks for another one, once for each that is wrong;
 * where the caller is known, or may be anybody, but may not do this (`forbidden`), another token is only offered.
 */
export function tokenRefused(sent: string, message: string, forbidden: boolean, challenge: string): void {
  if (sent !== token.value) return;
  if (!tokenRefusal.value && !forbidden) tokenAsked.value = true;
  tokenRefusal.value = message;
  tokenChallenge.value = challenge;
}

function stored(): string {
  return typeof sessionStorage === "undefined" ? "" : (sessionStorage.getItem(KEY) ?? "");
}
