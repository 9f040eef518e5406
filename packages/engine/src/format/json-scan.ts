/**
 * Walking over JSON bytes without building values: for trees and indexes, which are too large and too many for `JSON.parse`.
 *
 * Each function takes the bytes and where to begin, and returns the offset behind what it passed, or -1 when there is no valid JSON
 * there (truncated included). The grammar is RFC 8259 in full; that strings are valid UTF-8 is not checked.
 */
import { sliceLatin1, sliceUtf8 } from "./byte-string.ts";

/** How deep values may nest. The format itself needs four levels; `generic_attributes` may hold anything. */
export const MAX_DEPTH = 64;

export const QUOTE = 0x22;
export const COMMA = 0x2c;
export const COLON = 0x3a;
export const OPEN_ARRAY = 0x5b;
export const BACKSLASH = 0x5c;
export const CLOSE_ARRAY = 0x5d;
export const OPEN_OBJECT = 0x7b;
export const CLOSE_OBJECT = 0x7d;
/** The n of null; no other value begins with it. */
export const NULL_START = 0x6e;

const NULL = Buffer.from("null", "latin1");
const TRUE = Buffer.from("true", "latin1");
const FALSE = Buffer.from("false", "latin1");

// What ends the quick run through a string: quote, backslash, control characters.
const STOPS_STRING = new Uint8Array(256);
STOPS_STRING.fill(1, 0, 0x20);
STOPS_STRING[QUOTE] = 1;
STOPS_STRING[BACKSLASH] = 1;

/** Passes white space; never -1. */
export function skipSpace(bytes: Uint8Array, at: number): number {
  for (; at < bytes.length; at++) {
    const byte = bytes[at];
    if (byte !== 0x20 && byte !== 0x0a && byte !== 0x0d && byte !== 0x09) break;
  }
  return at;
}

/** Passes the rest of a string, from behind its opening quote to behind its closing one. */
export function skipString(bytes: Uint8Array, at: number): number {
  const end = bytes.length;
  for (;;) {
    while (at < end && STOPS_STRING[bytes[at] ?? 0] === 0) at++;
    if (at >= end) return -1;
    const byte = bytes[at];
    if (byte === QUOTE) return at + 1;
    if (byte !== BACKSLASH) return -1;
    at = skipEscape(bytes, at + 1);
    if (at < 0) return -1;
  }
}

function skipEscape(bytes: Uint8Array, at: number): number {
  switch (bytes[at] ?? 0) {
    case QUOTE:
    case BACKSLASH:
    case 0x2f: // /
    case 0x62: // b
    case 0x66: // f
    case 0x6e: // n
    case 0x72: // r
    case 0x74: // t
      return at + 1;
    case 0x75: // u
      for (let i = 1; i <= 4; i++) if (!isHexDigit(bytes[at + i] ?? 0)) return -1;
      return at + 5;
    default:
      return -1;
  }
}

function isHexDigit(byte: number): boolean {
  return (byte >= 0x30 && byte <= 0x39) || (byte >= 0x61 && byte <= 0x66) || (byte >= 0x41 && byte <= 0x46);
}

/** Passes any value, which must begin at `at` exactly. @param depth levels around it */
export function skipValue(bytes: Uint8Array, at: number, depth: number): number {
  switch (bytes[at] ?? 0) {
    case QUOTE:
      return skipString(bytes, at + 1);
    case OPEN_OBJECT:
      return depth >= MAX_DEPTH ? -1 : skipObject(bytes, at + 1, depth + 1);
    case OPEN_ARRAY:
      return depth >= MAX_DEPTH ? -1 : skipArray(bytes, at + 1, depth + 1);
    case NULL_START:
      return skipToken(bytes, at, NULL);
    case 0x74: // t
      return skipToken(bytes, at, TRUE);
    case 0x66: // f
      return skipToken(bytes, at, FALSE);
    default:
      return skipNumber(bytes, at);
  }
}

/** Passes `token` when it stands at `at`. Of a string, quotes included, this is a whole match. */
export function skipToken(bytes: Uint8Array, at: number, token: Uint8Array): number {
  return isTokenAt(bytes, at, token) ? at + token.length : -1;
}

/** Whether `token` stands at `at`. */
export function isTokenAt(bytes: Uint8Array, at: number, token: Uint8Array): boolean {
  if (at + token.length > bytes.length) return false;
  for (let i = 0; i < token.length; i++) if (bytes[at + i] !== token[i]) return false;
  return true;
}

