/**
 * File modes: what POSIX `stat` gives, and what the format stores, which is Go's `fs.FileMode`.
 *
 * ```
 * Go bit   31   27       26      25    24      23      22      21       20      19         8…0
 *          dir  symlink  device  fifo  socket  setuid  setgid  chardev  sticky  irregular  rwxrwxrwx
 * ```
 */

/** What a node is. `irregular` is something the writer's system could not name. */
export type NodeType = "file" | "dir" | "symlink" | "dev" | "chardev" | "fifo" | "socket" | "irregular";

/** The permission bits of a Go mode. */
export const GO_PERMISSIONS = 0o777;
export const GO_DIR: number = 2 ** 31;
export const GO_SYMLINK: number = 2 ** 27;
export const GO_DEVICE: number = 2 ** 26;
export const GO_FIFO: number = 2 ** 25;
export const GO_SOCKET: number = 2 ** 24;
export const GO_SETUID: number = 2 ** 23;
export const GO_SETGID: number = 2 ** 22;
export const GO_CHARDEV: number = 2 ** 21;
export const GO_STICKY: number = 2 ** 20;
export const GO_IRREGULAR: number = 2 ** 19;

// indexed by the four type bits of st_mode
const TYPES: readonly NodeType[] = Array.from({ length: 16 }, (_, bits): NodeType => {
  switch (bits) {
    case 0o1:
      return "fifo";
    case 0o2:
      return "chardev";
    case 0o4:
      return "dir";
    case 0o6:
      return "dev";
    case 0o10:
      return "file";
    case 0o12:
      return "symlink";
    case 0o14:
      return "socket";
    default:
      return "irregular";
  }
});

const GO_TYPE_BITS: Readonly<Record<NodeType, number>> = {
  file: 0,
  dir: GO_DIR,
  symlink: GO_SYMLINK,
  dev: GO_DEVICE,
  chardev: GO_DEVICE + GO_CHARDEV,
  fifo: GO_FIFO,
  socket: GO_SOCKET,
  irregular: GO_IRREGULAR,
};

const POSIX_TYPE_BITS: Readonly<Record<NodeType, number>> = {
  file: 0o100000,
  dir: 0o040000,
  symlink: 0o120000,
  dev: 0o060000,
  chardev: 0o020000,
  fifo: 0o010000,
  socket: 0o140000,
  irregular: 0,
};

/** Whether `text` names a node type. */
export function isNodeType(text: string): text is NodeType {
  return Object.hasOwn(GO_TYPE_BITS, text);
}

/** The node type that the type bits of `st_mode` stand for. */
export function nodeTypeOfMode(stMode: number): NodeType {
  return TYPES[(stMode >>> 12) & 0xf] ?? "irregular";
}

/** Go's file mode, as an unsigned number, for a `st_mode`. */
export function goModeOf(stMode: number): number {
  let mode = GO_TYPE_BITS[nodeTypeOfMode(stMode)] + (stMode & GO_PERMISSIONS);
  if ((stMode & 0o7000) !== 0) {
    if ((stMode & 0o4000) !== 0) mode += GO_SETUID;
    if ((stMode & 0o2000) !== 0) mode += GO_SETGID;
    if ((stMode & 0o1000) !== 0) mode += GO_STICKY;
  }
  return mode;
}

/** Permissions with setuid, setgid and sticky as `chmod` takes them, 0 to 0o7777. Bits that POSIX has no place for are dropped. */
export function permissionsOfGoMode(goMode: number): number {
  let permissions = goMode & GO_PERMISSIONS;
  if ((goMode & GO_SETUID) !== 0) permissions |= 0o4000;
  if ((goMode & GO_SETGID) !== 0) permissions |= 0o2000;
  if ((goMode & GO_STICKY) !== 0) permissions |= 0o1000;
  return permissions;
}

/** The `st_mode` of a node: its type, which decides, and the permissions of its Go mode. */
export function stModeOf(type: NodeType, goMode: number): number {
  return POSIX_TYPE_BITS[type] | permissionsOfGoMode(goMode);
}
