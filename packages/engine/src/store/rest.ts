/**
 * A repository on a REST server (restic's REST protocol, version 2, and version 1 lists): rest-server, `rclone serve restic`, our vault.
 *
 * Whatever is unavailable is tried again, with growing waits, for about three minutes; only for seconds while the server has never
 * answered, so that a mistyped address is noticed. An upload whose answer was lost may have arrived: before it is sent again, and when
 * the server says that the name is taken, what the server has is compared with what we have, in full, and equality is success.
 *
 * Config is looked for before it is sent, since some servers replace files. Other names are hashes of contents, so that a server that
 * replaces a file replaces it by the same, or heals it.
 */

import { throwIfCancelled } from "@granary/base/cancel";
import { Failure, isFailure } from "@granary/base/errors";
import { mapOrdered } from "@granary/base/map-ordered";
import { type RetryOptions, retry } from "@granary/base/retry";
import { Secret } from "@granary/base/secret";
import { checkRef, describeRef, folderOf } from "./layout.ts";
import {
  RestConnection,
  type RestAnswer,
  type RestConnectionOptions,
  type RestRequest,
  connectionCount,
  parseLength,
} from "./rest-connection.ts";
import { isRestList, parseRestList } from "./rest-list.ts";
import type { FileEntry, FileKind, FileRef, Span, Store } from "./store.ts";

/** How a REST store is reached. */
export interface RestStoreOptions extends RestConnectionOptions {
  /** 12 attempts with waits of at most 0.5 s to 30 s when absent. */
  readonly retry?: Pick<RetryOptions, "attempts" | "baseMs" | "capMs" | "random" | "onRetry">;
}

/**
 * A store on a REST server. Connects when it is used.
 *
 * @param location `rest:http://host:port/path/` or `rest:https://…`, with or without `user:password@`, which comes before `credentials`
 * @throws StoreInvalid
 */
export function openRestStore(location: string, options: RestStoreOptions = {}): Store {
  const { url, user, password } = parseLocation(location);
  const credentials = user === "" ? options.credentials : { user, password: new Secret(password) };
  return new RestStore(url, { ...options, ...(credentials && { credentials }) });
}

/** Sent with every call but create; the server then lists sizes. */
const acceptV2 = { accept: "application/vnd.x.restic.rest.v2" };
/** While the server has never answered: it is probably not there. */
const firstAttempts = 4;
const comparedBytes = 4 << 20;
/**
 * How often an upload waits for a server to clear away what it got of one that broke off (rclone shows it meanwhile, and would take the
 * new file for the old one's rest). After that it is taken for a leftover, which some servers let us replace.
 */
const patientAttempts = 4;
/** Larger uploads ask first when they are tried again. */
const unaskedBytes = 64 << 10;
/** Files have 32-bit lengths inside; nothing is longer. */
const maxFileBytes = 2 ** 32;
/** Eleven million files; a list is kept as it came until it is complete, so that it can be asked for again when it breaks off. */
const maxListBytes = 2 ** 30;

class RestStore implements Store {
  readonly location: string;
  readonly concurrency = connectionCount;
  readonly settleMs = 200; // what restic grants any store
  readonly #connection: RestConnection;
  readonly #options: RestStoreOptions;
  readonly #closing = new AbortController();

  constructor(url: URL, options: RestStoreOptions) {
    this.location = `rest:${url.href}`;
    this.#connection = new RestConnection(url, options);
    this.#options = options;
  }

