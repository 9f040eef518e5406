/** Groups the pieces of a plan by pack, in the order of the pack, and cuts them into batches that a worker takes at once. */
import type { BlobIndex } from "../repository/blob-index.ts";
import { plainBytesOf } from "./content-check.ts";
import { action, type EntryTable, rootEntry } from "./entry-table.ts";
import type { PiecesTask } from "./messages.ts";

/** A batch ends when it has this many pieces, or bytes in the pack, so that work can be shared even if there are few packs. */
const batchPieces = 1024;
const batchBytes = 4 * 1024 * 1024;
/** Up to this many pieces, number and offset fit into one double, by which sorting is quick. */
const doublePieces = 2 ** 21;

/**
 * The tasks that write all pieces; each span of a pack is in one task only.
 *
 * @param table whose links are settled: pieces of entries that become links are left out
 * @returns the tasks, and how many bytes they write
 */
export function planBatches(table: EntryTable, index: BlobIndex): { readonly tasks: PiecesTask[]; readonly bytes: number } {
  const { shared, ends } = groupByPack(table, index.packs);
  const order = new Uint32Array(shared);
  const tasks: PiecesTask[] = [];
  let from = 0;
  for (const to of ends) {
    if (to === from) continue;
    sortByOffset(table, order.subarray(from, to));
    cut(table, order, { from, to, add: (start, end) => tasks.push({ kind: "pieces", order: shared, from: start, to: end }) });
    from = to;
  }
  let bytes = 0;
  for (const piece of order) {
    const place = index.placeOf(table.blobOf(piece));
    if (place !== undefined) bytes += plainBytesOf(place);
  }
  return { tasks, bytes };
}

/** Counting sort. @returns the piece numbers, and where each pack's end */
function groupByPack(table: EntryTable, packs: number): { shared: SharedArrayBuffer; ends: Uint32Array } {
  const next = new Uint32Array(packs + 1);
  const limit = table.pieceLimit;
  for (let piece = 0; piece < limit; piece++) {
    if (!isWanted(table, piece)) continue;
    const pack = table.packOf(piece) + 1;
    next[pack] = (next[pack] ?? 0) + 1;
  }
  for (let pack = 1; pack <= packs; pack++) next[pack] = (next[pack] ?? 0) + (next[pack - 1] ?? 0);
  const shared = new SharedArrayBuffer((next[packs] ?? 0) * 4);
  const order = new Uint32Array(shared);
  for (let piece = 0; piece < limit; piece++) {
    if (!isWanted(table, piece)) continue;
    const pack = table.packOf(piece);
    const at = next[pack] ?? 0;
    order[at] = piece;
    next[pack] = at + 1;
  }
  // what was each pack's beginning has moved to its end
  return { shared, ends: next.subarray(0, packs) };
}

function isWanted(table: EntryTable, piece: number): boolean {
  const entry = table.entryOf(piece);
  return entry !== rootEntry && table.actionOf(entry) !== action.link;
}

function sortByOffset(table: EntryTable, pieces: Uint32Array): void {
  let isSorted = true;
  for (let at = 1; at < pieces.length && isSorted; at++)
    isSorted = table.packOffsetOf(pieces[at - 1] ?? 0) <= table.packOffsetOf(pieces[at] ?? 0);
  if (isSorted) return;
  if (pieces.length > doublePieces) {
    pieces.sort((a, b) => table.packOffsetOf(a) - table.packOffsetOf(b) || a - b);
    return;
  }
  const keys = Float64Array.from(pieces, (piece, at) => table.packOffsetOf(piece) * doublePieces + at).sort();
  const sorted = Uint32Array.from(keys, (key) => pieces[key % doublePieces] ?? 0);
  pieces.set(sorted);
}

function cut(table: EntryTable, order: Uint32Array, span: { from: number; to: number; add: (from: number, to: number) => void }): void {
  let start = span.from;
  let startBytes = table.packOffsetOf(order[start] ?? 0);
  for (let at = span.from + 1; at < span.to; at++) {
    const offsetBytes = table.packOffsetOf(order[at] ?? 0);
    if (at - start < batchPieces && offsetBytes - startBytes < batchBytes) continue;
    span.add(start, at);
    start = at;
    startBytes = offsetBytes;
  }
  span.add(start, span.to);
}
