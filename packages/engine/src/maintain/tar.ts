/**
 * Writes the headers of tar archives in the POSIX format (pax): names of any bytes and length, times in nanoseconds, large sizes and ids,
 * extended attributes and ACLs.
 *
 * ```
 * entry := [pax header (512) | records, padded to 512] | ustar header (512) | content, padded to 512
 * record := length " " key "=" value "\n"      length in decimal, of the whole record
 * archive := entries | 1024 zero bytes
 * ```
 *
 * What the ustar header can hold stands in it; the rest is in records before it, which readers prefer. Values of attributes are raw bytes,
 * which is why a text-based encoder will not do.
 *
 * @see POSIX.1-2017, pax, "pax Interchange Format"; star(5), "SCHILY" keywords
 */
import { type ByteString, findUtf8, fromUtf8, isAscii, toBytes } from "../format/byte-string.ts";
import { permissionsOfGoMode } from "../format/mode.ts";
import type { ExtendedAttribute, TreeNode } from "../format/node.ts";

const BLOCK_BYTES = 512;

/** The two blocks of zeros that end an archive. */
export const tarEnd: Uint8Array = new Uint8Array(2 * BLOCK_BYTES);

/** Types that tar has; the others cannot be stored in it. */
const typeFlags: Readonly<Record<string, string>> = { file: "0", symlink: "2", chardev: "3", dev: "4", dir: "5", fifo: "6" };

/** Whether tar can hold a node: not a socket, and nothing irregular. */
export function fitsTar(node: TreeNode): boolean {
  return Object.hasOwn(typeFlags, node.type);
}

/** Zeros that fill content up to whole blocks. */
export function tarPadding(sizeBytes: number): Uint8Array {
  return new Uint8Array((BLOCK_BYTES - (sizeBytes % BLOCK_BYTES)) % BLOCK_BYTES);
}

/**
 * The header of an entry, with the pax header before it where one is needed.
 *
 * @param path relative, without a slash before or behind
 * @param sizeBytes of the content that follows, 0 for what is no file
 */
export function encodeTarHeader(path: ByteString, node: TreeNode, sizeBytes: number): Buffer {
  const name = node.type === "dir" ? `${path}/` : path;
  const linkTarget = node.type === "symlink" ? node.linkTarget : "";
  const records = new PaxRecords();
  const header = new UstarHeader();
  const [prefix, shortName] = splitName(name);
  if (shortName === undefined) records.addBytes("path", name);
  header.putBytes(fieldAt.name, 100, shortName ?? name);
  header.putBytes(fieldAt.prefix, 155, prefix);
  if (!isPlain(linkTarget, 100)) records.addBytes("linkpath", linkTarget);
  header.putBytes(fieldAt.linkName, 100, linkTarget);
  header.putBytes(fieldAt.typeFlag, 1, typeFlags[node.type] ?? "0");
  header.putNumber(fieldAt.mode, 7, permissionsOfGoMode(node.mode));
  if (!header.putNumber(fieldAt.uid, 7, node.uid)) records.add("uid", String(node.uid));
  if (!header.putNumber(fieldAt.gid, 7, node.gid)) records.add("gid", String(node.gid));
  if (!header.putNumber(fieldAt.size, 11, sizeBytes)) records.add("size", String(sizeBytes));
  if (!header.putNumber(fieldAt.mtime, 11, node.mtimeSeconds) || node.mtimeNanos > 0) {
    records.add("mtime", formatPaxTime(node.mtimeSeconds, node.mtimeNanos));
  }
  records.add("atime", formatPaxTime(node.atimeSeconds, node.atimeNanos));
  records.add("ctime", formatPaxTime(node.ctimeSeconds, node.ctimeNanos));
  for (const [field, at, text] of [
    ["uname", fieldAt.userName, node.user],
    ["gname", fieldAt.groupName, node.group],
  ] as const) {
    const bytes = fromUtf8(text);
    if (!isPlain(bytes, 32)) records.addBytes(field, bytes);
    header.putBytes(at, 32, bytes);
  }
  if (node.type === "dev" || node.type === "chardev") {
    const { major, minor } = splitDevice(BigInt(node.device));
    if (!header.putNumber(fieldAt.deviceMajor, 7, major)) records.add("SCHILY.devmajor", String(major));
    if (!header.putNumber(fieldAt.deviceMinor, 7, minor)) records.add("SCHILY.devminor", String(minor));
  }
  for (const attribute of node.extendedAttributes) addAttribute(records, attribute);
  return Buffer.concat([records.encode(shortName ?? name), header.finish()]);
}

// Offsets in the header.
const fieldAt = {
  name: 0,
  mode: 100,
  uid: 108,
  gid: 116,
  size: 124,
  mtime: 136,
  checksum: 148,
  typeFlag: 156,
  linkName: 157,
  magic: 257,
  userName: 265,
  groupName: 297,
  deviceMajor: 329,
  deviceMinor: 337,
  prefix: 345,
} as const;

class UstarHeader {
  readonly #bytes = Buffer.alloc(BLOCK_BYTES);

  /** Puts as many bytes as there is room for. */
  putBytes(at: number, room: number, value: ByteString): void {
    this.#bytes.latin1Write(value.slice(0, room), at);
  }

  /** Puts a number in octal; 0 when it does not fit. @returns whether it fits */
  putNumber(at: number, digits: number, value: number): boolean {
    const fits = value >= 0 && value < 8 ** digits;
    this.#bytes.latin1Write((fits ? value : 0).toString(8).padStart(digits, "0"), at);
    return fits;
  }

