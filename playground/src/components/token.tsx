import { useEffect, useRef } from "preact/hooks";

import { setToken, token, tokenAsked, tokenChallenge, tokenRefusal } from "../api/token";
import { text } from "../i18n";

/** Opens the dialog for a token; shown once the server has asked for one. */
export function TokenButton() {
  if (!token.value && !tokenRefusal.value) return null;
  return (
    <button type="button" class="quiet" onClick={() => (tokenAsked.value = true)}>
      {text.value.shell.token.open}
    </button>
  );
}

/** Asks for the token that the server wants, and says in the server's words why. */
export function TokenDialog() {
  const dialog = useRef<HTMLDialogElement>(null);
  const asked = tokenAsked.value;
  useEffect(() => {
    if (asked) dialog.current?.showModal();
    else dialog.current?.close();
  }, [asked]);

  const words = text.value.shell.token;
  return (
    <dialog ref={dialog} aria-labelledby="token-title" onClose={() => (tokenAsked.value = false)}>
      <form
        method="dialog"
        onSubmit={(event) => {
          setToken(String(new FormData(event.currentTarget).get("token") ?? ""));
        }}
      >
        <h2 id="token-title">{words.title}</h2>
        {tokenRefusal.value && (
          <p class="token-refusal" lang="en">
            {tokenRefusal.value}
          </p>
        )}
        {tokenChallenge.value && (
          <p class="hint">
            {words.challenge} <code>{tokenChallenge.value}</code>
          </p>
        )}
        <label>
          {words.label}
          <input name="token" type="password" autocomplete="off" spellcheck={false} value={token.value} />
        </label>
        <p class="hint">{words.kept}</p>
        <div class="buttons">
          {token.value && (
            <button type="button" class="quiet" onClick={() => setToken("")}>
              {words.forget}
            </button>
          )}
          <button type="button" onClick={() => (tokenAsked.value = false)}>
            {words.cancel}
          </button>
          <button type="submit" class="primary">
            {words.use}
          </button>
        </div>
      </form>
    </dialog>
  );
}
