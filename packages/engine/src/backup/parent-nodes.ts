/** The nodes that the parent snapshot has for one directory, looked up by name in ascending order. */
import { Buffer } from "node:buffer";
import type { ByteString } from "../format/byte-string.ts";
import { readHex } from "../format/ids.ts";
import { parseNode } from "../format/parse-node.ts";
import { scanTree } from "../format/tree.ts";

export class ParentNodes {
  /** The tree blob. */
  readonly bytes: Uint8Array;
  readonly #names: ByteString[] = [];
  readonly #starts: number[] = [];
  readonly #ends: number[] = [];
  #next = 0;
  /** Where the node found last begins and ends in `bytes`. */
  start = 0;
  end = 0;

  /** @param bytes a tree blob, kept @throws TreeInvalid */
  constructor(bytes: Uint8Array) {
    this.bytes = bytes;
    scanTree(bytes, (name, start, end) => {
      this.#names.push(name);
      this.#starts.push(start);
      this.#ends.push(end);
    });
  }

  /** In ascending order. */
  get names(): readonly ByteString[] {
    return this.#names;
  }

  /** Whether there is a node of that name; `start` and `end` then say where. Names must be asked for in ascending order. */
  seek(name: ByteString): boolean {
    const names = this.#names;
    while (this.#next < names.length && (names[this.#next] ?? "") < name) this.#next++;
    if (names[this.#next] !== name) return false;
    this.start = this.#starts[this.#next] ?? 0;
    this.end = this.#ends[this.#next] ?? 0;
    return true;
  }

  /** A tree of the nodes from `first` to `last`, both included; `undefined` when there are none. */
  slice(first: ByteString, last: ByteString): Uint8Array | undefined {
    const from = lowerBound(this.#names, first);
    let to = lowerBound(this.#names, last);
    if (this.#names[to] === last) to++;
    if (from >= to) return undefined;
    const nodes = this.bytes.subarray(this.#starts[from], this.#ends[to - 1]);
    return Buffer.concat([Buffer.from('{"nodes":['), nodes, Buffer.from("]}\n")]);
  }

  /** The tree of the directory found last, 32 bytes, or `undefined` when it is none. */
  findSubtree(): Uint8Array | undefined {
    // It is the last member of what we and restic write, so parsing is rarely needed.
    const marker = this.end - 77;
    const id = new Uint8Array(32);
    if (marker > this.start && Buffer.from(this.bytes.buffer, this.bytes.byteOffset + marker, 11).latin1Slice() === '"subtree":"') {
      if (readHex(this.bytes, marker + 11, id, 0)) return id;
    }
    const node = parseNode(this.bytes, this.start, this.end);
    return node.type === "dir" && node.subtree !== null ? node.subtree : undefined;
  }
}

function lowerBound(names: readonly string[], name: string): number {
  let low = 0;
  let high = names.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((names[middle] ?? "") < name) low = middle + 1;
    else high = middle;
  }
  return low;
}
