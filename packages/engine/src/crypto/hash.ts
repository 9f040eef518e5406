/** SHA-256, the name of every blob and file. */
import type { Buffer } from "node:buffer";
import { hash } from "node:crypto";
import { openOpenssl } from "../native/openssl.ts";

/**
 * SHA-256 of `data` into `target[at, at+32)`.
 *
 * @param target owned by the caller; may be backed by shared memory
 */
export function sha256Into(target: Uint8Array, at: number, data: Uint8Array): void {
  const native = openOpenssl();
  const span = target.subarray(at, at + 32);
  if (span.length !== 32) throw new RangeError(`SHA-256 needs 32 bytes at ${at}, the target has ${target.length}`);
  if (native !== undefined) native.sha256(data, span);
  else span.set(hash("sha256", data, "buffer"));
}

/** SHA-256 of `data` as 32 bytes of its own. */
export function sha256(data: Uint8Array): Buffer {
  return hash("sha256", data, "buffer");
}

/** SHA-256 of `data` as 64 lower-case hex digits. */
export function sha256Hex(data: Uint8Array): string {
  return hash("sha256", data, "hex");
}
