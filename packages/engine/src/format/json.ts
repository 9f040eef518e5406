/**
 * JSON as Go's `encoding/json` writes it, because ids are hashes of the text: the same value must give the same bytes.
 *
 * `<`, `>` and `&` are escaped, and so are U+2028 and U+2029. Control characters are written as Go 1.19 (restic 0.14) does, that is
 * backspace and form feed as `\u0008` and `\u000c`; Go 1.22 and later write `\b` and `\f`. Both are read.
 */
import { type ByteString, utf8LengthAt } from "./byte-string.ts";

/** A value that {@link parseExact} gives. */
export type JsonValue = string | number | bigint | boolean | null | readonly JsonValue[] | { readonly [key: string]: JsonValue };

const UNSAFE_IN_TEXT = /["\\<>&\u0000-\u001f\u2028\u2029\ud800-\udfff]/;
const ESCAPED_IN_TEXT = /["\\<>&\u0000-\u001f\u2028\u2029]|\p{Cs}/gu;
const SAFE_BYTES = /^[^"\\<>&\u0000-\u001f\u0080-\u00ff]*$/;

/** A text as a JSON string with its quotes. Lone surrogates become `\ufffd`. */
export function quoteJson(text: string): string {
  return UNSAFE_IN_TEXT.test(text) ? `"${text.replace(ESCAPED_IN_TEXT, escapeChar)}"` : `"${text}"`;
}

/** Raw bytes as the inside of a JSON string, without quotes, in UTF-8 bytes. Each byte that is no valid UTF-8 becomes `\ufffd`. */
export function escapeJsonBytes(value: ByteString): ByteString {
  if (SAFE_BYTES.test(value)) return value;
  let out = "";
  for (let at = 0; at < value.length; ) {
    const length = utf8LengthAt(value, at);
    if (length === 0) out += "\\ufffd";
    else if (length === 1) out += UNSAFE_IN_TEXT.test(value.charAt(at)) ? escapeChar(value.charAt(at)) : value.charAt(at);
    else out += escapeSequence(value.slice(at, at + length));
    at += Math.max(length, 1);
  }
  return out;
}

function escapeSequence(sequence: ByteString): ByteString {
  if (sequence === "\xe2\x80\xa8") return "\\u2028";
  return sequence === "\xe2\x80\xa9" ? "\\u2029" : sequence;
}

function escapeChar(char: string): string {
  switch (char) {
    case '"':
    case "\\":
      return `\\${char}`;
    case "\n":
      return "\\n";
    case "\r":
      return "\\r";
    case "\t":
      return "\\t";
  }
  const code = char.charCodeAt(0);
  return `\\u${(code >= 0xd800 && code <= 0xdfff ? 0xfffd : code).toString(16).padStart(4, "0")}`;
}

// longer ones are nothing that the format has, and slow to convert
const INTEGER = /^-?\d{1,40}$/;

/**
 * Parses JSON without losing integers: those that a double cannot hold exactly come as `bigint`, all other numbers as `number`.
 *
 * @throws SyntaxError, as `JSON.parse`; callers turn it into the failure of the file they read
 */
export function parseExact(text: string): JsonValue {
  const value: unknown = JSON.parse(text, reviveExact);
  return value as JsonValue; // JSON has nothing else
}

function reviveExact(_key: string, value: unknown, context?: { readonly source?: string }): unknown {
  if (typeof value !== "number" || Number.isSafeInteger(value)) return value;
  const source = context?.source;
  return source !== undefined && INTEGER.test(source) ? BigInt(source) : value;
}
