/**
 * Arguments of the command line without loss. Node decodes them as UTF-8, which would change file names that are none; here each byte that
 * is no UTF-8 becomes the half surrogate U+DC00 plus its value, which no text has, and {@link bytesOfArgument} takes it back.
 */

import { readFileSync } from "node:fs";

/** The arguments after the script's name. */
export function readArguments(): string[] {
  const decoded = process.argv.slice(2);
  if (!decoded.some((text) => text.includes("\ufffd"))) return decoded;
  try {
    const raw = readFileSync("/proc/self/cmdline").latin1Slice().split("\0").slice(0, -1);
    return raw.slice(raw.length - decoded.length).map(textOfBytes);
  } catch {
    return decoded; // not Linux: such names cannot be given there
  }
}

/** The text of an argument that was given as these bytes (one character each). */
export function textOfBytes(bytes: string): string {
  const text = Buffer.from(bytes, "latin1").utf8Slice();
  if (!text.includes("\ufffd")) return text;
  return bytes.replace(/[\x80-\xff]+/g, (run) => {
    let out = "";
    for (let at = 0; at < run.length; ) {
      const found = [4, 3, 2].find((length) => isCharacter(run.slice(at, at + length), length));
      out +=
        found === undefined
          ? String.fromCharCode(0xdc00 + run.charCodeAt(at))
          : Buffer.from(run.slice(at, at + found), "latin1").utf8Slice();
      at += found ?? 1;
    }
    return out;
  });
}

function isCharacter(bytes: string, length: number): boolean {
  if (bytes.length !== length) return false;
  const text = Buffer.from(bytes, "latin1").utf8Slice();
  return Array.from(text).length === 1 && Buffer.from(text, "utf8").latin1Slice() === bytes;
}

/** The bytes that an argument was given as, one character each: the engine's `ByteString`. */
export function bytesOfArgument(text: string): string {
  return Array.from(text, (character) => {
    const code = character.codePointAt(0) ?? 0;
    if (code < 0x80) return character;
    if (code >= 0xdc80 && code <= 0xdcff) return String.fromCharCode(code - 0xdc00);
    return Buffer.from(character, "utf8").latin1Slice();
  }).join("");
}

/** An argument as it can be shown: bytes that are no UTF-8 as `\xNN`. */
export function showArgument(text: string): string {
  return text.replace(/[\udc80-\udcff](?<![\ud800-\udbff].)/g, (half) => `\\x${(half.charCodeAt(0) - 0xdc00).toString(16)}`);
}
