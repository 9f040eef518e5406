/** Which packs `check --read-data` reads: all, a fixed part in turn, or a random choice that a seed makes again. */
import { Failure } from "@granary/base/errors";
import "../errors.ts";

/** Which packs to read. */
export type ReadDataSelection =
  | { readonly kind: "all" }
  /** Part `part` of `of`, 1 to 256, by the first byte of the pack's id, as restic does: after all parts everything was read. */
  | { readonly kind: "part"; readonly part: number; readonly of: number }
  /** So many of a hundred packs, at least one. */
  | { readonly kind: "percent"; readonly percent: number; readonly seed: number }
  /** Packs until so many bytes are reached, at least one. */
  | { readonly kind: "size"; readonly sizeBytes: number; readonly seed: number };

const units: Readonly<Record<string, number>> = { "": 1, b: 1, k: 2 ** 10, m: 2 ** 20, g: 2 ** 30, t: 2 ** 40 };

/**
 * Reads what `--read-data-subset` takes: `2/5`, `10%`, `2.5%`, or a size as `500M`.
 *
 * @param seed of a random choice, 32 bits
 * @throws InvalidArgument
 */
export function parseReadDataSubset(text: string, seed: number): ReadDataSelection {
  const part = /^(\d+)\/(\d+)$/.exec(text);
  if (part !== null) {
    const selection = { kind: "part", part: Number(part[1]), of: Number(part[2]) } as const;
    if (selection.of < 1 || selection.of > 256 || selection.part < 1 || selection.part > selection.of) {
      throw wrong(text, "of n/t, t is 1 to 256 and n is 1 to t");
    }
    return selection;
  }
  const percent = /^(\d+(?:\.\d+)?)%$/.exec(text);
  if (percent !== null) {
    const value = Number(percent[1]);
    if (value <= 0 || value > 100) throw wrong(text, "a percentage is above 0 and at most 100");
    return { kind: "percent", percent: value, seed };
  }
  const size = /^(\d+)([bkmgt]?)$/i.exec(text);
  const sizeBytes = Number(size?.[1] ?? 0) * (units[size?.[2]?.toLowerCase() ?? ""] ?? 0);
  if (sizeBytes <= 0) throw wrong(text, "n/t, a percentage as 10%, or a size as 500M needed");
  return { kind: "size", sizeBytes, seed };
}

function wrong(text: string, needed: string): Failure {
  return new Failure("InvalidArgument", `Cannot choose packs to read by "${text}": ${needed}`);
}

/** A pack to choose from. */
interface Choice {
  /** 32 bytes. */
  readonly packId: Uint8Array;
  readonly sizeBytes: number;
}

/** Chooses from these packs, whose order decides what a seed chooses. */
export function selectPacks<T extends Choice>(packs: readonly T[], selection: ReadDataSelection): readonly T[] {
  switch (selection.kind) {
    case "all":
      return packs;
    case "part":
      return packs.filter(({ packId }) => (packId[0] ?? 0) % selection.of === selection.part - 1);
    case "percent":
      return shuffle(packs, selection.seed).slice(0, Math.max(1, Math.floor((packs.length * selection.percent) / 100)));
    case "size": {
      let restBytes = selection.sizeBytes;
      return shuffle(packs, selection.seed).filter(({ sizeBytes }) => {
        const isWanted = restBytes > 0;
        restBytes -= sizeBytes;
        return isWanted;
      });
    }
  }
}

/** The packs in an order that only they and the seed decide (Fisher and Yates). */
function shuffle<T extends Choice>(packs: readonly T[], seed: number): T[] {
  const order = packs.toSorted((a, b) => Buffer.compare(a.packId, b.packId));
  const random = mulberry32(seed);
  for (let i = order.length - 1; i > 0; i--) {
    const j = Math.floor(random() * (i + 1));
    [order[i], order[j]] = [order[j], order[i]] as [T, T]; // both are inside
  }
  return order;
}

/** A small generator of numbers in [0, 1), good enough to draw lots (Tommy Ettinger's Mulberry32). */
function mulberry32(seed: number): () => number {
  let state = seed | 0;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
