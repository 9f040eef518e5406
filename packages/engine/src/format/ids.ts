/**
 * Ids of everything in a repository: SHA-256 values, 64 lower-case hex characters as text, 32 bytes in binary.
 *
 * The text forms are branded, one type for each kind of thing, and made only by the parsers here; the byte forms carry no type and
 * live in packed tables and buffers. A blob's id is the hash of its plain content, all others are the hash of the stored file.
 */
import { Failure } from "@granary/base/errors";
import { sliceHex } from "./byte-string.ts";

declare const kindOfId: unique symbol;
type Id<Kind extends string> = string & { readonly [kindOfId]: Kind };

export type BlobId = Id<"blob">;
export type PackId = Id<"pack">;
export type SnapshotId = Id<"snapshot">;
export type IndexId = Id<"index">;
export type KeyId = Id<"key">;
export type LockId = Id<"lock">;

/** Bytes of an id. */
export const ID_BYTES = 32;
/** Characters of an id as text. */
export const ID_CHARS = 64;

const ID_PATTERN = /^[0-9a-f]{64}$/;

/** Whether `text` has the form of an id: 64 lower-case hex characters. */
export function isId(text: string): boolean {
  return text.length === ID_CHARS && ID_PATTERN.test(text);
}

// The one place where brands are put on: the text was just checked.
function brand<T extends Id<string>>(kind: string, text: string): T {
  if (!isId(text)) {
    const found = text.length > 80 ? `${text.slice(0, 80)}…` : text;
    throw new Failure(
      "InvalidArgument",
      `Cannot read ${kind} id "${found}": ${text.length} characters found, 64 lower-case hex characters needed`,
      {
        details: { kind },
      },
    );
  }
  return text as T;
}

/** @throws InvalidArgument */
export function parseBlobId(text: string): BlobId {
  return brand("blob", text);
}

/** @throws InvalidArgument */
export function parsePackId(text: string): PackId {
  return brand("pack", text);
}

/** @throws InvalidArgument */
export function parseSnapshotId(text: string): SnapshotId {
  return brand("snapshot", text);
}

/** @throws InvalidArgument */
export function parseIndexId(text: string): IndexId {
  return brand("index", text);
}

/** @throws InvalidArgument */
export function parseKeyId(text: string): KeyId {
  return brand("key", text);
}

/** @throws InvalidArgument */
export function parseLockId(text: string): LockId {
  return brand("lock", text);
}

const HEX_OF_BYTE: readonly string[] = Array.from({ length: 256 }, (_, byte) => byte.toString(16).padStart(2, "0"));
const HIGH_DIGIT = Uint8Array.from(HEX_OF_BYTE, (hex) => hex.charCodeAt(0));
const LOW_DIGIT = Uint8Array.from(HEX_OF_BYTE, (hex) => hex.charCodeAt(1));

// Value of a lower-case hex digit, or 0x80, which survives an `or`, for any other byte.
const DIGIT_VALUE = new Uint8Array(256).fill(0x80);
for (let value = 0; value < 16; value++) DIGIT_VALUE[value.toString(16).charCodeAt(0)] = value;

/** The 64 hex characters of the 32 bytes at `offset`. The caller makes sure that they are there. */
export function hexOf(bytes: Uint8Array, offset = 0): string {
  return sliceHex(bytes, offset, offset + ID_BYTES);
}

/** Writes the 32 bytes at `offset` of `bytes` as 64 hex characters to `target` at `at`. The caller makes sure of the room. */
// oxlint-disable-next-line max-params -- called for each id of an index, where an object for the arguments would cost more than the work
export function writeHex(target: Uint8Array, at: number, bytes: Uint8Array, offset = 0): void {
  for (let i = 0; i < ID_BYTES; i++) {
    const byte = bytes[offset + i] ?? 0;
    target[at++] = HIGH_DIGIT[byte] ?? 0;
    target[at++] = LOW_DIGIT[byte] ?? 0;
  }
}

/**
 * Reads 64 hex characters from `source` at `at` into the 32 bytes of `target` at `offset`.
 *
 * @returns false when one of them is not a lower-case hex digit or `source` ends before; `target` then holds rubbish
 */
// oxlint-disable-next-line max-params -- as writeHex
export function readHex(source: Uint8Array, at: number, target: Uint8Array, offset = 0): boolean {
  if (at + ID_CHARS > source.length) return false;
  let wrong = 0;
  for (let i = 0; i < ID_BYTES; i++) {
    const high = DIGIT_VALUE[source[at++] ?? 0] ?? 0x80;
    const low = DIGIT_VALUE[source[at++] ?? 0] ?? 0x80;
    wrong |= high | low;
    target[offset + i] = (high << 4) | low;
  }
  return wrong < 0x80;
}

/** The 32 bytes of an id; the caller owns them. */
export function bytesOfId(id: Id<string>): Buffer {
  return Buffer.from(id, "hex");
}

/** The id of these 32 bytes. @throws InvalidArgument when there are not exactly 32 */
export function blobIdOf(bytes: Uint8Array): BlobId {
  return brand("blob", bytes.length === ID_BYTES ? hexOf(bytes) : "");
}
