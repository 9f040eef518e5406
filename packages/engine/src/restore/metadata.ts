/**
 * Owners, permissions, extended attributes and times of what was restored.
 *
 * Order matters: attributes of the user while the file can still be written, then the owner (which clears setuid and capabilities), then
 * permissions, then all other attributes (access lists, capabilities), then times. An entry whose owner cannot be set loses setuid and setgid,
 * as with `cp -p`: they would give away the rights of another. What this process is not allowed to do is counted, not reported entry by entry.
 */
import type { Buffer } from "node:buffer";
import type { ByteString } from "../format/byte-string.ts";
import {
  chmodAt,
  chmodHandle,
  chownAt,
  closeHandle,
  FileStatus,
  listAttributes,
  openAt,
  openFlags,
  pathBelow,
  type Place,
  readAttribute,
  removeAttribute,
  setTimesAt,
  statAt,
  statHandle,
  workingDirectory,
  writeAttribute,
} from "../native/libc.ts";
import { type Counters, counter } from "./counters.ts";
import { type EntryTable, fact, flag, kind, unpackAttribute } from "./entry-table.ts";
import { describeError, isError } from "./errno-text.ts";
import { quirk, type SharedState } from "./shared-state.ts";

const accessList = "system.posix_acl_access";
const defaultList = "system.posix_acl_default";
const setIdBits = 0o6000;
const keep = 0xffff_ffff; // chown's "leave it"

export interface MetadataOptions {
  readonly table: EntryTable;
  readonly counters: Counters;
  readonly state: SharedState;
  /** Told of what went wrong with one entry. */
  readonly onTrouble: (entry: number, message: string) => void;
}

interface Attribute {
  readonly name: ByteString;
  readonly value: Buffer;
}

export class MetadataWriter {
  readonly #options: MetadataOptions;
  readonly #uid: number = process.geteuid?.() ?? 0;
  readonly #gid: number = process.getegid?.() ?? 0;
  readonly #groups: ReadonlySet<number> = new Set(process.getgroups?.() ?? []);
  readonly #umask: number = process.umask();
  readonly #status = new FileStatus();
  #hasProbed = false;

  constructor(options: MetadataOptions) {
    this.#options = options;
  }

  /** The mode to create a file or special file with: its own where nothing needs to be done before it is set, else private. */
  creationMode(entry: number): number {
    const { table } = this.#options;
    const permissions = table.permissionsOf(entry) & 0o777;
    return this.#hasOwnOwner(entry) && !table.hasFlag(entry, flag.hasAttributes) ? permissions : permissions & 0o600;
  }

