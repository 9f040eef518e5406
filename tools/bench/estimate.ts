/** How long a run will take: from what each operation took once, corrected by what this run has taken so far. */

import { findNeeded } from "./session.ts";
import type { DatasetKey, Operation, ProgramName, Sample } from "./vocabulary.ts";

/** Seconds of one run at full size, the mean of the programs, on two cores of a server of 2024; with what is done around it. */
const typicalSeconds: Readonly<Record<DatasetKey, Readonly<Record<Operation, number>>>> = {
  a: { "first-part": 0, "first-backup": 12, "no-change": 4, "one-percent": 4, restore: 14, check: 8, prune: 4 },
  b: { "first-part": 0, "first-backup": 14, "no-change": 3, "one-percent": 10, restore: 12, check: 10, prune: 4 },
  c: { "first-part": 0, "first-backup": 14, "no-change": 3, "one-percent": 13, restore: 12, check: 6, prune: 4 },
  d: { "first-part": 12, "first-backup": 35, "no-change": 12, "one-percent": 12, restore: 45, check: 16, prune: 10 },
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
    const perRepeat = findNeeded(operations, key).reduce((sum, operation) => sum + runSeconds(key, operation, scale), 0);
    return makingSeconds * scale + perRepeat * programs.length * repeats;
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

/** A run of the smallest data takes a second: keys are derived, processes started. */
function runSeconds(key: DatasetKey, operation: Operation, scale: number): number {
  return 1 + typicalSeconds[key][operation] * scale;
}

/** A time such as `12 min` or `1 h 05 min`. */
export function formatMinutes(seconds: number): string {
  const minutes = Math.max(1, Math.round(seconds / 60));
  return minutes < 60 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${String(minutes % 60).padStart(2, "0")} min`;
}
