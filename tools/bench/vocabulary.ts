/** What is measured: the words that options, results and reports have in common. */

/** The data sets, by the letter that names them. */
export const datasetKeys = ["a", "b", "c", "d"] as const;
export type DatasetKey = (typeof datasetKeys)[number];

/** The programs; ours first. */
export const programNames = ["granary", "restic", "borg-lz4", "borg-zstd"] as const;
export type ProgramName = (typeof programNames)[number];

/** The operations, in the order in which they run on a repository. `first-part` is a first backup of a third of (d), for the memory a blob needs. */
export const operations = ["first-part", "first-backup", "no-change", "one-percent", "restore", "check", "prune"] as const;
export type Operation = (typeof operations)[number];

/** Whether an operation is for this program on this data: `first-part` is for (d), which has a part, and for us and whom we are compared with. */
export function isFor(operation: Operation, { dataset, program }: { dataset: DatasetKey; program?: ProgramName }): boolean {
  return operation !== "first-part" || (dataset === "d" && (program === undefined || program === "granary" || program === "restic"));
}

export const operationTitles: Readonly<Record<Operation, string>> = {
  "first-part": "First backup of a third",
  "first-backup": "First backup",
  "no-change": "No change",
  "one-percent": "1 % changed",
  restore: "Restore",
  check: "Check with data",
  prune: "Forget and prune",
};

/** What one run of an operation used. */
export interface Usage {
  readonly wallSeconds: number;
  /** User and system time of the process, its threads, and the processes it waited for. */
  readonly cpuSeconds: number;
  /** The most memory any single process of the run held at once, as the kernel counted it. */
  readonly peakBytes: number;
}

/** One measured run. */
export interface Sample extends Usage {
  readonly dataset: DatasetKey;
  /** From 1. */
  readonly repeat: number;
  readonly operation: Operation;
  readonly program: ProgramName;
  /** Size of all files of the repository after the run. */
  readonly repositoryBytes: number;
}

/** What a data set holds. */
export interface DatasetFacts {
  readonly title: string;
  readonly files: number;
  readonly folders: number;
  readonly sizeBytes: number;
  /** What is changed for "1 % changed". */
  readonly change: string;
  /** Files and folders of the third that `first-part` backs up; (d) only. */
  readonly partEntries?: number;
}

/** What the figures were measured on. */
export interface MachineFacts {
  readonly processor: string;
  readonly cores: number;
  readonly memoryBytes: number;
  readonly kernel: string;
}

/** All that a run of the benchmark found, as results.json holds it. */
export interface Results {
  readonly schema: 1;
  /** RFC 3339. */
  readonly startedAt: string;
  /** 1 is the full size of the data sets. */
  readonly scale: number;
  readonly machine: MachineFacts;
  readonly versions: Readonly<Partial<Record<ProgramName, string>>>;
  readonly datasets: Readonly<Partial<Record<DatasetKey, DatasetFacts>>>;
  readonly samples: readonly Sample[];
  /** What was proven of the results, one line each: restores compared by content, snapshots counted, damage found. */
  readonly proofs: readonly string[];
}
