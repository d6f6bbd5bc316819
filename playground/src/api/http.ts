/** Requests to the server that served this page. Every failure is an `ApiError`, except that of an aborted request. */

import { ApiError } from "./errors";
import { token, tokenRefused } from "./token";

export interface Options {
  readonly method?: "GET" | "POST" | "DELETE";
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: BodyInit;
  readonly signal?: AbortSignal;
  /** Whether the request outlives the page. */
  readonly keepalive?: boolean;
}

/** An answer of status 200 to 299. `path` begins with a slash. Raises `ApiError`. */
export async function ask(path: string, options: Options = {}): Promise<Response> {
  const sent = token.value;
  const headers = new Headers(options.headers);
  if (sent) headers.set("Authorization", `Bearer ${sent}`);
  let response: Response;
  try {
    response = await fetch(path, { ...options, headers, cache: "no-store" });
  } catch (error) {
    if (options.signal?.aborted) throw error;
    throw new ApiError(0, "");
  }
  if (response.ok) return response;
  const error = new ApiError(response.status, await messageOf(response), retryAfterOf(response));
  const forbidden = error.kind === "forbidden";
  if (forbidden || error.kind === "unauthenticated") {
    tokenRefused(sent, error.message, forbidden, response.headers.get("WWW-Authenticate") ?? "");
  }
  throw error;
}

/** The JSON of an answer; `null` where it has no body. */
export async function askJson<T>(path: string, options: Options = {}): Promise<T> {
  const body = await (await ask(path, options)).text();
  return (body ? JSON.parse(body) : null) as T;
}

export function postJson<T>(path: string, value: unknown, options: Options = {}): Promise<T> {
  return askJson<T>(path, { ...options, method: "POST", body: JSON.stringify(value) });
}

/** A name as a part of a path. */
export const part = encodeURIComponent;

async function messageOf(response: Response): Promise<string> {
  const body = await response.text();
  try {
    const { error } = JSON.parse(body) as { error?: unknown };
    return typeof error === "string" ? error : body;
  } catch {
    return body;
  }
}

function retryAfterOf(response: Response): number | null {
  const seconds = Number(response.headers.get("Retry-After") ?? Number.NaN);
  return Number.isFinite(seconds) ? seconds : null;
}
