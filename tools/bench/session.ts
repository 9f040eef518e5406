/**
 * Measures: for each data set, for each repeat, for each operation, every program once, in an order that rotates, so that whatever the
 * machine does meanwhile falls on all of them. Before each run everything written is flushed to the disk; the data is in the page cache,
 * as far as memory allows, because it is read once before each repeat. Nothing but the commands themselves is timed.
 */

import { spawnSync } from "node:child_process";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import type { Dataset } from "./datasets.ts";
import { addUsages, type Command, runMeasured } from "./measured-run.ts";
import type { Place, Program } from "./programs.ts";
import { type Prove, proveCount, proveOurs, proveRestore } from "./proofs.ts";
import { countTree, readTree, removeTree } from "./tree-compare.ts";
import { type DatasetKey, isFor, type Operation, operations, type ProgramName, type Sample, type Usage } from "./vocabulary.ts";

/** What a session is to measure, and whom it tells. */
export interface SessionPlan {
  readonly workFolder: string;
  readonly programs: readonly Program[];
  /** What to record. What these need is run too. */
  readonly operations: readonly Operation[];
  readonly repeats: number;
  /** What has been measured and proven, in earlier runs too. */
  samples(): readonly Sample[];
  proofs(): readonly string[];
  onSample(sample: Sample): void;
  onProof(text: string): void;
  /** A program failed, or did not do what it said; the session goes on without it until the next repeat. */
  onFailure(text: string): void;
}

const backups: readonly Operation[] = ["first-backup", "no-change", "one-percent"];

/** The operations that must run so that those asked for can, in order; (d) alone has a part. */
export function findNeeded(wanted: readonly Operation[], key: DatasetKey): Operation[] {
  const needed = new Set(wanted.filter((operation) => isFor(operation, { dataset: key })));
  if ([...needed].some((operation) => operation !== "first-part")) needed.add("first-backup");
  if (needed.has("prune")) needed.add("one-percent");
  return operations.filter((operation) => needed.has(operation));
}

/** `list` turned by `count` places. */
export function rotate<T>(list: readonly T[], count: number): T[] {
  const at = list.length === 0 ? 0 : count % list.length;
  return [...list.slice(at), ...list.slice(0, at)];
}

/** Measures all repeats of one data set; a repeat that is complete among `plan.samples()` is passed over. */
export async function measureDataset(dataset: Dataset, plan: SessionPlan): Promise<void> {
  const wanted = findNeeded(plan.operations, dataset.key).filter((operation) => plan.operations.includes(operation));
  const isMeasured = (repeat: number, operation: Operation, program: ProgramName): boolean =>
    plan
      .samples()
      .some(
        (sample) =>
          sample.dataset === dataset.key && sample.repeat === repeat && sample.operation === operation && sample.program === program,
      );
  for (let repeat = 1; repeat <= plan.repeats; repeat += 1) {
    const isDone = plan.programs.every(({ name }) =>
      wanted.every((operation) => !isFor(operation, { dataset: dataset.key, program: name }) || isMeasured(repeat, operation, name)),
    );
    if (!isDone) await measureRepeat(dataset, repeat, plan);
  }
}

/** One program in one repeat. */
interface Entrant {
  readonly program: Program;
  /** The backup it made last. */
  latest?: Operation;
  hasFailed: boolean;
}

async function measureRepeat(dataset: Dataset, repeat: number, plan: SessionPlan): Promise<void> {
  const home = join(plan.workFolder, "runs");
  removeTree(home);
  const entrants: Entrant[] = plan.programs.map((program) => ({ program, hasFailed: false }));
  const needed = findNeeded(plan.operations, dataset.key);
  dataset.warm();
  for (const [turn, operation] of needed.entries()) {
    if (operation === "one-percent") dataset.change();
    for (const entrant of rotate(entrants, repeat - 1 + turn)) {
      const { name } = entrant.program;
      if (entrant.hasFailed || !isFor(operation, { dataset: dataset.key, program: name })) continue;
      try {
        const measured = await measureOne(entrant, operation, { dataset, home, needed, plan });
        if (plan.operations.includes(operation)) plan.onSample({ dataset: dataset.key, repeat, operation, program: name, ...measured });
      } catch (failure) {
        entrant.hasFailed = true;
        plan.onFailure(
          `(${dataset.key}) repeat ${repeat}, ${name}, ${operation}: ${failure instanceof Error ? failure.message : String(failure)}`,
        );
      }
    }
  }
  removeTree(home);
}

interface Circumstances {
  readonly dataset: Dataset;
  readonly home: string;
  readonly needed: readonly Operation[];
  readonly plan: SessionPlan;
}

async function measureOne(
  entrant: Entrant,
  operation: Operation,
  { dataset, home, needed, plan }: Circumstances,
): Promise<Usage & { repositoryBytes: number }> {
  const { program } = entrant;
  const folder = join(home, program.name);
  const isPart = operation === "first-part";
  const place: Place = {
    repository: join(folder, isPart ? "part-repository" : "repository"),
    cache: join(folder, isPart ? "part-cache" : "cache"),
    source: isPart ? dataset.partFolder : dataset.folder,
    target: join(folder, "restored"),
    ...(entrant.latest === undefined ? {} : { latest: entrant.latest }),
  };
  const prove: Prove = (claim, proof) => {
    const text = `(${dataset.key}) ${program.name}: ${claim}`;
    if (plan.proofs().includes(text)) return;
    proof();
    plan.onProof(text);
  };
  if (isPart || operation === "first-backup") {
    mkdirSync(place.cache, { recursive: true });
    await runAll(program.create(place), home);
  }
  if (operation === "restore") mkdirSync(place.target);
  const snapshots = needed.filter((done) => backups.includes(done)).length;
  if (operation === "prune" && snapshots > 1) proveCount(program, place, { expected: snapshots, prove });

  if (operation !== "first-backup" && !isPart) readTree(place.repository); // how it was written must not decide how it is read
  spawnSync("sync");
  const usage = await runAll(program.commands(operation, place), home);

  if (backups.includes(operation)) entrant.latest = operation;
  const { sizeBytes: repositoryBytes } = countTree(place.repository);
  if (operation === "restore") {
    proveRestore(place, prove);
    removeTree(place.target);
  }
  if (operation === "prune") {
    proveCount(program, place, { expected: 1, prove });
    if (program.foreignCheck !== undefined) proveOurs(program, { place, foreignCheck: program.foreignCheck(place), prove });
  }
  return { ...usage, repositoryBytes };
}

async function runAll(commands: readonly Command[], logFolder: string): Promise<Usage> {
  const usages: Usage[] = [];
  for (const command of commands) usages.push(await runMeasured(command, logFolder));
  return addUsages(usages);
}
