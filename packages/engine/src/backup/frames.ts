/** The directories that wait for results from several workers, on the main thread. */
import { Buffer } from "node:buffer";
import { Failure } from "@granary/base/errors";
import type { Destination, Frame, PendingDirectory } from "./messages.ts";

const comma = Buffer.from(",");
const treePrefix = Buffer.from('{"nodes":[');
const treeSuffix = Buffer.from("]}\n");

/** What completing a hole leads to. */
export interface FramesOptions {
  /** A directory is complete: its tree is to be stored, and the node delivered. */
  readonly onTree: (into: Destination, tree: Uint8Array, directory: PendingDirectory) => void;
}

export class Frames {
  readonly #options: FramesOptions;
  readonly #frames = new Map<number, Frame>();
  /** Results by frame and hole; they may come before their frame does. */
  readonly #results = new Map<number, Map<number, Uint8Array>>();

  constructor(options: FramesOptions) {
    this.#options = options;
  }

  /** Takes a frame; it completes when all its holes have results. */
  add(frame: Frame): void {
    this.#frames.set(frame.id, frame);
    this.#completeWhenFull(frame);
  }

  /** Takes the result for a hole: items joined by commas, or nothing for what could not be saved. */
  deliver(into: Destination, nodes: Uint8Array): void {
    let results = this.#results.get(into.frame);
    if (results === undefined) {
      results = new Map();
      this.#results.set(into.frame, results);
    }
    results.set(into.hole, nodes);
    const frame = this.#frames.get(into.frame);
    if (frame !== undefined) this.#completeWhenFull(frame);
  }

  #completeWhenFull(frame: Frame): void {
    const results = this.#results.get(frame.id);
    const parts: Uint8Array[] = [];
    let isWhole = true;
    for (const part of frame.parts) {
      const items = typeof part === "number" ? results?.get(part) : part;
      if (items === undefined) return;
      if (items.length > 0) parts.push(items);
      else isWhole = false;
    }
    this.#frames.delete(frame.id);
    this.#results.delete(frame.id);
    const joined = parts.flatMap((part, at) => (at === 0 ? [part] : [comma, part]));
    if (frame.file !== undefined)
      this.deliver(frame.into, isWhole ? Buffer.concat([frame.file.prefix, ...joined, frame.file.suffix]) : Buffer.alloc(0));
    else if (frame.directory === undefined) this.deliver(frame.into, Buffer.concat(joined));
    else this.#options.onTree(frame.into, Buffer.concat([treePrefix, ...joined, treeSuffix]), frame.directory);
  }

  /** @throws Bug when a frame is still open: a result was lost */
  assertEmpty(): void {
    if (this.#frames.size > 0 || this.#results.size > 0) {
      throw new Failure("Bug", `The backup ended with ${this.#frames.size} directories incomplete`);
    }
  }
}
