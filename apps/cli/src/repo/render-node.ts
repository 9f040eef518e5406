/** Entries of a snapshot as they are shown: a line for people, an object for programs, in restic's shapes. */

import {
  type ByteString,
  findUtf8,
  formatGoMode,
  formatTimeNs,
  joinTimeNs,
  toBytes,
  toUtf8OrEscaped,
  type TreeNode,
} from "@granary/engine";
import { formatLocalTime } from "../format-amount.ts";

/** How an entry is shown. `escaped` is for a terminal. */
export interface NodeLine {
  readonly bytes: ByteString;
  readonly escaped: string;
}

/** Mode, owner, group, size, time and path of an entry, or the path alone. */
export function renderNodeLine(path: ByteString, node: TreeNode, isLong: boolean): NodeLine {
  if (!isLong) return { bytes: path, escaped: toUtf8OrEscaped(path) };
  const time = formatLocalTime(joinTimeNs(node.mtimeSeconds, node.mtimeNanos));
  const numbers = `${pad(node.uid, 5)} ${pad(node.gid, 5)} ${pad(node.size, 6)}`;
  const head = `${formatGoMode(node.mode)} ${numbers} ${time} `;
  const tail = node.type === "symlink" ? ` -> ${node.linkTarget}` : "";
  return { bytes: `${head}${path}${tail}`, escaped: `${head}${toUtf8OrEscaped(path)}${toUtf8OrEscaped(tail)}` };
}

function pad(value: number | bigint, width: number): string {
  return String(value).padStart(width);
}

/** Raw bytes as a JSON text has them: bytes that are no UTF-8 become U+FFFD, as restic writes them. */
export function textOf(bytes: ByteString): string {
  return findUtf8(bytes) ?? toBytes(bytes).utf8Slice();
}

/** The members for a path in JSON: `path`, and where that loses bytes `path_raw` in base64. */
export function pathMembers(path: ByteString): { readonly path: string; readonly path_raw?: string } {
  const text = findUtf8(path);
  return text === undefined ? { path: textOf(path), path_raw: toBytes(path).toString("base64") } : { path: text };
}

/** An entry as restic's `ls --json` has it, without its message type. Large numbers are kept exact by `stringifyExactly`. */
export function renderNode(path: ByteString, node: TreeNode): Readonly<Record<string, unknown>> {
  const time = (seconds: number, nanos: number): string => formatTimeNs(joinTimeNs(seconds, nanos));
  return {
    name: textOf(node.name),
    type: node.type,
    ...pathMembers(path),
    uid: node.uid,
    gid: node.gid,
    ...(node.user === "" ? {} : { user: node.user }),
    ...(node.group === "" ? {} : { group: node.group }),
    ...(node.type === "file" ? { size: node.size } : {}),
    mode: node.mode,
    permissions: formatGoMode(node.mode),
    mtime: time(node.mtimeSeconds, node.mtimeNanos),
    atime: time(node.atimeSeconds, node.atimeNanos),
    ctime: time(node.ctimeSeconds, node.ctimeNanos),
    ...(node.inode === 0 ? {} : { inode: node.inode }),
    ...(node.linkTarget === "" ? {} : { linktarget: textOf(node.linkTarget) }),
  };
}
