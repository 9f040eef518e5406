/** What is in the target already, where the snapshot has an entry: read only. */
import type { ByteString } from "../format/byte-string.ts";
import { nodeTypeOfMode, type NodeType } from "../format/mode.ts";
import type { TreeNode } from "../format/node.ts";
import { closeHandle, FileStatus, openAt, openFlags, type Place, readAttribute, readLinkAt, readNames, statAt } from "../native/libc.ts";
import { action, type Action } from "./entry-table.ts";
import { type ContentCheck, openToRead } from "./content-check.ts";
import type { OverwriteMode } from "./messages.ts";

/** What is found, and what is to be done about it. */
export interface Finding {
  readonly action: Action;
  /** Why it is blocked. */
  readonly message?: string;
  /** The mode (`st_mode`) of what is there. */
  readonly mode: number;
}

const listFlags = openFlags.readOnly | openFlags.directory | openFlags.noFollow | openFlags.nonBlock;

/** The names in a directory. @returns -errno when it cannot be read @param handle a path handle of it */
export function listNames(handle: number): ByteString[] | number {
  const reading = openAt(handle, ".", listFlags);
  if (reading < 0) return reading;
  const names: ByteString[] = [];
  const listed = readNames(reading, names);
  closeHandle(reading);
  return listed < 0 ? listed : names;
}

/** Whether what is made in this directory inherits an access list. @param path of the directory */
export function hasDefaultList(path: ByteString): boolean {
  return typeof readAttribute(path, "system.posix_acl_default") !== "number";
}

export class TargetLook {
  readonly #overwrite: OverwriteMode;
  readonly #content: ContentCheck;
  readonly #status = new FileStatus();

  constructor(overwrite: OverwriteMode, content: ContentCheck) {
    this.#overwrite = overwrite;
    this.#content = content;
  }

  /**
   * Decides what to do with an entry where something may be.
   *
   * @param blobs of a file: its pieces, as entries of the blob index
   * @param different of a file whose action is `update`: gets the pieces that are to be written
   */
  look(place: Place, node: TreeNode, file: { blobs: ArrayLike<number>; sizeBytes: number; different: number[] }): Finding {
    const status = this.#status;
    const { mode } = statAt(place.directory, place.name, status) < 0 ? { mode: 0 } : status;
    if (mode === 0) return { action: action.create, mode };
    const type = nodeTypeOfMode(mode);
    if (type === "dir" && node.type === "dir") return { action: action.refresh, mode };
    if (this.#overwrite === "never" || (this.#overwrite === "if-newer" && !isNewer(node, status))) {
      return node.type === "dir"
        ? { action: action.block, message: `a ${textOf(type)} is in the way`, mode }
        : { action: action.skip, mode };
    }
    if (type === "dir") {
      const handle = openAt(place.directory, place.name, openFlags.path | openFlags.directory | openFlags.noFollow);
      const names = handle < 0 ? handle : listNames(handle);
      if (handle >= 0) closeHandle(handle);
      if (typeof names !== "number" && names.length === 0) return { action: action.replace, mode };
      return { action: action.block, message: "a folder that is not empty is in the way", mode };
    }
    if (type !== node.type) return { action: action.replace, mode };
    if (type === "file") return { action: this.#lookIntoFile(place, node, file), mode };
    return { action: this.#isSameSpecial(place, node, type) ? action.refresh : action.replace, mode };
  }

  #lookIntoFile(place: Place, node: TreeNode, file: { blobs: ArrayLike<number>; sizeBytes: number; different: number[] }): Action {
    const status = this.#status;
    const { sizeBytes, links } = status;
    const isSameSize = sizeBytes === file.sizeBytes;
    if (this.#overwrite === "if-changed" && isSameSize && isSameTime(node, status)) return action.refresh;
    // the pieces of a small file of another size are hardly the same
    const isWorthReading = isSameSize || file.blobs.length > 1;
    if (!isWorthReading) {
      for (let at = 0; at < file.blobs.length; at++) file.different.push(at);
    } else {
      const handle = openToRead(place);
      const read = handle < 0 ? handle : this.#content.compare(handle, { blobs: file.blobs, sizeBytes }, (at) => file.different.push(at));
      if (handle >= 0) closeHandle(handle);
      if (read < 0) return action.replace;
      if (isSameSize && file.different.length === 0) return action.refresh;
    }
    // other names of the file are not to change with it
    return links > 1 ? action.replace : action.update;
  }

  #isSameSpecial(place: Place, node: TreeNode, type: NodeType): boolean {
    if (type === "symlink") return readLinkAt(place.directory, place.name) === node.linkTarget;
    if (type === "dev" || type === "chardev") return this.#status.device === BigInt(node.device);
    return true;
  }
}

function isSameTime(node: TreeNode, status: FileStatus): boolean {
  return status.mtimeSeconds === node.mtimeSeconds && status.mtimeNanos === node.mtimeNanos;
}

function isNewer(node: TreeNode, status: FileStatus): boolean {
  return node.mtimeSeconds > status.mtimeSeconds || (node.mtimeSeconds === status.mtimeSeconds && node.mtimeNanos > status.mtimeNanos);
}

function textOf(type: NodeType): string {
  return type === "symlink" ? "symbolic link" : type === "irregular" ? "special file" : type;
}
