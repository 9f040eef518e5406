/** From samples to medians and their ratios. */

import type { DatasetKey, Operation, ProgramName, Results, Sample } from "./vocabulary.ts";

/** A figure over the repeats. */
export interface Spread {
  readonly median: number;
  readonly least: number;
  readonly most: number;
  readonly count: number;
}

/** The figures of a sample that have a spread. */
export type Figure = "wallSeconds" | "cpuSeconds" | "peakBytes" | "repositoryBytes";

/** Names one cell of the tables. */
export interface Cell {
  readonly dataset: DatasetKey;
  readonly operation: Operation;
  readonly program: ProgramName;
}

/** The middle value; of an even number, the mean of the two in the middle. @throws RangeError when there is none */
export function computeMedian(values: readonly number[]): number {
  const sorted = [...values].sort((one, other) => one - other);
  const upper = sorted[Math.floor(sorted.length / 2)];
  const lower = sorted[Math.ceil(sorted.length / 2) - 1];
  if (upper === undefined || lower === undefined) throw new RangeError("No values have no median");
  return (upper + lower) / 2;
}

/** The spread of one figure of one cell, or `undefined` when it was not measured. */
export function findSpread(
  { samples }: Pick<Results, "samples">,
  { dataset, operation, program }: Cell,
  figure: Figure,
): Spread | undefined {
  const values = samples
    .filter((sample: Sample) => sample.dataset === dataset && sample.operation === operation && sample.program === program)
    .map((sample) => sample[figure]);
  if (values.length === 0) return undefined;
  return { median: computeMedian(values), least: Math.min(...values), most: Math.max(...values), count: values.length };
}

/** Our median divided by that of another program, or `undefined` when one was not measured. */
export function findRatio(results: Pick<Results, "samples">, { dataset, operation, program }: Cell, figure: Figure): number | undefined {
  const ours = findSpread(results, { dataset, operation, program: "granary" }, figure);
  const theirs = findSpread(results, { dataset, operation, program }, figure);
  return ours === undefined || theirs === undefined || theirs.median === 0 ? undefined : ours.median / theirs.median;
}

/** Bytes of peak memory that each blob adds, from first backups of a third of (d) and of all of it; a file or folder is a blob there. */
export function findBytesPerBlob({ samples, datasets }: Pick<Results, "samples" | "datasets">, program: ProgramName): number | undefined {
  const facts = datasets.d;
  const part = findSpread({ samples }, { dataset: "d", operation: "first-part", program }, "peakBytes");
  const whole = findSpread({ samples }, { dataset: "d", operation: "first-backup", program }, "peakBytes");
  if (facts?.partEntries === undefined || part === undefined || whole === undefined) return undefined;
  return (whole.median - part.median) / (facts.files + facts.folders - facts.partEntries);
}
