/** What a component asks the server for; asked again when its question, the token or the time changes. */

import { useEffect, useState } from "preact/hooks";

import { ApiError } from "../api/errors";
import { token } from "../api/token";

export interface Asked<T> {
  /** The latest answer to this question; it stays while the question is asked again. */
  readonly value?: T;
  /** Why the latest request failed. */
  readonly error?: unknown;
}

export interface Asking {
  /** Milliseconds from an answer to the next request; without it, once. Never while the page is hidden. */
  readonly everyMs?: number;
  /** Another number asks the same question again, at once. */
  readonly again?: number;
}

/** `question`: identifies what is asked; another one forgets the answer. `null` asks nothing. */
export function useAsked<T>(
  question: string | null,
  ask: (signal: AbortSignal) => Promise<T>,
  { everyMs, again }: Asking = {},
): Asked<T> {
  const [answer, setAnswer] = useState<Asked<T> & { readonly question: string | null }>({ question: null });
  const shown = token.value;

  useEffect(() => {
    if (question === null) return;
    const abort = new AbortController();
    let timer: ReturnType<typeof setTimeout> | undefined;

    const run = async (): Promise<void> => {
      timer = undefined;
      try {
        const value = await ask(abort.signal);
        if (abort.signal.aborted) return;
        setAnswer({ question, value });
      } catch (error) {
        if (abort.signal.aborted) return;
        setAnswer((before) => ({ question, error, ...(before.question === question && keep(before)) }));
        // Whoever is refused for want of a token is refused again, until there is another one.
        if (error instanceof ApiError && !error.mayPass) return;
      }
      if (everyMs !== undefined && !document.hidden) timer = setTimeout(run, everyMs);
    };

    const onVisible = (): void => {
      if (!document.hidden && timer === undefined && everyMs !== undefined) void run();
    };
    document.addEventListener("visibilitychange", onVisible);
    void run();
    return () => {
      abort.abort();
      clearTimeout(timer);
      document.removeEventListener("visibilitychange", onVisible);
    };
  }, [question, shown, everyMs, again]);

  return answer.question === question ? answer : {};
}

function keep<T>({ value }: Asked<T>): Asked<T> {
  return value === undefined ? {} : { value };
}