function skipArray(bytes: Uint8Array, start: number, depth: number): number {
  let at = skipSpace(bytes, start);
  if (bytes[at] === CLOSE_ARRAY) return at + 1;
  for (;;) {
    at = skipValue(bytes, at, depth);
    if (at < 0) return -1;
    at = skipSpace(bytes, at);
    if (bytes[at] === CLOSE_ARRAY) return at + 1;
    if (bytes[at] !== COMMA) return -1;
    at = skipSpace(bytes, at + 1);
  }
}

function skipObject(bytes: Uint8Array, start: number, depth: number): number {
  let at = skipSpace(bytes, start);
  if (bytes[at] === CLOSE_OBJECT) return at + 1;
  for (;;) {
    at = skipKey(bytes, at);
    if (at < 0) return -1;
    at = skipColon(bytes, at);
    if (at < 0) return -1;
    at = skipValue(bytes, at, depth);
    if (at < 0) return -1;
    at = skipSpace(bytes, at);
    if (bytes[at] === CLOSE_OBJECT) return at + 1;
    if (bytes[at] !== COMMA) return -1;
    at = skipSpace(bytes, at + 1);
  }
}

/** Passes a key with its quotes. */
export function skipKey(bytes: Uint8Array, at: number): number {
  return bytes[at] === QUOTE ? skipString(bytes, at + 1) : -1;
}

/** Passes a colon with the white space around it, from behind a key to the value. */
export function skipColon(bytes: Uint8Array, at: number): number {
  at = skipSpace(bytes, at);
  return bytes[at] === COLON ? skipSpace(bytes, at + 1) : -1;
}

function skipNumber(bytes: Uint8Array, at: number): number {
  if (bytes[at] === 0x2d) at++;
  at = bytes[at] === 0x30 ? at + 1 : skipDigits(bytes, at);
  if (at >= 0 && bytes[at] === 0x2e) at = skipDigits(bytes, at + 1);
  if (at >= 0 && (bytes[at] === 0x65 || bytes[at] === 0x45)) {
    at++;
    if (bytes[at] === 0x2b || bytes[at] === 0x2d) at++;
    at = skipDigits(bytes, at);
  }
  return at;
}

function skipDigits(bytes: Uint8Array, start: number): number {
  let at = start;
  while (isDigit(bytes[at] ?? 0)) at++;
  return at === start ? -1 : at;
}

function isDigit(byte: number): boolean {
  return byte >= 0x30 && byte <= 0x39;
}

/**
 * The value of an integer from 0 to 2^53-1 that fills the bytes from `start` to `end`, without sign, fraction, exponent or leading zero.
 *
 * @returns -1 when there is none, or it is larger
 */
export function readInteger(bytes: Uint8Array, start: number, end: number): number {
  const digits = end - start;
  if (digits < 1 || digits > 16 || (digits > 1 && bytes[start] === 0x30)) return -1;
  let value = 0;
  for (let at = start; at < end; at++) {
    const digit = (bytes[at] ?? 0) - 0x30;
    if (digit < 0 || digit > 9) return -1;
    value = value * 10 + digit;
  }
  return value <= Number.MAX_SAFE_INTEGER ? value : -1;
}

const MAX_UINT64 = 2n ** 64n - 1n;

/** As {@link readInteger}, to 2^64-1: a `bigint` from 2^53 on, -1 when there is none. */
export function readUint64(bytes: Uint8Array, start: number, end: number): number | bigint {
  const digits = end - start;
  if (digits < 16) return readInteger(bytes, start, end);
  if (digits > 20 || bytes[start] === 0x30) return -1;
  for (let at = start; at < end; at++) if (!isDigit(bytes[at] ?? 0)) return -1;
  const value = BigInt(sliceLatin1(bytes, start, end));
  if (value > MAX_UINT64) return -1;
  return value <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(value) : value;
}

/**
 * The text of a string, given with its quotes, that {@link skipString} has passed.
 *
 * @param start offset of the opening quote; @param end behind the closing one
 */
export function readText(bytes: Uint8Array, start: number, end: number): string {
  for (let at = start + 1; at < end - 1; at++) {
    // a string with an escape; JSON.parse cannot fail on what skipString has passed
    if (bytes[at] === BACKSLASH) return String(JSON.parse(sliceUtf8(bytes, start, end)));
  }
  return sliceUtf8(bytes, start + 1, end - 1);
}
