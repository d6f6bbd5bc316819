/** How a request to the server fails. */

export type ErrorKind =
  | "unreachable"
  | "unauthenticated"
  | "forbidden"
  | "missing"
  | "overloaded"
  | "unavailable"
  | "late"
  | "invalid"
  | "other";

const KINDS: Readonly<Record<number, ErrorKind>> = {
  0: "unreachable",
  400: "invalid",
  401: "unauthenticated",
  403: "forbidden",
  404: "missing",
  413: "invalid",
  415: "invalid",
  429: "overloaded",
  503: "unavailable",
  504: "late",
};

const PASSING: ReadonlySet<ErrorKind> = new Set(["unreachable", "overloaded", "unavailable", "late"]);

export class ApiError extends Error {
  override readonly name = "ApiError";

  /** `status` 0: there was no answer. `message`: the server's own words. */
  constructor(
    readonly status: number,
    message: string,
    readonly retryAfterSeconds: number | null = null,
  ) {
    super(message);
  }

  get kind(): ErrorKind {
    return KINDS[this.status] ?? "other";
  }

  /** Whether the same request may succeed later. */
  get mayPass(): boolean {
    return PASSING.has(this.kind);
  }
}
