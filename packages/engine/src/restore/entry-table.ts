/**
 * The plan of a restore: one record an entry (a file, a directory, a link … of the snapshot, or something extra in the target), its name, and
 * one record for each piece of content that is to be written. Packed, and shared by all threads: a file of one piece costs 64 + 24 bytes and
 * its name.
 *
 * ```
 * entry, 16 words of 32 bits:
 *   parent | name | kind, action, flags | permissions | uid | gid | mtime seconds (float64) | atime seconds (float64)
 *   | mtime nanoseconds | atime nanoseconds | size, or depth of a directory (float64) | state | pieces left, or primary of a link
 * name, in units of 8 bytes:   length (2) | bytes of facts (4) | name | facts
 *   fact:                      which (1) | length (4) | value
 * piece, 6 words:              pack | offset in the pack | entry of the blob index | entry | offset in the file (float64)
 * ```
 *
 * Entry 0 is the target folder. Records that were handed out but not used are zero: an entry of kind 0, a piece of entry 0. The thread that
 * adds an entry writes it; flags, state and pieces left change atomically; everything else is settled before the plan is carried out.
 */
import { Buffer } from "node:buffer";
import { type ByteString, toBytes } from "../format/byte-string.ts";
import { GrowingMemory, SpanAllocator } from "./growing-memory.ts";

/** What an entry is. */
export const kind = { none: 0, file: 1, directory: 2, symlink: 3, device: 4, characterDevice: 5, fifo: 6, socket: 7, extra: 8 } as const;
export type Kind = (typeof kind)[keyof typeof kind];

/** What is to be done with an entry. */
export const action = {
  /** Nothing is there. */
  create: 1,
  /** What is there is something else and is removed first. */
  replace: 2,
  /** A regular file is there, of which some pieces are to be written, or the length changed. */
  update: 3,
  /** It is there already, as it should be; only its metadata is set. */
  refresh: 4,
  /** It stays as it is, on request. */
  skip: 5,
  /** It cannot be restored; this was reported. */
  block: 6,
  /** Another name of a file that is restored. */
  link: 7,
  /** It is not in the snapshot and is removed. */
  remove: 8,
} as const;
export type Action = (typeof action)[keyof typeof action];

/** Flags of an entry. */
export const flag = {
  /** A directory that is in the target already. */
  present: 0x10000,
  /** No directory, and something is in the target already. */
  occupied: 0x40_0000,
  /** It is selected, or something below it is. */
  needed: 0x20000,
  /** A file with several names in the snapshot. */
  hardLinked: 0x40000,
  hasAttributes: 0x80000,
  /** A directory in which this process may not work before its mode is changed. */
  closed: 0x100000,
  /** A file of which the repository lacks some content. */
  damaged: 0x200000,
} as const;

/** What has become of an entry. */
export const state = { waiting: 0, opening: 1, open: 2, failed: 3, done: 4 } as const;

/** Which fact about an entry. */
export const fact = { attribute: 1, linkTarget: 2, device: 3, identity: 4, pieces: 5 } as const;
export type Fact = (typeof fact)[keyof typeof fact];

/** What is written into a new entry. */
export interface NewEntry {
  readonly kind: Kind;
  readonly action: Action;
  readonly flags: number;
  readonly parent: number;
  readonly name: ByteString;
  readonly permissions: number;
  readonly uid: number;
  readonly gid: number;
  readonly mtimeSeconds: number;
  readonly mtimeNanos: number;
  readonly atimeSeconds: number;
  readonly atimeNanos: number;
  /** Of a directory, its depth. */
  readonly sizeBytes: number;
  readonly pieces: number;
}

/** What another thread needs to use the same table. */
export interface EntryTableHandle {
  readonly control: SharedArrayBuffer;
  readonly entries: SharedArrayBuffer;
  readonly names: SharedArrayBuffer;
  readonly pieces: SharedArrayBuffer;
}

/** The target folder. */
export const rootEntry = 0;

const entryWords = 16;
const entryBytes = 64;
const pieceWords = 6;
export const pieceBytes = 24;
const nameUnitBytes = 8;
const nameHeadBytes = 6;
const factHeadBytes = 5;

