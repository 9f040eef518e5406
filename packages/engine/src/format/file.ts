/**
 * The small sealed files of a repository: snapshot, index, lock, and config.
 *
 * ```
 * file  := sealed(plain)
 * plain := 0x02 | zstd(JSON)         snapshot, index, lock
 *        | JSON                      config; all of them in repositories of version 1; begins with { or [
 * ```
 *
 * @see restic design.rst, "Repository Format", "Unpacked Data Format"
 */
import { Failure } from "@granary/base/errors";
import "../errors.ts";
import { releaseMemory } from "../native/memory.ts";
import { type Sealer, sealOverheadBytes } from "../crypto/seal.ts";
import type { RecordSubject } from "./json-record.ts";
import { OPEN_ARRAY, OPEN_OBJECT } from "./json-scan.ts";
import { boundCompressed, compressInto, decompress, decompressInto } from "./zstd.ts";

const COMPRESSED = 2;
const LEVEL = 3;

/** Seals the JSON of a file. @param compress false for config, and in repositories of version 1; @returns bytes that the caller owns */
export function encodeFile(sealer: Sealer, json: Uint8Array, compress: boolean): Buffer {
  if (!compress) return sealer.seal(json);
  const plain = Buffer.allocUnsafeSlow(1 + boundCompressed(json.length));
  plain[0] = COMPRESSED;
  const frameBytes = compressInto(plain.subarray(1), json, LEVEL);
  const sealed = sealer.seal(plain.subarray(0, 1 + frameBytes));
  releaseMemory(plain);
  return sealed;
}

/** What is read, and what of it is believed. */
export interface DecodeFileOptions extends RecordSubject {
  /** JSON may take this much at most; more is taken for an attack. */
  readonly limitBytes: number;
}

/**
 * Opens a file and decompresses it when it is compressed.
 *
 * @param sealed not changed
 * @returns the JSON, which the caller owns
 * @throws the subject's code, with the cause `SealBroken` when it was damaged or sealed under another key
 */
export function decodeFile(sealer: Sealer, sealed: Uint8Array, options: DecodeFileOptions): Uint8Array {
  const plain = openSealed(sealer, sealed, options);
  const first = plain[0];
  if (first === OPEN_OBJECT || first === OPEN_ARRAY) return plain;
  if (first !== COMPRESSED) {
    const found = first === undefined ? "it is empty" : `it begins with byte 0x${first.toString(16).padStart(2, "0")}`;
    throw refuse(options, `${found}, JSON or compressed JSON needed`);
  }
  const json = unfold(plain.subarray(1), options);
  releaseMemory(plain);
  return json;
}

function openSealed(sealer: Sealer, sealed: Uint8Array, subject: RecordSubject): Uint8Array {
  try {
    return sealer.open(sealed);
  } catch (cause) {
    const found =
      sealed.length < sealOverheadBytes
        ? `it is ${sealed.length} bytes, more than ${sealOverheadBytes} needed`
        : "its authentication code does not match: it is damaged, or sealed under another key";
    throw refuse(subject, found, cause);
  }
}

function unfold(frame: Uint8Array, options: DecodeFileOptions): Uint8Array {
  const { limitBytes } = options;
  const promised = findContentSize(frame);
  if (promised !== undefined && promised > limitBytes)
    throw refuse(options, `it decompresses to ${promised} bytes, at most ${limitBytes} allowed`);
  if (promised !== undefined) {
    const json = Buffer.allocUnsafeSlow(promised);
    if (decompressInto(json, frame) === promised) return json;
  }
  // Either the frame does not say how much it holds, or there are several, or it is damaged.
  try {
    return decompress(frame, limitBytes);
  } catch (cause) {
    throw refuse(options, `it cannot be decompressed to ${limitBytes} bytes or less`, cause);
  }
}

/** The plain length that a zstd frame promises, if it does. (RFC 8878 §3.1.1.1, "Frame_Header") */
function findContentSize(frame: Uint8Array): number | undefined {
  const view = new DataView(frame.buffer, frame.byteOffset, frame.byteLength);
  if (frame.length < 18 || view.getUint32(0, true) !== 0xfd2fb528) return undefined;
  const descriptor = view.getUint8(4);
  const isSingleSegment = (descriptor & 0x20) !== 0;
  const dictionaryBytes = [0, 1, 2, 4][descriptor & 3] ?? 0;
  const at = 5 + (isSingleSegment ? 0 : 1) + dictionaryBytes;
  switch (descriptor >>> 6) {
    case 0:
      return isSingleSegment ? view.getUint8(at) : undefined;
    case 1:
      return view.getUint16(at, true) + 256;
    case 2:
      return view.getUint32(at, true);
    default:
      return Number(view.getBigUint64(at, true));
  }
}

function refuse(subject: RecordSubject, found: string, cause?: unknown): Failure {
  return new Failure(subject.code, `Cannot read ${subject.subject}: ${found}`, { cause });
}
