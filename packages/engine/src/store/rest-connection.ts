/**
 * HTTP for the REST store: one request, one whole answer, over a few connections that stay open.
 *
 * Every way a request can end without an answer becomes a failure here: `StoreUnavailable` when another attempt may help, `StoreDenied`
 * when the server's certificate is not trusted. What a status means is for the caller to say. Nothing is retried here.
 *
 * Certificates are always verified; no option and no environment variable switches that off.
 */

import type * as Http from "node:http";
import type { Agent as HttpAgent, ClientRequest, IncomingHttpHeaders, IncomingMessage, RequestOptions } from "node:http";
import type * as Https from "node:https";
import type { Agent as HttpsAgent } from "node:https";
import { urlToHttpOptions } from "node:url";
import { cancelledBy, throwIfCancelled } from "@granary/base/cancel";
import { type Clock, systemClock } from "@granary/base/clock";
import { Failure, isFailure, messageOf } from "@granary/base/errors";
import type { Secret } from "@granary/base/secret";
import "../errors.ts";
import { systemCodeOf } from "./system-error.ts";

/** Node's HTTP, loaded when it is needed: an import would cost every command 30 ms, since it brings WebSocket and fetch along. */
function loadHttp(): { readonly http: typeof Http; readonly https: typeof Https } {
  return { http: process.getBuiltinModule("node:http"), https: process.getBuiltinModule("node:https") };
}

/** HTTP Basic credentials. */
export interface RestCredentials {
  readonly user: string;
  readonly password: Secret;
}

/** How a {@link RestConnection} is made. */
export interface RestConnectionOptions {
  readonly credentials?: RestCredentials;
  /** Certificates in PEM that are trusted instead of the usual authorities. */
  readonly ca?: string;
  /** How long nothing may move on a connection; 120 s when absent. A server may need long to make a large file durable. */
  readonly timeoutMs?: number;
  readonly clock?: Clock;
}

/** A request. */
export interface RestRequest {
  readonly method: "GET" | "HEAD" | "POST" | "DELETE";
  /** Below the base URL, without a leading slash; may have a query. */
  readonly path: string;
  /** For messages: `load pack "ab12…"`. */
  readonly purpose: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: Uint8Array;
  /** Sends the body only after the server has agreed to take it, so that a refusal is heard in any case. */
  readonly asksFirst?: boolean;
  /** How long the body of a good answer may be; refusals are cut at a few KiB anyway. */
  readonly maxBytes?: number;
  readonly signal: AbortSignal;
}

/** An answer, all of it. */
export interface RestAnswer {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  /** Owned by the receiver. */
  readonly body: Uint8Array;
}

/** How many requests run at once; as many as restic's client makes. */
export const connectionCount = 5;

const connectTimeoutMs = 30_000;
/** A server that knows nothing of `Expect` is silent; RFC 9110 §10.1.1 wants the client to go on after a while. */
const agreementTimeoutMs = 1_000;
const refusalBytes = 4_096;

export class RestConnection {
  /** The base URL, with a slash at its end and without credentials. */
  readonly url: URL;
  readonly #agent: HttpAgent | HttpsAgent;
  readonly #headers: Readonly<Record<string, string>>;
  readonly #timeoutMs: number;
  readonly #clock: Clock;
  #hasAnswered = false;

