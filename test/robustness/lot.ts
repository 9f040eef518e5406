/** Chance that can be repeated: everything follows from a seed. */
import { createCipheriv, createHash } from "node:crypto";

/** Draws by lot; the same draws for the same seed. */
export class Lot {
  readonly seed: number;
  #state: number;

  constructor(seed: number) {
    this.seed = seed;
    this.#state = seed >>> 0;
  }

  /** In [0, 1). Mulberry32. */
  draw(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let t = this.#state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  }

  /** A whole number from `least` up to `most`. */
  count(least: number, most: number): number {
    return least + Math.floor(this.draw() * (most - least + 1));
  }

  isHeads(chance = 0.5): boolean {
    return this.draw() < chance;
  }

  pick<T>(items: readonly T[]): T {
    const item = items[this.count(0, items.length - 1)];
    if (item === undefined) throw new Error("Nothing to pick from");
    return item;
  }

  /** One of these, each as likely as its weight. */
  pickWeighted<T>(items: readonly (readonly [weight: number, item: T])[]): T {
    let at = this.draw() * items.reduce((sum, [weight]) => sum + weight, 0);
    for (const [weight, item] of items) if ((at -= weight) < 0) return item;
    throw new Error("Nothing to pick from");
  }

  /** Bytes that do not compress, or that do. */
  bytes(sizeBytes: number): Buffer {
    const key = createHash("sha256").update(`${this.seed} ${this.draw()}`).digest();
    if (this.isHeads(0.3)) return Buffer.alloc(sizeBytes, `${key.toString("hex")}\n`);
    return createCipheriv("aes-256-ctr", key, Buffer.alloc(16)).update(Buffer.alloc(sizeBytes));
  }
}
