/**
 * Names as restic stores them: Go's `strconv.Quote` without the outer quotes, and back.
 *
 * Bytes that are no valid UTF-8, control characters and unprintable characters become escapes, printable UTF-8 stays. What counts as
 * printable depends on the Unicode tables of the writer. Here it is Unicode 15.0, whatever Node knows, because Go has it since 1.21 and so
 * restic since 0.17; restic 0.14 has Unicode 13. A character that was assigned in between is written as an escape by the one and as itself
 * by the other. Both are read alike: only deduplication of the directory that holds such a name is lost, and `restic rewrite`, which
 * insists on writing what it read, refuses it.
 */
import { Failure } from "@granary/base/errors";
import "../errors.ts";
import { type ByteString, fromUtf8, toBytes, toUtf8OrEscaped, utf8LengthAt } from "./byte-string.ts";

// ASCII without control characters, quote and backslash
const PLAIN = /^[ !#-[\]-~]*$/;
// Go's IsPrint: letters, marks, numbers, punctuation, symbols; of the spaces only U+0020
const PRINTABLE = /^[\p{L}\p{M}\p{N}\p{P}\p{S}]$/u;

// What was assigned after Unicode 15.0, up to 17.0, in hex. A test counts what is printable, and fails when Node learns of more.
const LATER_RANGES =
  "88f 897 c5c cdc 1acf-1add 1ae0-1aeb 1b4e-1b4f 1b7f 1c89-1c8a 20c1 2427-2429 2b96 2ffc-2fff 31e4-31e5 31ef a7cb-a7cf a7d2 a7d4 a7da-a7dc " +
  "a7f1 fbc3-fbd2 fd90-fd91 fdc8-fdce 105c0-105f3 10940-10959 10d40-10d65 10d69-10d85 10d8e-10d8f 10ec2-10ec7 10ed0-10ed8 10efa-10efc " +
  "11380-11389 1138b 1138e 11390-113b5 113b7-113c0 113c2 113c5 113c7-113ca 113cc-113d5 113d7-113d8 113e1-113e2 116d0-116e3 11b60-11b67 " +
  "11bc0-11be1 11bf0-11bf9 11db0-11ddb 11de0-11de9 11f5a 13460-143fa 16100-16139 16d40-16d79 16ea0-16eb8 16ebb-16ed3 16ff2-16ff6 " +
  "187f8-187ff 18cff 18d09-18d1e 18d80-18df2 1cc00-1ccfc 1cd00-1ceb3 1ceba-1ced0 1cee0-1cef0 1e5d0-1e5fa 1e5ff 1e6c0-1e6de 1e6e0-1e6f5 " +
  "1e6fe-1e6ff 1f6d8 1f777-1f77a 1f8b2-1f8bb 1f8c0-1f8c1 1f8d0-1f8d8 1fa54-1fa57 1fa89-1fa8a 1fa8e-1fa8f 1fabe 1fac6 1fac8 1facd 1fadc " +
  "1fadf 1fae9-1faea 1faef 1fbcb-1fbef 1fbfa 2b73a-2b73f 2cea2-2cead 2ebf0-2ee5d 323b0-33479";
const LATER = new RegExp(`[${LATER_RANGES.replace(/[0-9a-f]+/g, "\\u{$&}").replaceAll(" ", "")}]`, "u");

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
  if (PRINTABLE.test(char) && !LATER.test(char)) return sequence;
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
