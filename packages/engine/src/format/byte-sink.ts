/** A buffer that grows while JSON is written into it, byte by byte. */
import { releaseMemory } from "../native/memory.ts";
import { ID_CHARS, writeHex } from "./ids.ts";

// Below this, a loop beats the call into native code.
const SHORT_STRING = 24;

/** Bytes written so far. Not safe to read beyond `length`; what lies there is rubbish. */
export class ByteSink {
  /** Replaced when it grows, so do not keep it. */
  bytes: Buffer;
  length = 0;

  constructor(capacityBytes = 4096) {
    this.bytes = Buffer.allocUnsafeSlow(capacityBytes);
  }

  /** Makes room for `moreBytes` behind what is written. */
  reserve(moreBytes: number): void {
    const needed = this.length + moreBytes;
    if (needed <= this.bytes.length) return;
    const grown = Buffer.allocUnsafeSlow(Math.max(needed, this.bytes.length * 2));
    this.bytes.copy(grown, 0, 0, this.length);
    releaseMemory(this.bytes);
    this.bytes = grown;
  }

  /** Forgets what was written and keeps the memory. */
  reset(): void {
    this.length = 0;
  }

  writeByte(byte: number): void {
    this.reserve(1);
    this.bytes[this.length++] = byte;
  }

  /** Writes each character as one byte. */
  writeLatin1(text: string): void {
    const count = text.length;
    this.reserve(count);
    if (count > SHORT_STRING) {
      this.bytes.latin1Write(text, this.length, count);
      this.length += count;
      return;
    }
    const { bytes } = this;
    let at = this.length;
    for (let i = 0; i < count; i++) bytes[at++] = text.charCodeAt(i);
    this.length = at;
  }

  /** Writes a few bytes that do not change, such as the keys of a format; quicker than {@link writeLatin1}. */
  writePart(part: Uint8Array): void {
    this.reserve(part.length);
    this.length = writePart(this.bytes, this.length, part);
  }

  /** Writes the bytes from `start` to `end`. */
  writeBytes(source: Uint8Array, start = 0, end: number = source.length): void {
    this.reserve(end - start);
    this.bytes.set(source.subarray(start, end), this.length);
    this.length += end - start;
  }

  /** Writes a whole number of at least 0 in decimal digits. */
  writeInteger(value: number | bigint): void {
    this.reserve(20);
    this.length = writeDigits(this.bytes, this.length, value);
  }

  /** Writes the 32 bytes at `offset` of `source` as 64 hex characters in quotes. */
  writeQuotedId(source: Uint8Array, offset = 0): void {
    this.reserve(ID_CHARS + 2);
    const { bytes } = this;
    const at = this.length;
    bytes[at] = 0x22;
    writeHex(bytes, at + 1, source, offset);
    bytes[at + 1 + ID_CHARS] = 0x22;
    this.length = at + ID_CHARS + 2;
  }

  /** Whether what was written from `from` on stands in `other` at `otherAt`. */
  equalsAt(from: number, other: Uint8Array, otherAt: number): boolean {
    const count = this.length - from;
    if (otherAt + count > other.length) return false;
    return this.bytes.compare(other, otherAt, otherAt + count, from, this.length) === 0;
  }

  /** A copy of what was written from `from` on; the caller owns it. */
  copy(from = 0): Buffer {
    const bytes = Buffer.allocUnsafeSlow(this.length - from);
    this.bytes.copy(bytes, 0, from, this.length);
    return bytes;
  }
}

/** Copies a few bytes, for which a loop beats the call into native code; the caller makes sure of the room. @returns the offset behind them */
export function writePart(target: Uint8Array, at: number, part: Uint8Array): number {
  for (let i = 0; i < part.length; i++) target[at + i] = part[i] ?? 0;
  return at + part.length;
}

/** Writes a whole number of at least 0 in decimal digits; the caller makes sure of 20 bytes of room. @returns the offset behind it */
export function writeDigits(target: Uint8Array, at: number, value: number | bigint): number {
  if (typeof value === "bigint" || value > 0x7fffffff) {
    const text = value.toString();
    for (let i = 0; i < text.length; i++) target[at++] = text.charCodeAt(i);
    return at;
  }
  let digits = 1;
  for (let bound = 10; bound <= value; bound *= 10) digits++;
  const end = at + digits;
  let rest = value | 0;
  for (let place = end - 1; place >= at; place--) {
    const next = (rest / 10) | 0;
    target[place] = 0x30 + (rest - next * 10);
    rest = next;
  }
  return end;
}