// Words of `control`.
const entryCount = 0;
const nameCount = 1;
const pieceCount = 2;

export class EntryTable {
  readonly handle: EntryTableHandle;
  readonly #control: Int32Array;
  readonly #entries: GrowingMemory;
  readonly #names: GrowingMemory;
  readonly #pieces: GrowingMemory;
  readonly #newEntries: SpanAllocator;
  readonly #newNames: SpanAllocator;
  readonly #newPieces: SpanAllocator;

  private constructor(handle: EntryTableHandle) {
    this.handle = handle;
    this.#control = new Int32Array(handle.control);
    this.#entries = new GrowingMemory(handle.entries);
    this.#names = new GrowingMemory(handle.names);
    this.#pieces = new GrowingMemory(handle.pieces);
    const words = this.#control;
    this.#newEntries = new SpanAllocator(this.#entries, { words, word: entryCount }, { unitBytes: entryBytes, chunk: 256 });
    this.#newNames = new SpanAllocator(this.#names, { words, word: nameCount }, { unitBytes: nameUnitBytes, chunk: 4096 });
    this.#newPieces = new SpanAllocator(this.#pieces, { words, word: pieceCount }, { unitBytes: pieceBytes, chunk: 512 });
  }

  /** @param maxBytes what each of entries, names and pieces may take */
  static create(maxBytes: number): EntryTable {
    return new EntryTable({
      control: new SharedArrayBuffer(64),
      entries: GrowingMemory.create(maxBytes).shared,
      names: GrowingMemory.create(maxBytes).shared,
      pieces: GrowingMemory.create(maxBytes).shared,
    });
  }

  static attach(handle: EntryTableHandle): EntryTable {
    return new EntryTable(handle);
  }

  /** Entry numbers are below it. Includes some that are not used. */
  get entryLimit(): number {
    return Math.min(Atomics.load(this.#control, entryCount), this.handle.entries.byteLength / entryBytes);
  }

  /** Piece numbers are below it. Includes some that are not used. */
  get pieceLimit(): number {
    return Math.min(Atomics.load(this.#control, pieceCount), Math.floor(this.handle.pieces.byteLength / pieceBytes));
  }

  /** Adds an entry. @param facts as packed by {@link FactPacker} @throws RestoreTooLarge */
  add(entry: NewEntry, facts: Uint8Array): number {
    const number = this.#newEntries.take(1);
    const at = number * entryWords;
    const words = this.#entries.int32(at + entryWords);
    const doubles = this.#entries.float64((at + entryWords) >>> 1);
    words[at] = entry.parent;
    words[at + 1] = this.#addName(entry.name, facts);
    words[at + 2] = entry.kind | (entry.action << 8) | entry.flags;
    words[at + 3] = entry.permissions;
    words[at + 4] = entry.uid;
    words[at + 5] = entry.gid;
    doubles[(at + 6) >>> 1] = entry.mtimeSeconds;
    doubles[(at + 8) >>> 1] = entry.atimeSeconds;
    words[at + 10] = entry.mtimeNanos;
    words[at + 11] = entry.atimeNanos;
    doubles[(at + 12) >>> 1] = entry.sizeBytes;
    words[at + 15] = entry.pieces;
    return number;
  }

  #addName(name: ByteString, facts: Uint8Array): number {
    const bytes = nameHeadBytes + name.length + facts.length;
    const place = this.#newNames.take(Math.ceil(bytes / nameUnitBytes));
    const at = place * nameUnitBytes;
    const memory = this.#names.bytes(at + bytes);
    memory[at] = name.length;
    memory[at + 1] = name.length >>> 8;
    for (let i = 0; i < 4; i++) memory[at + 2 + i] = facts.length >>> (8 * i);
    memory.latin1Write(name, at + nameHeadBytes, name.length);
    if (facts.length > 0) memory.set(facts, at + nameHeadBytes + name.length);
    return place;
  }

  /** Makes room for the pieces of one file. @returns the number of the first; the others follow @throws RestoreTooLarge */
  takePieces(count: number): number {
    return this.#newPieces.take(count);
  }

  setPiece(piece: number, value: { pack: number; packOffsetBytes: number; blob: number; entry: number; fileOffsetBytes: number }): void {
    const at = piece * pieceWords;
    const words = this.#pieces.int32(at + pieceWords);
    words[at] = value.pack;
    words[at + 1] = value.packOffsetBytes;
    words[at + 2] = value.blob;
    words[at + 3] = value.entry;
    this.#pieces.float64((at + pieceWords) >>> 1)[(at + 4) >>> 1] = value.fileOffsetBytes;
  }

  #piece(piece: number, word: number): number {
    const at = piece * pieceWords;
    return this.#pieces.int32(at + pieceWords)[at + word] ?? 0;
  }

  packOf(piece: number): number {
    return this.#piece(piece, 0);
  }

  packOffsetOf(piece: number): number {
    return this.#piece(piece, 1) >>> 0;
  }

  /** The piece's entry in the blob index. */
  blobOf(piece: number): number {
    return this.#piece(piece, 2);
  }

  /** The entry that the piece belongs to; {@link rootEntry} for a record that is not used. */
  entryOf(piece: number): number {
    return this.#piece(piece, 3);
  }

  fileOffsetOf(piece: number): number {
    const at = piece * pieceWords;
    return this.#pieces.float64((at + pieceWords) >>> 1)[(at + 4) >>> 1] ?? 0;
  }

  #word(entry: number, word: number): number {
    const at = entry * entryWords;
    return this.#entries.int32(at + entryWords)[at + word] ?? 0;
  }

  #double(entry: number, word: number): number {
    const at = entry * entryWords;
    return this.#entries.float64((at + entryWords) >>> 1)[(at + word) >>> 1] ?? 0;
  }

