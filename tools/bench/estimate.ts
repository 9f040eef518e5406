/** How long a run will take: from what each operation took once, corrected by what this run has taken so far. */

import { findNeeded } from "./session.ts";
import { type DatasetKey, isFor, type Operation, type ProgramName, type Sample } from "./vocabulary.ts";

/** Seconds of one run at full size, the mean of the programs, on two cores of a server of 2024; with what is done around it. */
const typicalSeconds: Readonly<Record<DatasetKey, Readonly<Record<Operation, number>>>> = {
  a: { "first-part": 0, "first-backup": 12, "no-change": 5, "one-percent": 6, restore: 20, check: 10, prune: 6 },
  b: { "first-part": 0, "first-backup": 14, "no-change": 1, "one-percent": 8, restore: 12, check: 12, prune: 5 },
  c: { "first-part": 0, "first-backup": 14, "no-change": 1, "one-percent": 9, restore: 8, check: 5, prune: 6 },
  d: { "first-part": 8, "first-backup": 32, "no-change": 12, "one-percent": 15, restore: 38, check: 16, prune: 9 },
};
/** To make a data set. */
const makingSeconds = 20;

interface Extent {
  readonly datasets: readonly DatasetKey[];
  readonly programs: readonly ProgramName[];
  readonly operations: readonly Operation[];
  readonly repeats: number;
  readonly scale: number;
}

/** What a whole run should take, in seconds. */
export function estimateSeconds({ datasets, programs, operations, repeats, scale }: Extent): number {
  const seconds = datasets.map((key) => {
    const perRepeat = findNeeded(operations, key).map((operation) => {
      const count = programs.filter((program) => isFor(operation, { dataset: key, program })).length;
      return count * runSeconds(key, operation, scale);
    });
    return makingSeconds * scale + repeats * perRepeat.reduce((sum, one) => sum + one, 0);
  });
  return seconds.reduce((sum, one) => sum + one, 0);
}

/** What is left to do, in seconds: what is expected of the rest, corrected by what the runs so far took and were expected to take. */
export function estimateRest(extent: Extent, samples: readonly Sample[]): number {
  const expected = samples.reduce((sum, { dataset, operation }) => sum + runSeconds(dataset, operation, extent.scale), 0);
  const taken = samples.reduce((sum, { wallSeconds }) => sum + wallSeconds, 0);
  // The first run alone says little of the others.
  const correction = samples.length < 10 ? 1 : taken / expected;
  return Math.max(0, estimateSeconds(extent) - expected) * correction;
}

/** Even the smallest run takes most of a second: a key is derived, and a process started. */
function runSeconds(key: DatasetKey, operation: Operation, scale: number): number {
  return 0.7 + typicalSeconds[key][operation] * scale;
}

/** A time such as `12 min` or `1 h 05 min`. */
export function formatMinutes(seconds: number): string {
  const minutes = Math.max(1, Math.round(seconds / 60));
  return minutes < 60 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${String(minutes % 60).padStart(2, "0")} min`;
}
