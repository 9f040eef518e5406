/**
 * The one error class of the project, and the closed set of kinds that decides behaviour.
 *
 * Packages declare their codes once, with a kind and guidance, in their own `errors.ts` through {@link declareCodes}; HTTP status,
 * exit code and retry derive from the kind, in one table each. Match on `code`, never on `instanceof`, across threads and processes.
 */

/** What a failure means for whoever must react. Only `unavailable` is retried; `corrupt` is never retried, swallowed or downgraded. */
export type FailureKind =
  | "invalid"
  | "notFound"
  | "conflict"
  | "denied"
  | "unavailable"
  | "exhausted"
  | "cancelled"
  | "corrupt"
  | "unsupported"
  | "bug";

/** Facts about a failure: JSON-safe, no secrets. */
export type FailureDetails = Readonly<Record<string, string | number | boolean | null | readonly string[]>>;

/** One entry of an error catalogue. */
export interface CodeEntry {
  readonly kind: FailureKind;
  /** What the reader can do about it, one or two sentences. */
  readonly guidance: string;
}

const registry = new Map<string, CodeEntry>();

/**
 * Declares a package's error codes. Call once per package, at module load.
 *
 * @returns the same table, typed, so that its keys can be used as the code type
 * @throws TypeError when a code is declared twice, by whomever
 */
export function declareCodes<const T extends Record<string, CodeEntry>>(codes: T): T {
  for (const [code, entry] of Object.entries(codes)) {
    if (registry.has(code)) throw new TypeError(`Cannot declare the error code ${code}: it is declared already`);
    registry.set(code, entry);
  }
  return codes;
}

/** Every declared code with its kind and guidance, in declaration order. */
export function listCodes(): ReadonlyMap<string, CodeEntry> {
  return registry;
}

/** The codes that belong to no package in particular. */
export const baseCodes: Record<"Cancelled" | "Bug" | "InvalidArgument", CodeEntry> = declareCodes({
  Cancelled: { kind: "cancelled", guidance: "The work was stopped on request. Run the same command again to go on." },
  Bug: { kind: "bug", guidance: "This should not happen. Report it with the message and the details." },
  InvalidArgument: { kind: "invalid", guidance: "Correct the argument named in the message; --help shows what is accepted." },
});

/** How a failure is carried across a thread or a process. */
export interface FailureRecord {
  readonly code: string;
  readonly message: string;
  readonly details: FailureDetails;
  readonly cause?: string;
}

/** An error with a stable code, a kind, and facts. The message says what was tried, on what, what was found and what is needed. */
export class Failure extends Error {
  readonly code: string;
  readonly kind: FailureKind;
  readonly details: FailureDetails;

  constructor(code: string, message: string, more: { details?: FailureDetails; cause?: unknown } = {}) {
    super(message, more.cause === undefined ? undefined : { cause: more.cause });
    this.name = "Failure";
    this.code = code;
    this.kind = registry.get(code)?.kind ?? "bug";
    this.details = more.details ?? {};
  }

  /** What to do about it, from the catalogue. */
  get guidance(): string {
    return registry.get(this.code)?.guidance ?? "";
  }
}

/** Whether `error` is a failure with this code (or any failure when no code is given), also when it came from another thread. */
export function isFailure(error: unknown, code?: string): error is Failure {
  return error instanceof Error && "code" in error && "kind" in error && "details" in error && (code === undefined || error.code === code);
}

/** The message of anything thrown. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** Turns anything thrown into a `Failure`; what is not one already becomes a `Bug` with the original as its cause. */
export function toFailure(error: unknown): Failure {
  return isFailure(error) ? error : new Failure("Bug", `Unexpected error: ${messageOf(error)}`, { cause: error });
}

/** Adds facts to a failure on its way up; code, kind and message stay. */
export function withContext(error: unknown, details: FailureDetails): Failure {
  const failure = toFailure(error);
  const more = new Failure(failure.code, failure.message, { details: { ...details, ...failure.details }, cause: failure.cause ?? failure });
  if (failure.stack !== undefined) more.stack = failure.stack;
  return more;
}

/** Packs a failure for a message to another thread or process. */
export function encodeFailure(error: unknown): FailureRecord {
  const failure = toFailure(error);
  const cause = failure.cause === undefined ? {} : { cause: messageOf(failure.cause) };
  return { code: failure.code, message: failure.message, details: failure.details, ...cause };
}

/** Unpacks what {@link encodeFailure} packed. */
export function decodeFailure(record: FailureRecord): Failure {
  const cause = record.cause === undefined ? {} : { cause: new Error(record.cause) };
  return new Failure(record.code, record.message, { details: record.details, ...cause });
}