  /**
   * Sets all metadata of a file that was just written.
   *
   * @param handle open for writing
   * @param file.isNew whether this restore made the file
   * @param file.hasMode whether it was made with its {@link creationMode}
   */
  finishFile(entry: number, handle: number, file: Place & { readonly isNew: boolean; readonly hasMode: boolean }): void {
    if (!file.isNew) return this.#apply(entry, file, { handle, isNew: false });
    this.#probe(handle);
    if (file.hasMode && this.#isPlain(entry)) this.#check(entry, this.#setTimes(entry, handle, ""), "set the times");
    else this.#apply(entry, file, { handle, isNew: true });
  }

  /** The mode to make a directory with: this process must be able to work in it. */
  directoryMode(entry: number): number {
    return this.#isPlain(entry) ? this.#options.table.permissionsOf(entry) | 0o700 : 0o700;
  }

  /** Sets all metadata of a directory that this restore made, with its {@link directoryMode}. */
  finishDirectory(entry: number, place: Place): void {
    const isReady = this.#isPlain(entry) && (this.#options.table.permissionsOf(entry) & 0o700) === 0o700;
    if (isReady) this.#check(entry, this.#setTimes(entry, place.directory, place.name), "set the times");
    else this.#apply(entry, place, { handle: -1, isNew: true });
  }

  /** Whether what this process makes with an entry's permissions has its owner and permissions, and nothing that it should not have. */
  #isPlain(entry: number): boolean {
    const { table, state } = this.#options;
    return (
      this.#hasOwnOwner(entry) &&
      !table.hasFlag(entry, flag.hasAttributes) &&
      (table.permissionsOf(entry) & (this.#umask | 0o7000)) === 0 &&
      !state.hasQuirk(quirk.foreignOwners | quirk.inheritedLists)
    );
  }

  /** Sets all metadata of an entry that is there by its name. */
  finish(entry: number, place: Place, isNew: boolean): void {
    this.#apply(entry, place, { handle: -1, isNew });
  }

  /** Sets the metadata of an entry that was there before, where it differs. */
  refresh(entry: number, place: Place): void {
    const { table } = this.#options;
    const status = this.#status;
    const looked = statAt(place.directory, place.name, status);
    if (looked < 0) return this.#check(entry, looked, "look at it");
    const isSame =
      status.uid === table.uidOf(entry) &&
      status.gid === table.gidOf(entry) &&
      status.mtimeSeconds === table.mtimeSecondsOf(entry) &&
      status.mtimeNanos === table.mtimeNanosOf(entry) &&
      status.atimeSeconds === table.atimeSecondsOf(entry) &&
      status.atimeNanos === table.atimeNanosOf(entry) &&
      (table.kindOf(entry) === kind.symlink || (status.mode & 0o7777) === table.permissionsOf(entry));
    if (!isSame || !this.#hasSameAttributes(entry, place)) this.#apply(entry, place, { handle: -1, isNew: false });
  }

  #hasOwnOwner(entry: number): boolean {
    const { table } = this.#options;
    return table.uidOf(entry) === this.#uid && table.gidOf(entry) === this.#gid;
  }

  /** Some file systems choose owners themselves (groups of the folder, squashed roots): seen on the first file. */
  #probe(handle: number): void {
    if (this.#hasProbed) return;
    this.#hasProbed = true;
    if (statHandle(handle, this.#status) < 0) return;
    if (this.#status.uid !== this.#uid || this.#status.gid !== this.#gid) this.#options.state.addQuirk(quirk.foreignOwners);
  }

  #apply(entry: number, place: Place, how: { handle: number; isNew: boolean }): void {
    const { table, state } = this.#options;
    const isLink = table.kindOf(entry) === kind.symlink;
    // a path handle serves for what has no other handle
    const path = how.handle >= 0 ? -1 : openAt(place.directory, place.name, openFlags.path | openFlags.noFollow);
    if (how.handle < 0 && path < 0) return this.#check(entry, path, "open it to set its metadata");
    const chmod = (mode: number): number =>
      isLink ? 0 : how.handle >= 0 ? chmodHandle(how.handle, mode) : chmodAt(workingDirectory, `/proc/self/fd/${path}`, mode);
    try {
      const attributes = this.#attributesOf(entry);
      if (!how.isNew && attributes.length > 0 && this.#uid !== 0) chmod(0o700);
      const names = new Set(attributes.map(({ name }) => name));
      const file = pathBelow(place.directory, place.name);
      if (!how.isNew || state.hasQuirk(quirk.inheritedLists)) this.#removeOthers(entry, file, names);
      for (const attribute of attributes) if (attribute.name.startsWith("user.")) this.#setAttribute(entry, file, attribute);
      const isOwned = this.#setOwner(entry, place, how);
      const permissions = table.permissionsOf(entry);
      this.#check(entry, chmod(isOwned ? permissions : permissions & ~setIdBits), "set the permissions");
      for (const attribute of attributes) if (!attribute.name.startsWith("user.")) this.#setAttribute(entry, file, attribute);
    } finally {
      if (path >= 0) closeHandle(path);
    }
    const done = how.handle >= 0 ? this.#setTimes(entry, how.handle, "") : this.#setTimes(entry, place.directory, place.name);
    this.#check(entry, done, "set the times");
  }

  /** @returns whether the entry has the owner and group it should have */
  #setOwner(entry: number, place: Place, how: { handle: number; isNew: boolean }): boolean {
    const { table, state, counters } = this.#options;
    const want = { uid: table.uidOf(entry), gid: table.gidOf(entry) };
    if (how.isNew && this.#hasOwnOwner(entry) && !state.hasQuirk(quirk.foreignOwners)) return true;
    const isRoot = this.#uid === 0;
    const uid = isRoot || want.uid === this.#uid ? want.uid : keep;
    const gid = isRoot || want.gid === this.#gid || this.#groups.has(want.gid) ? want.gid : keep;
    const owner = { uid, gid };
    const done = how.handle >= 0 ? chownAt(how.handle, "", owner) : chownAt(place.directory, place.name, owner);
    const isRefused = isError(done, "EPERM") || isError(done, "EINVAL");
    if (done < 0 && !isRefused) this.#check(entry, done, "set the owner");
    if (isRefused || uid !== want.uid || gid !== want.gid) counters.add(counter.ownersRefused, 1);
    return done >= 0 && uid === want.uid && gid === want.gid;
  }

  #setTimes(entry: number, directory: number, name: ByteString): number {
    const { table } = this.#options;
    times.atimeSeconds = table.atimeSecondsOf(entry);
    times.atimeNanos = table.atimeNanosOf(entry);
    times.mtimeSeconds = table.mtimeSecondsOf(entry);
    times.mtimeNanos = table.mtimeNanosOf(entry);
    return setTimesAt(directory, name, times);
  }

  #attributesOf(entry: number): Attribute[] {
    const { table } = this.#options;
    return table.hasFlag(entry, flag.hasAttributes) ? table.factsOf(entry, fact.attribute).map(unpackAttribute) : [];
  }

  #setAttribute(entry: number, file: ByteString, { name, value }: Attribute): void {
    const done = writeAttribute(file, name, value);
    if (isError(done, "EPERM") || isError(done, "EOPNOTSUPP")) this.#options.counters.add(counter.attributesRefused, 1);
    else this.#check(entry, done, `set the attribute "${name}"`);
  }

  /** Removes the attributes that the snapshot does not have; those of the system's own security modules stay. */
  #removeOthers(entry: number, file: ByteString, wanted: ReadonlySet<ByteString>): void {
    const present = listAttributes(file);
    if (typeof present === "number") return this.#check(entry, present, "list the attributes");
    for (const name of present) {
      if (wanted.has(name) || !isRestorable(name)) continue;
      const done = removeAttribute(file, name);
      if (done < 0 && !isError(done, "ENODATA") && !isError(done, "EPERM")) this.#check(entry, done, `remove the attribute "${name}"`);
    }
  }

  #hasSameAttributes(entry: number, place: Place): boolean {
    const file = pathBelow(place.directory, place.name);
    const listed = listAttributes(file);
    if (typeof listed === "number") return false;
    const wanted = this.#attributesOf(entry);
    const present = listed.filter(isRestorable);
    if (present.some((name) => !wanted.some((attribute) => attribute.name === name))) return false;
    return wanted.every(({ name, value }) => {
      const found = readAttribute(file, name);
      return typeof found !== "number" && found.equals(value);
    });
  }

  #check(entry: number, result: number, what: string): void {
    if (result < 0) this.#options.onTrouble(entry, `Cannot ${what}: ${describeError(result)}`);
  }
}

function isRestorable(name: ByteString): boolean {
  return (
    name.startsWith("user.") || name.startsWith("trusted.") || name === accessList || name === defaultList || name === "security.capability"
  );
}

const times = { atimeSeconds: 0, atimeNanos: 0, mtimeSeconds: 0, mtimeNanos: 0 };
