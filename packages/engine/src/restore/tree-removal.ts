/** Removes what is below a name, without following links or entering other file systems. */
import type { ByteString } from "../format/byte-string.ts";
import { nodeTypeOfMode } from "../format/mode.ts";
import { closeHandle, FileStatus, openAt, openFlags, type Place, statAt, statHandle, unlinkAt } from "../native/libc.ts";
import { describeError, isError } from "./errno-text.ts";
import { listNames } from "./target-look.ts";

const directoryFlags = openFlags.path | openFlags.directory | openFlags.noFollow;

interface Level {
  readonly name: ByteString;
  /** Of the directory itself. */
  readonly handle: number;
  readonly names: ByteString[];
}

/**
 * Removes a file, or a folder with all that is in it; each folder is opened relative to the one above.
 *
 * @returns what went wrong first, or `undefined`; what could not be removed stays, with the folders above it
 */
export function removeTree(place: Place): string | undefined {
  const status = new FileStatus();
  const looked = statHandle(place.directory, status);
  if (looked < 0) return describeError(looked);
  const { fileSystem } = status;
  const levels: Level[] = [];
  let problem: string | undefined;

  function fail(result: number): void {
    problem ??= describeError(result);
  }

  function take(directory: number, name: ByteString): void {
    const found = statAt(directory, name, status);
    if (isError(found, "ENOENT")) return;
    if (found < 0) return fail(found);
    if (nodeTypeOfMode(status.mode) !== "dir") {
      const removed = unlinkAt(directory, name);
      if (removed < 0 && !isError(removed, "ENOENT")) fail(removed);
    } else if (status.fileSystem !== fileSystem) problem ??= "another file system is mounted there";
    else {
      const handle = openAt(directory, name, directoryFlags);
      if (handle < 0) return fail(handle);
      const names = listNames(handle);
      if (typeof names === "number") fail(names);
      levels.push({ name, handle, names: typeof names === "number" ? [] : names });
    }
  }

  take(place.directory, place.name);
  for (let level = levels.at(-1); level !== undefined; level = levels.at(-1)) {
    const next = level.names.pop();
    if (next !== undefined) take(level.handle, next);
    else {
      levels.pop();
      closeHandle(level.handle);
      const removed = unlinkAt(levels.at(-1)?.handle ?? place.directory, level.name, true);
      if (removed < 0 && !isError(removed, "ENOENT")) fail(removed);
    }
  }
  return problem;
}
