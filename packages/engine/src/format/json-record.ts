/**
 * Reading the small JSON files (snapshot, lock, config, key): one object each, strict about types, indifferent to unknown fields.
 *
 * As in Go, `null` stands for an absent field. What a field needs and what was found is said in the failure.
 */
import { Failure } from "@granary/base/errors";
import "../errors.ts";
import { sliceUtf8 } from "./byte-string.ts";
import { CLOSE_OBJECT, COMMA, OPEN_OBJECT, readText, skipColon, skipKey, skipSpace, skipValue } from "./json-scan.ts";
import { type JsonValue, parseExact } from "./json.ts";
import { findTimeNs } from "./time.ts";

/** The members of an object, each value still as JSON text, and what to say when one is wrong. */
export interface JsonRecord {
  readonly members: ReadonlyMap<string, string>;
  /** Code of failures, such as `SnapshotInvalid`. */
  readonly code: string;
  /** What is read, for messages, such as `snapshot "ab12…"`. */
  readonly subject: string;
}

/** What fails, and what it is called: the fixed part of a {@link JsonRecord}. */
export type RecordSubject = Omit<JsonRecord, "members">;

/** Splits an object into its members. Of a field that comes twice the last counts. @throws the subject's code */
export function parseRecord(bytes: Uint8Array, subject: RecordSubject): JsonRecord {
  const members = new Map<string, string>();
  let at = skipSpace(bytes, 0);
  if (bytes[at] !== OPEN_OBJECT) throw notRecord(bytes, at, subject);
  at = skipSpace(bytes, at + 1);
  while (bytes[at] !== CLOSE_OBJECT) {
    const keyEnd = skipKey(bytes, at);
    const valueAt = keyEnd < 0 ? -1 : skipColon(bytes, keyEnd);
    const valueEnd = valueAt < 0 ? -1 : skipValue(bytes, valueAt, 1);
    if (valueEnd < 0) throw notRecord(bytes, at, subject);
    members.set(readText(bytes, at, keyEnd), sliceUtf8(bytes, valueAt, valueEnd));
    at = skipSpace(bytes, valueEnd);
    if (bytes[at] === COMMA) {
      at = skipSpace(bytes, at + 1);
      if (bytes[at] === CLOSE_OBJECT) throw notRecord(bytes, at, subject);
    } else if (bytes[at] !== CLOSE_OBJECT) throw notRecord(bytes, at, subject);
  }
  at = skipSpace(bytes, at + 1);
  if (at !== bytes.length) throw notRecord(bytes, at, subject);
  return { members, ...subject };
}

/** The members that are none of `known`, in their order, as JSON text. */
export function unknownMembers(record: JsonRecord, known: ReadonlySet<string>): ReadonlyMap<string, string> {
  return new Map([...record.members].filter(([key]) => !known.has(key)));
}

function findValue(record: JsonRecord, field: string): JsonValue | undefined {
  const text = record.members.get(field);
  if (text === undefined) return undefined;
  const value = parseExact(text);
  return value === null ? undefined : value;
}

/** The failure of a field that is not what is needed. */
export function wrongField(record: JsonRecord, field: string, needed: string): Failure {
  const text = record.members.get(field);
  const found = text === undefined ? "missing" : text.length > 100 ? `${text.slice(0, 100)}…` : text;
  return new Failure(record.code, `Cannot read ${record.subject}: field "${field}" is ${found}, ${needed} needed`, { details: { field } });
}

/** A text, or "" when it is absent. @throws the record's code */
export function readTextField(record: JsonRecord, field: string): string {
  const value = findValue(record, field) ?? "";
  if (typeof value !== "string") throw wrongField(record, field, "a string");
  return value;
}

/** A list of texts, empty when it is absent. @throws the record's code */
export function readTextsField(record: JsonRecord, field: string): readonly string[] {
  const value = findValue(record, field) ?? [];
  if (!Array.isArray(value)) throw wrongField(record, field, "an array of strings");
  return value.map((item: JsonValue) => {
    if (typeof item !== "string") throw wrongField(record, field, "an array of strings");
    return item;
  });
}

/** A whole number from 0 to `max`, 0 when it is absent. @throws the record's code */
export function readCountField(record: JsonRecord, field: string, max: number = Number.MAX_SAFE_INTEGER): number {
  const value = findValue(record, field) ?? 0;
  if (typeof value !== "number" || !Number.isSafeInteger(value) || value < 0 || value > max) {
    throw wrongField(record, field, `a whole number from 0 to ${max}`);
  }
  return value;
}

/** A yes or no, no when it is absent. @throws the record's code */
export function readFlagField(record: JsonRecord, field: string): boolean {
  const value = findValue(record, field) ?? false;
  if (typeof value !== "boolean") throw wrongField(record, field, "true or false");
  return value;
}

/** An instant in nanoseconds since 1970, or `undefined` when it is absent. @throws the record's code */
export function findTimeField(record: JsonRecord, field: string): bigint | undefined {
  const text = readTextField(record, field);
  if (text === "") return undefined;
  const timeNs = findTimeNs(text);
  if (timeNs === undefined) throw wrongField(record, field, "a time");
  return timeNs;
}

/** An instant in nanoseconds since 1970, which must be there. @throws the record's code */
export function readTimeField(record: JsonRecord, field: string): bigint {
  const timeNs = findTimeField(record, field);
  if (timeNs === undefined) throw wrongField(record, field, "a time");
  return timeNs;
}

const BASE64 = /^[A-Za-z0-9+/]*={0,2}$/;

/** Bytes in base64, none when it is absent. @throws the record's code */
export function readBytesField(record: JsonRecord, field: string): Uint8Array {
  const text = readTextField(record, field);
  // the text is not repeated in the message: it may be a key
  if (text.length % 4 !== 0 || !BASE64.test(text)) {
    throw new Failure(record.code, `Cannot read ${record.subject}: field "${field}" is no base64`, { details: { field } });
  }
  return new Uint8Array(Buffer.from(text, "base64"));
}

/** An object inside, or `undefined` when it is absent. @throws the record's code */
export function findRecordField(record: JsonRecord, field: string): JsonRecord | undefined {
  const text = record.members.get(field);
  if (text === undefined || text === "null") return undefined;
  if (!text.startsWith("{")) throw wrongField(record, field, "an object");
  return parseRecord(Buffer.from(text, "utf8"), { code: record.code, subject: `${record.subject}, "${field}"` });
}

function notRecord(bytes: Uint8Array, at: number, subject: RecordSubject): Failure {
  const found = at < bytes.length ? `byte 0x${(bytes[at] ?? 0).toString(16).padStart(2, "0")} at ${at}` : "its end";
  return new Failure(subject.code, `Cannot read ${subject.subject}: found ${found} of ${bytes.length} bytes, a JSON object needed`, {
    details: { offsetBytes: at, sizeBytes: bytes.length },
  });
}
