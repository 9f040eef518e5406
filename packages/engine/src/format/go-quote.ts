/**
 * Names as restic stores them: Go's `strconv.Quote` without the outer quotes, and back.
 *
 * Bytes that are no valid UTF-8, control characters and unprintable characters become escapes, printable UTF-8 stays. What counts as
 * printable follows the Unicode tables of the writer: restic 0.14 has Unicode 13, later ones 15, Node has its own. A character that
 * was assigned in between is written either as an escape or as itself; both are read alike, so only deduplication of the directory
 * that holds such a name is lost.
 */
import { Failure } from "@granary/base/errors";
import "../errors.ts";
import { type ByteString, fromUtf8, toBytes, toUtf8OrEscaped, utf8LengthAt } from "./byte-string.ts";

// ASCII without control characters, quote and backslash
const PLAIN = /^[ !#-[\]-~]*$/;
// Go's IsPrint: letters, marks, numbers, punctuation, symbols; of the spaces only U+0020
const PRINTABLE = /^[\p{L}\p{M}\p{N}\p{P}\p{S} ]$/u;

const SHORT_ESCAPES: Readonly<Record<number, string>> = {
  0x07: "\\a",
  0x08: "\\b",
  0x09: "\\t",
  0x0a: "\\n",
  0x0b: "\\v",
  0x0c: "\\f",
  0x0d: "\\r",
  0x22: '\\"',
  0x5c: "\\\\",
};

/** Quotes raw bytes as Go does. The result is valid UTF-8, as bytes. */
export function quoteGo(value: ByteString): ByteString {
  if (PLAIN.test(value)) return value;
  let out = "";
  for (let at = 0; at < value.length; ) {
    const length = utf8LengthAt(value, at);
    const byte = value.charCodeAt(at);
    if (length === 0) out += `\\x${hex(byte, 2)}`;
    else if (length === 1) out += SHORT_ESCAPES[byte] ?? (byte < 0x20 || byte === 0x7f ? `\\x${hex(byte, 2)}` : value.charAt(at));
    else out += quoteRune(value.slice(at, at + length));
    at += Math.max(length, 1);
  }
  return out;
}

function quoteRune(sequence: ByteString): ByteString {
  const char = toBytes(sequence).utf8Slice();
  if (PRINTABLE.test(char)) return sequence;
  const code = char.codePointAt(0) ?? 0;
  return code > 0xffff ? `\\U${hex(code, 8)}` : `\\u${hex(code, 4)}`;
}

function hex(value: number, digits: number): string {
  return value.toString(16).padStart(digits, "0");
}

const UNESCAPED: Readonly<Record<string, string>> = {
  a: "\x07",
  b: "\b",
  t: "\t",
  n: "\n",
  v: "\v",
  f: "\f",
  r: "\r",
  '"': '"',
  "\\": "\\",
};

// one escape, sticky; octal is never written but Go reads it
const ESCAPE = /\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([0-3][0-7]{2})|([abtnvfr"\\]))/y;

/**
 * The raw bytes of what {@link quoteGo} or Go made.
 *
 * @param quoted valid UTF-8 as bytes, without the outer quotes
 * @throws TreeInvalid when Go's `strconv.Unquote` would refuse it too
 */
export function unquoteGo(quoted: ByteString): ByteString {
  if (PLAIN.test(quoted)) return quoted;
  let out = "";
  for (let at = 0; at < quoted.length; ) {
    const backslash = quoted.indexOf("\\", at);
    const plain = backslash < 0 ? quoted.slice(at) : quoted.slice(at, backslash);
    if (plain.includes('"') || plain.includes("\n")) throw invalidQuote(quoted, "an unescaped quote or line break");
    out += plain;
    if (backslash < 0) break;
    ESCAPE.lastIndex = backslash;
    const match = ESCAPE.exec(quoted);
    if (match === null) throw invalidQuote(quoted, `an unknown escape at byte ${backslash}`);
    out += unescape(match, quoted);
    at = ESCAPE.lastIndex;
  }
  return out;
}

function unescape(match: RegExpExecArray, quoted: ByteString): ByteString {
  const [, byte, short, long, octal, char] = match;
  if (char !== undefined) return UNESCAPED[char] ?? "";
  if (byte !== undefined) return String.fromCharCode(Number.parseInt(byte, 16));
  if (octal !== undefined) return String.fromCharCode(Number.parseInt(octal, 8));
  const code = Number.parseInt(short ?? long ?? "", 16);
  if (code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff)) throw invalidQuote(quoted, `the escape ${match[0]}, which is no character`);
  return fromUtf8(String.fromCodePoint(code));
}

function invalidQuote(quoted: ByteString, found: string): Failure {
  return new Failure(
    "TreeInvalid",
    `Cannot read name "${toUtf8OrEscaped(quoted.slice(0, 300))}": found ${found}, a name quoted as in Go needed`,
  );
}
