/**
 * Key files: the repository's master key, sealed under a key that scrypt makes from a password.
 *
 * `{"created":…,"username":…,"hostname":…,"kdf":"scrypt","N":…,"r":…,"p":…,"salt":"<base64, 64 bytes>","data":"<base64, sealed>"}`, not sealed itself;
 * what `data` seals is `{"mac":{"k":"<16 bytes>","r":"<16 bytes>"},"encrypt":"<32 bytes>"}`.
 *
 * Key files are read before anything is authenticated, so the cost of scrypt is bounded before it is paid.
 *
 * @see restic design.rst, "Keys, Encryption and MAC"
 */
import { Failure } from "@granary/base/errors";
import "../errors.ts";
import type { MasterKey } from "../crypto/seal.ts";
import type { KeyId } from "./ids.ts";
import {
  findRecordField,
  findTimeField,
  type JsonRecord,
  parseRecord,
  readBytesField,
  readCountField,
  readTextField,
  wrongField,
} from "./json-record.ts";
import { RecordWriter } from "./record-writer.ts";
import { SEAL_BYTES } from "./pack.ts";
import { formatTimeNs } from "./time.ts";

/** The work that scrypt does; the names are those of RFC 7914. */
export interface ScryptCost {
  /** A power of two. */
  readonly N: number;
  readonly r: number;
  readonly p: number;
}

export interface KeyFile {
  /** Nanoseconds since 1970. */
  readonly createdNs: bigint;
  readonly username: string;
  readonly hostname: string;
  readonly cost: ScryptCost;
  /** {@link SALT_BYTES} bytes. */
  readonly salt: Uint8Array;
  /** The sealed master key. */
  readonly data: Uint8Array;
}

export const SALT_BYTES = 64;
/** `N` is at most this. */
export const MAX_SCRYPT_N: number = 2 ** 22;
/** `128·N·r·p`, which bounds memory and time, is at most this. restic's own keys stay below 0.5 GiB. */
export const MAX_SCRYPT_BYTES: number = 2 ** 30;

// The sealed master key is some 180 bytes; there is no reason for much more.
const MAX_DATA_BYTES = 64 * 1024;

/** The JSON of a key file; the caller owns it. */
export function encodeKeyFile(key: KeyFile): Buffer {
  const json = new RecordWriter()
    .addText("created", formatTimeNs(key.createdNs))
    .addText("username", key.username)
    .addText("hostname", key.hostname)
    .addText("kdf", "scrypt")
    .addNumber("N", key.cost.N)
    .addNumber("r", key.cost.r)
    .addNumber("p", key.cost.p)
    .addText("salt", toBase64(key.salt))
    .addText("data", toBase64(key.data))
    .toJson();
  return Buffer.from(json, "utf8");
}

/** Reads a key file. @param id its name, for messages; @throws KeyInvalid */
export function parseKeyFile(bytes: Uint8Array, id: KeyId): KeyFile {
  const record = parseRecord(bytes, { code: "KeyInvalid", subject: `key "${id}"` });
  if (readTextField(record, "kdf") !== "scrypt") throw wrongField(record, "kdf", '"scrypt"');
  const salt = readBytesField(record, "salt");
  if (salt.length !== SALT_BYTES) throw wrongLength(record, "salt", { foundBytes: salt.length, needed: `exactly ${SALT_BYTES}` });
  const data = readBytesField(record, "data");
  if (data.length <= SEAL_BYTES) throw wrongLength(record, "data", { foundBytes: data.length, needed: `more than ${SEAL_BYTES}` });
  if (data.length > MAX_DATA_BYTES) throw wrongLength(record, "data", { foundBytes: data.length, needed: `at most ${MAX_DATA_BYTES}` });
  return {
    createdNs: findTimeField(record, "created") ?? 0n,
    username: readTextField(record, "username"),
    hostname: readTextField(record, "hostname"),
    cost: readCost(record),
    salt,
    data,
  };
}

function readCost(record: JsonRecord): ScryptCost {
  const N = readCountField(record, "N", MAX_SCRYPT_N);
  // a power of two has one bit
  if (N < 2 || (N & (N - 1)) !== 0) throw wrongField(record, "N", `a power of two from 2 to ${MAX_SCRYPT_N}`);
  const r = readCountField(record, "r");
  if (r < 1) throw wrongField(record, "r", "at least 1");
  const p = readCountField(record, "p");
  if (p < 1) throw wrongField(record, "p", "at least 1");
  if (128 * N * r * p > MAX_SCRYPT_BYTES) {
    const message = `Cannot read ${record.subject}: scrypt with N=${N}, r=${r}, p=${p} would work on ${128 * N * r * p} bytes, at most ${MAX_SCRYPT_BYTES} allowed`;
    throw new Failure(record.code, message, { details: { N, r, p } });
  }
  return { N, r, p };
}

/** The JSON of a master key, to be sealed; the caller owns it, and should clear it. */
export function encodeMasterKey(key: MasterKey): Buffer {
  const mac = new RecordWriter().addText("k", toBase64(key.macK)).addText("r", toBase64(key.macR)).toJson();
  return Buffer.from(new RecordWriter().add("mac", mac).addText("encrypt", toBase64(key.encrypt)).toJson(), "utf8");
}

/** Reads an opened master key. @param id name of the key file it comes from, for messages; @throws KeyInvalid */
export function parseMasterKey(bytes: Uint8Array, id: KeyId): MasterKey {
  const record = parseRecord(bytes, { code: "KeyInvalid", subject: `master key in key "${id}"` });
  const mac = findRecordField(record, "mac");
  if (mac === undefined) throw new Failure("KeyInvalid", `Cannot read ${record.subject}: field "mac" is missing`);
  return { encrypt: readSecret(record, "encrypt", 32), macK: readSecret(mac, "k", 16), macR: readSecret(mac, "r", 16) };
}

function readSecret(record: JsonRecord, field: string, sizeBytes: number): Uint8Array {
  const bytes = readBytesField(record, field);
  if (bytes.length !== sizeBytes) throw wrongLength(record, field, { foundBytes: bytes.length, needed: `exactly ${sizeBytes}` });
  return bytes;
}

// Says the length only: what the field holds may be secret.
function wrongLength(record: JsonRecord, field: string, length: { foundBytes: number; needed: string }): Failure {
  const { foundBytes, needed } = length;
  return new Failure(record.code, `Cannot read ${record.subject}: field "${field}" is ${foundBytes} bytes, ${needed} needed`, {
    details: { field, foundBytes },
  });
}

function toBase64(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("base64");
}