  async create(): Promise<void> {
    await this.#retry(undefined, async (_, signal) => {
      const answer = await this.#connection.send({ method: "POST", path: "?create=true", purpose: "create the repository", signal });
      if (answer.status !== 200) throw this.#refused(answer, "create the repository");
    });
  }

  async save(ref: FileRef, data: Uint8Array, signal?: AbortSignal): Promise<void> {
    checkRef(ref);
    await this.#retry(signal, (attempt, either) => this.#saveOnce(ref, data, { attempt, signal: either }));
  }

  async load(ref: FileRef, span: Span = { offsetBytes: 0 }, signal?: AbortSignal): Promise<Uint8Array> {
    checkRef(ref);
    return this.#retry(signal, (_, either) => this.#loadOnce(ref, span, either));
  }

  async stat(ref: FileRef, signal?: AbortSignal): Promise<FileEntry> {
    checkRef(ref);
    return this.#retry(signal, (_, either) => this.#statOnce(ref, either));
  }

  async *list(kind: FileKind, signal?: AbortSignal): AsyncGenerator<FileEntry> {
    if (kind === "config") {
      const entry = await this.#statIfAny({ kind, name: "" }, signal);
      if (entry !== undefined) yield entry;
      return;
    }
    const bytes = await this.#retry(signal, (_, either) => this.#fetchList(kind, either));
    const sized = mapOrdered(parseRestList(bytes), { limit: this.concurrency, ...(signal && { signal }) }, ({ name, sizeBytes }, stop) =>
      sizeBytes === undefined ? this.#statIfAny({ kind, name }, stop) : { name, sizeBytes },
    );
    for await (const entry of sized) if (entry !== undefined) yield entry;
  }

  async remove(ref: FileRef, signal?: AbortSignal): Promise<void> {
    checkRef(ref);
    await this.#retry(signal, async (_, either) => {
      const answer = await this.#send("DELETE", ref, { purpose: `remove ${describeRef(ref)}`, signal: either });
      if (answer.status !== 200 && answer.status !== 404) throw this.#refused(answer, `remove ${describeRef(ref)}`, ref);
    });
  }

  async close(): Promise<void> {
    this.#closing.abort(new Failure("StoreUnavailable", `The connection to ${this.location} was closed`));
    this.#connection.close();
  }

  async #saveOnce(ref: FileRef, data: Uint8Array, { attempt, signal }: { attempt: number; signal: AbortSignal }): Promise<void> {
    const purpose = `save ${describeRef(ref)}`;
    if (ref.kind === "config" || attempt > 1) {
      const found = await this.#compare(ref, data, signal);
      if (found === "same") return;
      if (found === "shorter" && attempt > 1 && attempt <= patientAttempts) throw this.#unfinished(ref);
      if (found !== "absent" && ref.kind === "config") throw this.#exists(ref);
    }
    const answer = await this.#send("POST", ref, {
      purpose,
      headers: { ...acceptV2, "content-type": "application/octet-stream" },
      body: data,
      asksFirst: attempt > 1 && data.length > unaskedBytes,
      signal,
    });
    if (answer.status === 200) return;
    if (answer.status !== 403) throw this.#refused(answer, purpose, ref);
    // Either the name is taken, or we may not write here at all.
    const found = await this.#compare(ref, data, signal);
    if (found === "absent") throw this.#refused(answer, purpose, ref);
    if (found === "shorter" && attempt > 1) throw this.#unfinished(ref);
    if (found !== "same") throw this.#exists(ref);
  }

  async #compare(ref: FileRef, data: Uint8Array, signal: AbortSignal): Promise<"absent" | "same" | "shorter" | "other"> {
    try {
      const { sizeBytes } = await this.#statOnce(ref, signal);
      if (sizeBytes !== data.length) return sizeBytes < data.length ? "shorter" : "other";
      for (let offsetBytes = 0; offsetBytes < sizeBytes; offsetBytes += comparedBytes) {
        const ours = data.subarray(offsetBytes, offsetBytes + comparedBytes);
        const theirs = await this.#loadOnce(ref, { offsetBytes, lengthBytes: ours.length }, signal);
        if (Buffer.compare(ours, theirs) !== 0) return "other";
      }
      return "same";
    } catch (error) {
      if (isFailure(error, "StoreFileNotFound")) return "absent";
      throw error;
    }
  }

  async #loadOnce(ref: FileRef, span: Span, signal: AbortSignal): Promise<Uint8Array> {
    const { offsetBytes, lengthBytes } = span;
    const purpose = `load ${describeRef(ref)}`;
    if (lengthBytes === 0) {
      await this.#expectEnd(ref, offsetBytes, signal);
      return new Uint8Array(0);
    }
    const lastByte = lengthBytes === undefined ? "" : offsetBytes + lengthBytes - 1;
    const headers = { ...acceptV2, range: `bytes=${offsetBytes}-${lastByte}` };
    const answer = await this.#send("GET", ref, { purpose, headers, maxBytes: lengthBytes ?? maxFileBytes, signal });
    const { status, body } = answer;
    if (status !== 200 && status !== 206 && status !== 416) throw this.#refused(answer, purpose, ref);
    if (status === 206 || (status === 200 && offsetBytes === 0)) {
      const isWhole = lengthBytes === undefined ? body.length > 0 : body.length === lengthBytes;
      if (isWhole && startsAt(answer, offsetBytes)) return body;
    }
    if (status === 200 && offsetBytes > 0) {
      throw this.#failure(
        "StoreInvalid",
        `Cannot ${purpose}: the server sent all of it where a part was asked for. Check that it is a restic REST server`,
        ref,
      );
    }
    // Less than asked for, or "cannot be satisfied": the size decides what that means.
    const sizeBytes = await this.#expectEnd(ref, offsetBytes + (lengthBytes ?? 0), signal);
    if (lengthBytes === undefined && offsetBytes === sizeBytes) return new Uint8Array(0);
    const message = `Cannot ${purpose}: the server answered ${status} with ${body.length} bytes for the span from ${offsetBytes} of ${sizeBytes} bytes`;
    throw this.#failure("StoreUnavailable", message, ref);
  }

  /** @returns the size of the file @throws StoreTruncated when the file ends before `endBytes` */
  async #expectEnd(ref: FileRef, endBytes: number, signal: AbortSignal): Promise<number> {
    const { sizeBytes } = await this.#statOnce(ref, signal);
    if (sizeBytes >= endBytes) return sizeBytes;
    throw new Failure(
      "StoreTruncated",
      `Cannot load ${describeRef(ref)} from ${this.location}: it is ${sizeBytes} bytes, at least ${endBytes} needed`,
      {
        details: { location: this.location, ...ref, sizeBytes, neededBytes: endBytes },
      },
    );
  }

  async #statOnce(ref: FileRef, signal: AbortSignal): Promise<FileEntry> {
    const purpose = `find ${describeRef(ref)}`;
    const answer = await this.#send("HEAD", ref, { purpose, headers: acceptV2, signal });
    if (answer.status !== 200) throw this.#refused(answer, purpose, ref);
    const sizeBytes = parseLength(answer.headers);
    if (sizeBytes !== undefined) return { name: ref.name, sizeBytes };
    throw this.#failure("StoreInvalid", `Cannot ${purpose}: the server does not tell its size. Check that it is a restic REST server`, ref);
  }

  async #statIfAny(ref: FileRef, signal: AbortSignal | undefined): Promise<FileEntry | undefined> {
    try {
      return await this.stat(ref, signal);
    } catch (error) {
      if (isFailure(error, "StoreFileNotFound")) return undefined;
      throw error;
    }
  }

  async #fetchList(kind: FileKind, signal: AbortSignal): Promise<Uint8Array> {
    const purpose = `list the ${kind} files`;
    const request = { method: "GET", path: `${folderOf(kind)}/`, purpose, headers: acceptV2, maxBytes: maxListBytes, signal } as const;
    const answer = await this.#connection.send(request);
    if (answer.status === 404) return Buffer.from("[]");
    if (answer.status !== 200) throw this.#refused(answer, purpose);
    if (isRestList(answer.body)) return answer.body;
    throw this.#failure(
      "StoreUnavailable",
      `Cannot ${purpose}: the server's answer of ${answer.body.length} bytes is not a list. Check that it is a restic REST server`,
    );
  }

  #send(method: RestRequest["method"], ref: FileRef, more: Omit<RestRequest, "method" | "path">): Promise<RestAnswer> {
    const path = ref.kind === "config" ? "config" : `${folderOf(ref.kind)}/${ref.name}`;
    return this.#connection.send({ headers: acceptV2, ...more, method, path });
  }

  async #retry<T>(signal: AbortSignal | undefined, act: (attempt: number, signal: AbortSignal) => Promise<T>): Promise<T> {
    const { clock, retry: wanted } = this.#options;
    const either = signal === undefined ? this.#closing.signal : AbortSignal.any([signal, this.#closing.signal]);
    throwIfCancelled(either);
    const attempts = wanted?.attempts ?? 12;
    const run = (earlier: number, most: number): Promise<T> =>
      retry((attempt) => act(earlier + attempt, either), {
        capMs: 30_000,
        ...wanted,
        attempts: most,
        signal: either,
        ...(clock && { clock }),
      });
    if (this.#connection.hasAnswered || attempts <= firstAttempts) return run(0, attempts);
    try {
      return await run(0, firstAttempts);
    } catch (error) {
      if (!this.#connection.hasAnswered || !isFailure(error) || error.kind !== "unavailable") throw error;
      return run(firstAttempts, attempts - firstAttempts);
    }
  }

  /** What a status that is not the hoped-for one means. */
  #refused(answer: RestAnswer, purpose: string, ref?: FileRef): Failure {
    const { status, headers } = answer;
    const text = describeText(answer.body);
    const said = `the server answered ${status}${text === "" ? "" : ` (${text})`}`;
    switch (status) {
      case 401:
        return this.#failure("StoreDenied", `Cannot ${purpose}: ${said}; a user and password it knows are needed`, ref);
      case 403:
      case 405:
      case 501:
        return this.#failure("StoreDenied", `Cannot ${purpose}: ${said}; these credentials do not allow it`, ref);
      case 404:
        if (/^(save|create)/.test(purpose))
          return this.#failure("RepositoryNotFound", `Cannot ${purpose}: ${said}; no repository is there`, ref);
        return this.#failure("StoreFileNotFound", `Cannot ${purpose}: it is not there`, ref);
      case 507:
        return this.#failure("StoreFull", `Cannot ${purpose}: ${said}`, ref);
      case 301:
      case 302:
      case 307:
      case 308:
        return this.#failure(
          "StoreInvalid",
          `Cannot ${purpose}: ${said}, pointing to ${describeText(Buffer.from(headers.location ?? ""))}; use that address`,
          ref,
        );
      default:
        return this.#failure("StoreUnavailable", `Cannot ${purpose}: ${said}`, ref);
    }
  }

  #exists(ref: FileRef): Failure {
    return this.#failure("StoreFileExists", `Cannot save ${describeRef(ref)}: the server has other content under that name`, ref);
  }

  #unfinished(ref: FileRef): Failure {
    const message = `Cannot save ${describeRef(ref)}: an earlier upload broke off, and the server still shows what it had got of it`;
    return this.#failure("StoreUnavailable", message, ref);
  }

  #failure(code: string, message: string, ref?: FileRef): Failure {
    return new Failure(code, `${message} [${this.location}]`, { details: { location: this.location, ...ref } });
  }
}

