/** Goes through the nodes of one tree, parsing each only when it comes to it. */
import type { TreeNode } from "../format/node.ts";
import { parseNode } from "../format/parse-node.ts";
import { scanTree } from "../format/tree.ts";

/** Stands on a node of a tree, on the first at the beginning. Memory: the tree's bytes, and 8 bytes a node. */
export class TreeCursor {
  readonly #bytes: Uint8Array;
  // where each node begins and ends in the bytes, in turns
  readonly #spans: Uint32Array;
  #at = 0;

  /** @param bytes of a tree blob; must not change @throws TreeInvalid when it is no tree, or its names are not in ascending order */
  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
    let spans = new Uint32Array(64);
    let count = 0;
    scanTree(bytes, (_name, start, end) => {
      if (count === spans.length) {
        const more = new Uint32Array(count * 2);
        more.set(spans);
        spans = more;
      }
      spans[count++] = start;
      spans[count++] = end;
    });
    this.#spans = spans.slice(0, count);
  }

  /** Whether it is behind the last node. */
  get isAtEnd(): boolean {
    return this.#at >= this.#spans.length;
  }

  /** The node it stands on, parsed anew, and a step to the next; `undefined` at the end. @throws TreeInvalid, without a step */
  next(): TreeNode | undefined {
    if (this.isAtEnd) return undefined;
    const node = parseNode(this.#bytes, this.#spans[this.#at] ?? 0, this.#spans[this.#at + 1] ?? 0);
    this.#at += 2;
    return node;
  }

  /** Goes behind the last node. */
  skipRest(): void {
    this.#at = this.#spans.length;
  }
}

/** Finds the node of a name. @throws TreeInvalid */
export function findNode(bytes: Uint8Array, wanted: string): TreeNode | undefined {
  let found: TreeNode | undefined;
  scanTree(bytes, (name, start, end) => {
    if (name === wanted) found = parseNode(bytes, start, end);
  });
  return found;
}