  finish(): Buffer {
    this.#bytes.latin1Write("ustar\x0000", fieldAt.magic);
    this.#bytes.fill(0x20, fieldAt.checksum, fieldAt.checksum + 8);
    const sum = this.#bytes.reduce((total, byte) => total + byte, 0);
    this.#bytes.latin1Write(`${sum.toString(8).padStart(6, "0")}\0 `, fieldAt.checksum);
    return this.#bytes;
  }
}

class PaxRecords {
  #records: ByteString = "";
  #isUtf8 = true;

  /** @param value ASCII */
  add(key: ByteString, value: string): void {
    const rest = ` ${key}=${value}\n`;
    // the length counts its own digits
    let length = rest.length + 1;
    while (String(length).length + rest.length > length) length++;
    this.#records += `${length}${rest}`;
  }

  /** Adds a value that readers take for UTF-8 unless told otherwise. */
  addBytes(key: ByteString, value: ByteString): void {
    if (findUtf8(value) === undefined) this.#isUtf8 = false;
    this.add(key, value);
  }

  /** The header entry with the records, or nothing when there are none. @param name of the entry they belong to */
  encode(name: ByteString): Buffer {
    if (this.#records === "") return Buffer.alloc(0);
    const records = this.#records;
    if (!this.#isUtf8) {
      this.#records = "";
      this.add("hdrcharset", "BINARY");
      this.#records += records;
    }
    const content = toBytes(this.#records);
    const header = new UstarHeader();
    const base = name.replace(/\/$/, "").split("/").at(-1) ?? "";
    header.putBytes(fieldAt.name, 100, `PaxHeaders/${base}`);
    header.putBytes(fieldAt.typeFlag, 1, "x");
    header.putNumber(fieldAt.mode, 7, 0o644);
    header.putNumber(fieldAt.size, 11, content.length);
    for (const at of [fieldAt.uid, fieldAt.gid, fieldAt.deviceMajor, fieldAt.deviceMinor]) header.putNumber(at, 7, 0);
    header.putNumber(fieldAt.mtime, 11, 0);
    return Buffer.concat([header.finish(), content, tarPadding(content.length)]);
  }
}

function isPlain(value: ByteString, room: number): boolean {
  return value.length <= room && isAscii(value);
}

/** A name as prefix and rest, at a slash, when it fits the two fields of the header; else without a rest. */
function splitName(name: ByteString): readonly [prefix: ByteString, name: ByteString | undefined] {
  if (!isAscii(name)) return ["", undefined];
  if (name.length <= 100) return ["", name];
  const slashAt = name.indexOf("/", name.length - 101);
  return slashAt > 0 && slashAt <= 155 && slashAt < name.length - 1 ? [name.slice(0, slashAt), name.slice(slashAt + 1)] : ["", undefined];
}

/** Seconds with a fraction; a time before 1970 as the negative number it is. */
function formatPaxTime(seconds: number, nanos: number): string {
  const isNegative = seconds < 0 && nanos > 0;
  const whole = isNegative ? seconds + 1 : seconds;
  const fraction = String(isNegative ? 1e9 - nanos : nanos)
    .padStart(9, "0")
    .replace(/0+$/, "");
  const sign = isNegative && whole === 0 ? "-" : "";
  return `${sign}${whole}${fraction === "" ? "" : `.${fraction}`}`;
}

/** Linux's way of putting the two numbers of a device into one (makedev(3)). */
function splitDevice(device: bigint): { readonly major: number; readonly minor: number } {
  return {
    major: Number(((device >> 8n) & 0xfffn) | ((device >> 32n) & 0xfffff000n)),
    minor: Number((device & 0xffn) | ((device >> 12n) & 0xffffff00n)),
  };
}

const aclKeys: Readonly<Record<string, string>> = {
  "system.posix_acl_access": "SCHILY.acl.access",
  "system.posix_acl_default": "SCHILY.acl.default",
};

function addAttribute(records: PaxRecords, { name, value }: ExtendedAttribute): void {
  const bytes = Buffer.from(value.buffer, value.byteOffset, value.byteLength);
  const aclKey = Object.hasOwn(aclKeys, name) ? aclKeys[name] : undefined;
  const acl = aclKey === undefined ? undefined : formatAcl(bytes);
  if (aclKey !== undefined && acl !== undefined) records.add(aclKey, acl);
  else records.add(`SCHILY.xattr.${fromUtf8(name.replaceAll("%", "%25").replaceAll("=", "%3D"))}`, bytes.latin1Slice());
}

const aclTags: Readonly<Record<number, string>> = { 1: "user:", 2: "user", 4: "group:", 8: "group", 16: "mask:", 32: "other:" };

/**
 * An ACL as Linux stores it, as text with numeric ids, one entry a line; `undefined` when it is none.
 *
 * `version(4 LE) = 2 | (tag(2 LE) permissions(2 LE) id(4 LE))…`
 *
 * @see linux/posix_acl_xattr.h, acl(5)
 */
export function formatAcl(value: Buffer): string | undefined {
  if (value.length < 4 || value.readUInt32LE(0) !== 2 || value.length % 8 !== 4) return undefined;
  let text = "";
  for (let at = 4; at < value.length; at += 8) {
    const tag = value.readUInt16LE(at);
    const permissions = value.readUInt16LE(at + 2);
    const who = aclTags[tag];
    if (who === undefined) return undefined;
    const id = tag === 2 || tag === 8 ? `:${value.readUInt32LE(at + 4)}` : "";
    const letters = [4, 2, 1].map((bit, i) => ((permissions & bit) === 0 ? "-" : "rwx".charAt(i))).join("");
    text += `${who}${id}:${letters}\n`;
  }
  return text;
}
