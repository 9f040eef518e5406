/**
 * Names, symlink targets and paths as the kernel has them: bytes, not text.
 *
 * A {@link ByteString} costs one byte a character in V8, compares with `<` in the order of the raw bytes (which is the order of
 * nodes in a tree), and is a usable `Map` key. It is *not* text: show it through {@link toUtf8OrEscaped}.
 */
import { isUtf8 } from "node:buffer";

/** A string in which each char code, 0 to 255, is one raw byte. */
export type ByteString = string;

// The methods are declared on Buffer only, but work on any Uint8Array; making a Buffer of it first would cost more than the slice.
const bufferMethods = Buffer.prototype as Buffer & { hexSlice(start: number, end: number): string }; // any, and not all declared

/** The bytes from `start` to `end` as a string of one character each. */
export function sliceLatin1(bytes: Uint8Array, start: number, end: number): ByteString {
  return bufferMethods.latin1Slice.call(bytes, start, end);
}

/** The text that the bytes from `start` to `end` hold in UTF-8; bytes that are none become U+FFFD. */
export function sliceUtf8(bytes: Uint8Array, start: number, end: number): string {
  return bufferMethods.utf8Slice.call(bytes, start, end);
}

/** The bytes from `start` to `end` in lower-case hex. */
export function sliceHex(bytes: Uint8Array, start: number, end: number): string {
  return bufferMethods.hexSlice.call(bytes, start, end);
}

/** Whether every character is below 0x80, so that bytes and text are the same. */
export function isAscii(value: ByteString): boolean {
  for (let i = 0; i < value.length; i++) if (value.charCodeAt(i) > 0x7f) return false;
  return true;
}

/** The UTF-8 bytes of a text. Lone surrogates become U+FFFD. */
export function fromUtf8(text: string): ByteString {
  return isAscii(text) ? text : Buffer.from(text, "utf8").latin1Slice();
}

/** The bytes as a `ByteString`; a copy. */
export function fromBytes(bytes: Uint8Array): ByteString {
  return sliceLatin1(bytes, 0, bytes.length);
}

/** The raw bytes; the caller owns them. */
export function toBytes(value: ByteString): Buffer {
  return Buffer.from(value, "latin1");
}

/** The text when the bytes are valid UTF-8, else `undefined`. */
export function findUtf8(value: ByteString): string | undefined {
  if (isAscii(value)) return value;
  const bytes = toBytes(value);
  return isUtf8(bytes) ? bytes.utf8Slice() : undefined;
}

/**
 * The text for a message or a listing: valid UTF-8 sequences as characters, every other byte as `\xNN`.
 *
 * Control characters are escaped too, so that a hostile name cannot drive the terminal; a backslash is left alone.
 */
export function toUtf8OrEscaped(value: ByteString): string {
  if (/^[ -~]*$/.test(value)) return value;
  const text = findUtf8(value);
  if (text !== undefined) return escapeControls(text);
  let out = "";
  for (let at = 0; at < value.length; ) {
    const length = utf8LengthAt(value, at);
    out += length === 0 ? escapeByte(value.charCodeAt(at)) : escapeControls(toBytes(value.slice(at, at + length)).utf8Slice());
    at += Math.max(length, 1);
  }
  return out;
}

/**
 * The length of the valid UTF-8 sequence that starts at `at`, or 0 when there is none.
 *
 * Valid as Go and Unicode have it (table 3-7): no overlong forms, no surrogates, nothing above U+10FFFF.
 */
export function utf8LengthAt(value: ByteString, at: number): 0 | 1 | 2 | 3 | 4 {
  const first = value.charCodeAt(at);
  if (first < 0x80) return 1;
  if (first < 0xc2 || first > 0xf4) return 0;
  const second = value.charCodeAt(at + 1);
  if (first < 0xe0) return isContinuation(second) ? 2 : 0;
  if (first < 0xf0) {
    const low = first === 0xe0 ? 0xa0 : 0x80;
    const high = first === 0xed ? 0x9f : 0xbf;
    return second >= low && second <= high && isContinuation(value.charCodeAt(at + 2)) ? 3 : 0;
  }
  const low = first === 0xf0 ? 0x90 : 0x80;
  const high = first === 0xf4 ? 0x8f : 0xbf;
  const rest = isContinuation(value.charCodeAt(at + 2)) && isContinuation(value.charCodeAt(at + 3));
  return second >= low && second <= high && rest ? 4 : 0;
}

// NaN, which charCodeAt gives past the end, is no continuation
function isContinuation(byte: number): boolean {
  return byte >= 0x80 && byte <= 0xbf;
}

function escapeByte(byte: number): string {
  return `\\x${byte.toString(16).padStart(2, "0")}`;
}

function escapeControls(text: string): string {
  return text.replace(/[\p{Cc}\p{Cf}\u2028\u2029]/gu, (char) => {
    const code = char.codePointAt(0) ?? 0;
    return code < 0x80 ? escapeByte(code) : `\\u{${code.toString(16)}}`;
  });
}
