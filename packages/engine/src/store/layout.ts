/**
 * How the files of a repository are named, in a folder and on a REST server alike (restic design.rst, "Repository Layout").
 * Names are checked here before they become part of a path or a URL, whatever they came from.
 */

import { Failure } from "@granary/base/errors";
import "../errors.ts";
import type { FileKind, FileRef } from "./store.ts";

/** Every kind, in the order in which a repository needs them. */
export const fileKinds: readonly FileKind[] = ["config", "key", "lock", "snapshot", "index", "pack"];

const folders: Readonly<Record<FileKind, string>> = {
  config: "",
  key: "keys",
  lock: "locks",
  snapshot: "snapshots",
  index: "index",
  pack: "data",
};

/** The folder that holds the files of a kind, relative to the repository; empty for `config`, which lies at its top. */
export function folderOf(kind: FileKind): string {
  return folders[kind];
}

/** Whether this can be the name of a file other than `config`: 64 lower-case hex digits. */
export function isFileName(name: string): boolean {
  return name.length === 64 && /^[0-9a-f]+$/.test(name);
}

/**
 * Refuses a reference that no repository holds, so that no name ever leads out of the repository.
 *
 * @throws InvalidArgument
 */
export function checkRef(ref: FileRef): void {
  const isRight = ref.kind === "config" ? ref.name === "" : isFileName(ref.name);
  if (isRight) return;
  const need = ref.kind === "config" ? "config has no name of its own" : "64 lower-case hex digits are needed";
  throw new Failure("InvalidArgument", `Cannot name a ${ref.kind} file ${JSON.stringify(ref.name)}: ${need}`, {
    details: { kind: ref.kind, name: ref.name },
  });
}

/** For messages: `pack "ab12…"` with the whole name, or `config`. */
export function describeRef(ref: FileRef): string {
  return ref.kind === "config" ? "config" : `${ref.kind} "${ref.name}"`;
}
