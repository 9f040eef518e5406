/** What the project promises of its speed, and whether the figures keep it. */

import { type Cell, type Figure, findBytesPerBlob, findRatio, findSpread } from "./summary.ts";
import { type DatasetKey, datasetKeys, type Operation, operations, operationTitles, type ProgramName, type Results } from "./vocabulary.ts";

/** One promise on one data set. */
export interface Verdict {
  readonly target: string;
  readonly dataset: DatasetKey;
  /** At most this. */
  readonly limit: number;
  /** Undefined when it was not measured. */
  readonly value: number | undefined;
  /** "ratio", or the unit of value and limit. */
  readonly unit: "ratio" | "MB" | "bytes";
}

interface RatioTarget {
  readonly operation: Operation;
  readonly figure: Figure;
  /** The ratio to the better of these. */
  readonly others: readonly ProgramName[];
  readonly limit: number;
}

const ratioTargets: readonly RatioTarget[] = [
  { operation: "first-backup", figure: "wallSeconds", others: ["restic"], limit: 0.45 },
  { operation: "first-backup", figure: "wallSeconds", others: ["borg-lz4"], limit: 0.6 },
  { operation: "first-backup", figure: "cpuSeconds", others: ["restic"], limit: 0.6 },
  { operation: "no-change", figure: "wallSeconds", others: ["restic", "borg-lz4"], limit: 0.6 },
  { operation: "one-percent", figure: "wallSeconds", others: ["restic", "borg-lz4"], limit: 0.6 },
  { operation: "restore", figure: "wallSeconds", others: ["restic"], limit: 0.5 },
  { operation: "check", figure: "wallSeconds", others: ["restic"], limit: 0.9 },
  { operation: "prune", figure: "wallSeconds", others: ["restic"], limit: 0.8 },
  { operation: "first-backup", figure: "repositoryBytes", others: ["restic"], limit: 1.05 },
  { operation: "prune", figure: "repositoryBytes", others: ["restic"], limit: 1.05 },
];
const peakLimitMegabytes = 300;
const perBlobLimitBytes = 90;

const figureTitles: Readonly<Record<Figure, string>> = {
  wallSeconds: "time",
  cpuSeconds: "CPU",
  peakBytes: "peak memory",
  repositoryBytes: "repository",
};

/** Every promise, on every data set it speaks of, with what was measured. */
export function judge(results: Pick<Results, "samples" | "datasets">): Verdict[] {
  const ratios = ratioTargets.flatMap(({ operation, figure, others, limit }) =>
    datasetKeys.map((dataset): Verdict => {
      const found = others.map((program) => findRatio(results, { dataset, operation, program }, figure));
      const known = found.filter((ratio) => ratio !== undefined);
      // The better of the others is the one to which our ratio is greatest; both must have been measured.
      const value = known.length === found.length ? Math.max(...known) : undefined;
      const rival = others.length > 1 ? `the better of ${others.join(" and ")}` : (others[0] ?? "");
      return { target: `${operationTitles[operation]}, ${figureTitles[figure]}, to ${rival}`, dataset, limit, value, unit: "ratio" };
    }),
  );
  const peaks = operations.map((operation) => findSpread(results, oursOn("a", operation), "peakBytes")?.median ?? 0);
  const peak = Math.max(...peaks);
  return [
    ...ratios,
    {
      target: "Peak memory, greatest of all operations",
      dataset: "a",
      limit: peakLimitMegabytes,
      value: peak === 0 ? undefined : peak / 1e6,
      unit: "MB",
    },
    {
      target: "Memory for each added blob",
      dataset: "d",
      limit: perBlobLimitBytes,
      value: findBytesPerBlob(results, "granary"),
      unit: "bytes",
    },
  ];
}

/** Whether a promise is kept; undefined when that was not measured. */
export function isMet({ value, limit }: Pick<Verdict, "value" | "limit">): boolean | undefined {
  return value === undefined ? undefined : value <= limit;
}

function oursOn(dataset: DatasetKey, operation: Operation): Cell {
  return { dataset, operation, program: "granary" };
}