  /** @param url http or https, with a slash at its end and without credentials */
  constructor(url: URL, options: RestConnectionOptions = {}) {
    this.url = url;
    this.#timeoutMs = options.timeoutMs ?? 120_000;
    this.#clock = options.clock ?? systemClock;
    const { http, https } = loadHttp();
    const pool = { keepAlive: true, maxSockets: connectionCount, maxFreeSockets: connectionCount, scheduling: "lifo" } as const;
    this.#agent =
      url.protocol === "https:"
        ? new https.Agent({ ...pool, rejectUnauthorized: true, minVersion: "TLSv1.2", ...(options.ca !== undefined && { ca: options.ca }) })
        : new http.Agent(pool);
    const { credentials } = options;
    const login = credentials && Buffer.from(`${credentials.user}:${credentials.password.reveal()}`).toString("base64");
    this.#headers = {
      "user-agent": "granary",
      "accept-encoding": "identity",
      ...(login !== undefined && { authorization: `Basic ${login}` }),
    };
  }

  /** Whether the server has ever answered. */
  get hasAnswered(): boolean {
    return this.#hasAnswered;
  }

  /**
   * Sends a request and reads its answer, whatever its status.
   *
   * @throws StoreUnavailable, StoreDenied (certificate), StoreInvalid (more bytes than may be), Cancelled
   */
  async send(request: RestRequest): Promise<RestAnswer> {
    throwIfCancelled(request.signal);
    try {
      return await this.#exchange(request);
    } catch (error) {
      if (request.signal.aborted) throw cancelledBy(request.signal);
      throw isFailure(error) ? error : this.#failure(request, error);
    }
  }

  /** Closes all connections. */
  close(): void {
    this.#agent.destroy();
  }

  #exchange(request: RestRequest): Promise<RestAnswer> {
    const { method, path, body, signal } = request;
    const options: RequestOptions = {
      ...urlToHttpOptions(this.url),
      path: this.url.pathname + path,
      method,
      agent: this.#agent,
      signal,
      headers: { ...this.#headers, ...request.headers, ...(method === "POST" && { "content-length": body?.length ?? 0 }) },
    };
    return new Promise((resolve, reject) => {
      const outgoing = this.url.protocol === "https:" ? loadHttp().https.request(options) : loadHttp().http.request(options);
      const settled = new AbortController();
      let isAnswered = false;
      outgoing.on("response", (incoming) => {
        isAnswered = true;
        this.#hasAnswered = true;
        readAnswer(incoming, request)
          .then(resolve, reject)
          .finally(() => {
            // Answered before it had all of the body: the rest has no taker, and the connection cannot be used again.
            if (!outgoing.writableFinished) outgoing.destroy();
          });
      });
      // After the response began, its own errors tell; an upload that is cut off by an early refusal is no error of its own.
      outgoing.on("error", (error) => {
        if (!isAnswered) reject(error);
      });
      outgoing.on("close", () => {
        settled.abort();
        if (!isAnswered) reject(new Error("the connection was closed without an answer"));
      });
      this.#watch(outgoing, settled.signal);
      this.#sendBody(outgoing, request, settled.signal);
    });
  }

  /** Ends requests that wait for a connection, or for anything to move on it, for too long. */
  #watch(outgoing: ClientRequest, settled: AbortSignal): void {
    outgoing.setTimeout(this.#timeoutMs, () => outgoing.destroy(new Error(`nothing moved for ${this.#timeoutMs / 1000} s`)));
    outgoing.on("socket", (socket) => {
      if (!socket.connecting) return;
      const connected = new AbortController();
      socket.once("connect", () => connected.abort());
      const timeoutMs = Math.min(connectTimeoutMs, this.#timeoutMs);
      this.#clock.sleep(timeoutMs, AbortSignal.any([connected.signal, settled])).then(
        () => outgoing.destroy(new Error(`no connection within ${timeoutMs / 1000} s`)),
        () => undefined,
      );
    });
  }

  #sendBody(outgoing: ClientRequest, { body, asksFirst }: RestRequest, settled: AbortSignal): void {
    if (asksFirst !== true || body === undefined) {
      outgoing.end(body);
      return;
    }
    outgoing.setHeader("expect", "100-continue");
    const agreed = new AbortController();
    const sendOnce = (): void => {
      if (agreed.signal.aborted || outgoing.destroyed) return;
      agreed.abort();
      outgoing.end(body);
    };
    outgoing.on("continue", sendOnce);
    outgoing.flushHeaders();
    this.#clock.sleep(agreementTimeoutMs, AbortSignal.any([agreed.signal, settled])).then(sendOnce, () => undefined);
  }

  #failure({ purpose }: RestRequest, error: unknown): Failure {
    const system = systemCodeOf(error);
    const details = { location: this.url.href, system };
    if (isCertificateError(system)) {
      const message = `Cannot ${purpose} at ${this.url.href}: the server's certificate is not trusted (${messageOf(error)}). Give the certificate of its authority`;
      return new Failure("StoreDenied", message, { details, cause: error });
    }
    return new Failure("StoreUnavailable", `Cannot ${purpose} at ${this.url.href}: ${describeError(error)}`, { details, cause: error });
  }
}

async function readAnswer(incoming: IncomingMessage, { method, path, purpose, maxBytes = refusalBytes }: RestRequest): Promise<RestAnswer> {
  const status = incoming.statusCode ?? 0;
  const { headers } = incoming;
  const isGood = status >= 200 && status < 300;
  const lengthBytes = parseLength(headers);
  if (method === "HEAD") {
    incoming.resume();
    return { status, headers, body: new Uint8Array(0) };
  }
  if (isGood && lengthBytes !== undefined && lengthBytes > maxBytes) {
    incoming.destroy();
    throw tooLong(purpose, path, maxBytes);
  }
  const chunks: Buffer[] = [];
  let receivedBytes = 0;
  // Without an encoding set, a response yields buffers; its type cannot say so.
  for await (const chunk of incoming as AsyncIterable<Buffer>) {
    chunks.push(chunk);
    receivedBytes += chunk.length;
    if (receivedBytes <= maxBytes) continue;
    if (isGood) throw tooLong(purpose, path, maxBytes);
    break; // leaving the loop closes the connection
  }
  return { status, headers, body: joinChunks(chunks, receivedBytes) };
}

/** The `Content-Length` of an answer; undefined when there is none. */
export function parseLength(headers: IncomingHttpHeaders): number | undefined {
  const text = headers["content-length"];
  return text !== undefined && /^\d{1,15}$/.test(text) ? Number(text) : undefined;
}

function joinChunks(chunks: readonly Buffer[], totalBytes: number): Uint8Array {
  const whole = new Uint8Array(Buffer.allocUnsafeSlow(totalBytes).buffer);
  let offset = 0;
  for (const chunk of chunks) {
    whole.set(chunk, offset);
    offset += chunk.length;
  }
  return whole;
}

function tooLong(purpose: string, path: string, maxBytes: number): Failure {
  const message = `Cannot ${purpose}: the server sent more than the ${maxBytes} bytes asked for. Check that it is a restic REST server`;
  return new Failure("StoreInvalid", message, { details: { path, maxBytes } });
}

/** OpenSSL's verdicts on certificates, and Node's on their host names. */
function isCertificateError(code: string): boolean {
  return /CERT|^ERR_TLS_CERT|^UNABLE_TO_(GET|VERIFY)|^HOSTNAME_MISMATCH$/.test(code);
}

/** Several addresses may have been tried, each with its own error and a message that is empty. */
function describeError(error: unknown): string {
  if (error instanceof AggregateError && error.message === "") return error.errors.map(messageOf).join("; ");
  return messageOf(error);
}
