/**
 * Reads spans of packs in a worker, synchronously: straight from the files where the store is on this machine, else through a mailbox that
 * the main thread serves.
 */
import { Buffer } from "node:buffer";
import { Failure } from "@granary/base/errors";
import { hexOf } from "../format/ids.ts";
import { closeHandle, openAt, openFlags, readHandleAt, workingDirectory } from "../native/libc.ts";
import { openMailboxReader, type PackMailbox, type PackReader } from "./pack-mailbox.ts";

/** How a worker gets at packs: it opens them itself, or the main thread loads them for it. */
export type PackAccess =
  | { readonly kind: "local"; readonly directory: string }
  | { readonly kind: "remote"; readonly mailbox: PackMailbox };

/** Opens the way to the packs that a worker was given. */
export function openPackReader(access: PackAccess): PackReader {
  if (access.kind === "remote") return openMailboxReader(access.mailbox);
  const { directory } = access;
  return openLocalPackReader((packId) => `${directory}/data/${packId.slice(0, 2)}/${packId}`);
}

const openPacks = 16;

/** Reads packs of a repository whose files this process can open. @param pathOf the path of a pack by its id in hex */
export function openLocalPackReader(pathOf: (packId: string) => string): PackReader {
  const handles = new Map<string, number>(); // least recently used first
  return {
    read(packId, offsetBytes, target) {
      const name = hexOf(packId, 0);
      let handle = handles.get(name);
      if (handle === undefined) {
        handle = openAt(workingDirectory, Buffer.from(pathOf(name)).latin1Slice(), openFlags.readOnly);
        if (handle < 0)
          throw new Failure("StoreFileNotFound", `Cannot open pack "${name}": error ${-handle} of the file system`, {
            details: { packId: name },
          });
      } else handles.delete(name);
      handles.set(name, handle);
      if (handles.size > openPacks) {
        const [oldest] = handles;
        if (oldest !== undefined) {
          closeHandle(oldest[1]);
          handles.delete(oldest[0]);
        }
      }
      readFully({ handle, name }, offsetBytes, target);
    },
    close() {
      for (const handle of handles.values()) closeHandle(handle);
      handles.clear();
    },
  };
}

function readFully(pack: { handle: number; name: string }, offsetBytes: number, target: Uint8Array): void {
  const { handle, name } = pack;
  for (let have = 0; have < target.length; ) {
    const got = readHandleAt(handle, have === 0 ? target : target.subarray(have), offsetBytes + have);
    if (got < 0)
      throw new Failure("StoreUnavailable", `Cannot read pack "${name}": error ${-got} of the file system`, { details: { packId: name } });
    if (got === 0) {
      throw new Failure(
        "StoreTruncated",
        `Cannot read pack "${name}": it ends at ${offsetBytes + have}, ${target.length} bytes at ${offsetBytes} are needed`,
        {
          details: { packId: name },
        },
      );
    }
    have += got;
  }
}