  parentOf(entry: number): number {
    return this.#word(entry, 0);
  }

  kindOf(entry: number): Kind {
    return (this.#word(entry, 2) & 0xff) as Kind; // only kinds are written there
  }

  actionOf(entry: number): Action {
    return ((this.#word(entry, 2) >>> 8) & 0xff) as Action; // only actions are written there
  }

  /** Not while other threads change the entry's flags. */
  setAction(entry: number, value: Action): void {
    const at = entry * entryWords + 2;
    const words = this.#entries.int32(at + 1);
    words[at] = ((words[at] ?? 0) & ~0xff00) | (value << 8);
  }

  hasFlag(entry: number, value: number): boolean {
    return (this.#word(entry, 2) & value) !== 0;
  }

  /** @returns whether the flag was not set before */
  addFlag(entry: number, value: number): boolean {
    const at = entry * entryWords + 2;
    return (Atomics.or(this.#entries.int32(at + 1), at, value) & value) === 0;
  }

  /** 0 to 0o7777. */
  permissionsOf(entry: number): number {
    return this.#word(entry, 3);
  }

  uidOf(entry: number): number {
    return this.#word(entry, 4) >>> 0;
  }

  gidOf(entry: number): number {
    return this.#word(entry, 5) >>> 0;
  }

  mtimeSecondsOf(entry: number): number {
    return this.#double(entry, 6);
  }

  mtimeNanosOf(entry: number): number {
    return this.#word(entry, 10);
  }

  atimeSecondsOf(entry: number): number {
    return this.#double(entry, 8);
  }

  atimeNanosOf(entry: number): number {
    return this.#word(entry, 11);
  }

  sizeOf(entry: number): number {
    return this.#double(entry, 12);
  }

  /** Of a directory: 0 for the target folder. */
  depthOf(entry: number): number {
    return this.#double(entry, 12);
  }

  /** Changes the state if it is `from`. @returns the state found */
  exchangeState(entry: number, from: number, to: number): number {
    const at = entry * entryWords + 14;
    return Atomics.compareExchange(this.#entries.int32(at + 1), at, from, to);
  }

  stateOf(entry: number): number {
    const at = entry * entryWords + 14;
    return Atomics.load(this.#entries.int32(at + 1), at);
  }

  /** Sets the state and wakes who waits for it. */
  setState(entry: number, value: number): void {
    const at = entry * entryWords + 14;
    const words = this.#entries.int32(at + 1);
    Atomics.store(words, at, value);
    Atomics.notify(words, at);
  }

  /** Sleeps while the state is `value`. Not for the main thread. */
  waitWhile(entry: number, value: number): void {
    const at = entry * entryWords + 14;
    const words = this.#entries.int32(at + 1);
    while (Atomics.load(words, at) === value) Atomics.wait(words, at, value);
  }

  /** Pieces of a file that are not written yet. */
  piecesLeftOf(entry: number): number {
    const at = entry * entryWords + 15;
    return Atomics.load(this.#entries.int32(at + 1), at);
  }

  /** Counts one piece as dealt with. @returns how many are left */
  finishPiece(entry: number): number {
    const at = entry * entryWords + 15;
    return Atomics.sub(this.#entries.int32(at + 1), at, 1) - 1;
  }

  /** The entry that a link is another name of. */
  primaryOf(link: number): number {
    return this.#word(link, 15);
  }

  setPrimary(link: number, primary: number): void {
    const at = link * entryWords + 15;
    this.#entries.int32(at + 1)[at] = primary;
  }

  nameOf(entry: number): ByteString {
    const { memory, at, nameBytes } = this.#nameAt(entry);
    return memory.latin1Slice(at + nameHeadBytes, at + nameHeadBytes + nameBytes);
  }

  /** The path below the target, as in `/home/alice`; the target itself is the empty string. */
  pathOf(entry: number): ByteString {
    const names: ByteString[] = [];
    for (let at = entry; at !== rootEntry; at = this.parentOf(at)) names.push(this.nameOf(at));
    return names.reduceRight((path, name) => `${path}/${name}`, "");
  }

  /** The values of a fact, in the order in which they were packed; copies. */
  factsOf(entry: number, which: Fact): Buffer[] {
    const { memory, at, nameBytes, factBytes } = this.#nameAt(entry);
    const values: Buffer[] = [];
    let next = at + nameHeadBytes + nameBytes;
    for (const end = next + factBytes; next < end; ) {
      const length = memory.readUInt32LE(next + 1);
      const from = next + factHeadBytes;
      if (memory[next] === which) values.push(Buffer.from(memory.subarray(from, from + length)));
      next = from + length;
    }
    return values;
  }

  #nameAt(entry: number): { memory: Buffer; at: number; nameBytes: number; factBytes: number } {
    const at = this.#word(entry, 1) * nameUnitBytes;
    const head = this.#names.bytes(at + nameHeadBytes);
    const nameBytes = (head[at] ?? 0) | ((head[at + 1] ?? 0) << 8);
    const factBytes = (head[at + 2] ?? 0) | ((head[at + 3] ?? 0) << 8) | ((head[at + 4] ?? 0) << 16) | ((head[at + 5] ?? 0) << 24);
    return { memory: this.#names.bytes(at + nameHeadBytes + nameBytes + factBytes), at, nameBytes, factBytes };
  }
}

const noFacts = new Uint8Array(0);

/** Packs the facts of one entry after the other. */
export class FactPacker {
  readonly #parts: Buffer[] = [];

  add(which: Fact, value: Uint8Array): void {
    const head = Buffer.alloc(factHeadBytes);
    head[0] = which;
    head.writeUInt32LE(value.length, 1);
    this.#parts.push(head, Buffer.from(value.buffer, value.byteOffset, value.byteLength));
  }

  /** The facts added since the last call. */
  finish(): Uint8Array {
    if (this.#parts.length === 0) return noFacts;
    const packed = Buffer.concat(this.#parts);
    this.#parts.length = 0;
    return packed;
  }
}

/** An extended attribute as a fact. */
export function packAttribute(name: ByteString, value: Uint8Array): Buffer {
  const nameBytes = toBytes(name);
  const head = Buffer.alloc(2);
  head.writeUInt16LE(nameBytes.length);
  return Buffer.concat([head, nameBytes, value]);
}

/** The reverse of {@link packAttribute}. */
export function unpackAttribute(packed: Buffer): { readonly name: ByteString; readonly value: Buffer } {
  const end = 2 + packed.readUInt16LE();
  return { name: packed.latin1Slice(2, end), value: packed.subarray(end) };
}
