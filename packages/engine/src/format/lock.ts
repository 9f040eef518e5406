/**
 * Lock files: who is using the repository, and whether alone.
 *
 * `{"time":…,"exclusive":…,"hostname":…,"username":…,"pid":…,"uid"?,"gid"?}`
 *
 * @see restic design.rst, "Locks"
 */
import type { LockId } from "./ids.ts";
import { parseRecord, readCountField, readFlagField, readTextField, readTimeField } from "./json-record.ts";
import { RecordWriter } from "./record-writer.ts";
import { formatTimeNs } from "./time.ts";

export interface Lock {
  /** When it was made, or made again; nanoseconds since 1970. */
  readonly timeNs: bigint;
  /** Nobody else may hold a lock of any kind. */
  readonly exclusive: boolean;
  readonly hostname: string;
  readonly username: string;
  readonly pid: number;
  readonly uid: number;
  readonly gid: number;
}

/** The JSON of a lock file; the caller owns it. */
export function encodeLock(lock: Lock): Buffer {
  const json = new RecordWriter()
    .addText("time", formatTimeNs(lock.timeNs))
    .add("exclusive", String(lock.exclusive))
    .addText("hostname", lock.hostname)
    .addText("username", lock.username)
    .addNumber("pid", lock.pid)
    .addNumberIfAny("uid", lock.uid)
    .addNumberIfAny("gid", lock.gid)
    .toJson();
  return Buffer.from(json, "utf8");
}

/** Reads a lock file. @param id its name, for messages; @throws LockInvalid */
export function parseLock(bytes: Uint8Array, id: LockId): Lock {
  const record = parseRecord(bytes, { code: "LockInvalid", subject: `lock "${id}"` });
  return {
    timeNs: readTimeField(record, "time"),
    exclusive: readFlagField(record, "exclusive"),
    hostname: readTextField(record, "hostname"),
    username: readTextField(record, "username"),
    pid: readCountField(record, "pid"),
    uid: readCountField(record, "uid", 0xffffffff),
    gid: readCountField(record, "gid", 0xffffffff),
  };
}