/** Whether an answer begins where it was asked to; one without `Content-Range` is believed. */
function startsAt(answer: RestAnswer, offsetBytes: number): boolean {
  const range = answer.headers["content-range"];
  if (answer.status !== 206 || range === undefined) return true;
  return new RegExp(`^bytes ${offsetBytes}-`).test(range);
}

/** A server's words, as far as they can be shown on a terminal. */
function describeText(text: Uint8Array): string {
  return Buffer.from(text.buffer, text.byteOffset, Math.min(text.length, 1000))
    .toString("utf8")
    .replace(/[\p{C}\s]+/gu, " ")
    .trim()
    .slice(0, 200);
}

function parseLocation(location: string): { url: URL; user: string; password: string } {
  const text = location.replace(/^rest:/, "");
  const url = URL.parse(text);
  if (url === null || (url.protocol !== "http:" && url.protocol !== "https:") || url.search !== "" || url.hash !== "") {
    throw new Failure(
      "StoreInvalid",
      `Cannot open the store "${stripCredentials(location)}": rest:http(s)://[user:password@]host[:port]/path/ is needed`,
    );
  }
  const login = { user: decodeLogin(url.username), password: decodeLogin(url.password) };
  url.username = "";
  url.password = "";
  if (!url.pathname.endsWith("/")) url.pathname += "/";
  return { url, ...login };
}

/** `%` begins an escape, but passwords with a bare one are common. */
function decodeLogin(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/** A location without user and password, for messages; also for locations that are mistyped. Paths stay as they are. */
export function stripCredentials(location: string): string {
  return location.replace(/^([a-z][a-z0-9+.-]*:(?:https?:)?(?:\/\/)?).*@/is, "$1");
}
