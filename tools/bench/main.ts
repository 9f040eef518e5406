/**
 * Measures granary against restic and borg on the same data, prints what it found, and writes docs/benchmarks. Exit code 0 whether or not
 * the targets are met; 1 when a program failed or did not do what it said. What was measured is saved after each run of a program, so that
 * `--work DIR --resume` goes on where an interrupted run stopped.
 */

import { existsSync, mkdirSync, mkdtempSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { openDataset } from "./datasets.ts";
import { estimateRest, formatMinutes } from "./estimate.ts";
import { describeMachine, installPrograms } from "./machine.ts";
import { stopRunning } from "./measured-run.ts";
import { type BenchOptions, parseOptions, usage } from "./options.ts";
import { openProgram } from "./programs.ts";
import { describeDataset, drawCharts, renderBytesPerBlob, renderDataset, renderPage, renderVerdicts } from "./report.ts";
import { measureDataset } from "./session.ts";
import { findSpread } from "./summary.ts";
import { removeTree } from "./tree-compare.ts";
import { type DatasetKey, datasetKeys, isFor, operations, programNames, type Results, type Sample } from "./vocabulary.ts";

const root = join(import.meta.dirname, "../..");
const docsFolder = join(root, "docs/benchmarks");

async function main(): Promise<void> {
  const options = parseOptions(process.argv.slice(2));
  if (options.isHelp) {
    console.log(usage);
    return;
  }
  process.env.PATH = `${process.env.PATH ?? ""}:/usr/sbin:/sbin`; // mkfs.ext4 is there, which the PATH of a plain user leaves out
  installPrograms();
  const workFolder = openWorkFolder(options);
  process.once("SIGINT", () => {
    stopRunning();
    console.log(`\nbench: stopped; --work ${workFolder} --resume goes on`);
    process.exit(130);
  });
  const { results, failures } = await measure(options, workFolder).catch((failure: unknown) => {
    console.error(`bench: broke off; --work ${workFolder} --resume goes on`);
    throw failure;
  });
  printReport(results);
  writeReport(results, options);
  if (options.isKept) console.log(`bench: data, results and programs are kept in ${workFolder}`);
  else removeTree(workFolder);
  if (failures.length > 0) {
    console.error(`\nbench: ${failures.length} failed\n${failures.join("\n")}`);
    process.exitCode = 1;
  }
}

function openWorkFolder({ workFolder }: BenchOptions): string {
  if (workFolder !== undefined) {
    mkdirSync(workFolder, { recursive: true });
    return resolve(workFolder);
  }
  mkdirSync(join(root, ".granary"), { recursive: true });
  return mkdtempSync(join(root, ".granary", "bench-"));
}

async function measure(options: BenchOptions, workFolder: string): Promise<{ results: Results; failures: string[] }> {
  const resultsPath = join(workFolder, "results.json");
  let results = options.isResumed ? readResults(resultsPath) : undefined;
  if (results !== undefined && results.scale !== options.scale)
    throw new Error(`Cannot go on: ${resultsPath} was measured at scale ${results.scale}, not ${options.scale}`);
  const programs = options.programs.map((name) => openProgram(name, workFolder, results !== undefined));
  const versions = Object.fromEntries(programs.map(({ name, version }) => [name, version]));
  results = {
    ...(results ?? { schema: 1, startedAt: new Date().toISOString(), scale: options.scale, datasets: {}, samples: [], proofs: [] }),
    machine: describeMachine(),
    versions: { ...versions, ...results?.versions },
  };
  const failures: string[] = [];
  console.log(`bench: about ${formatMinutes(estimateRest(options, results.samples))} of work`);
  const update = (changed: Partial<Results>): void => {
    if (results === undefined) return;
    results = { ...results, ...changed };
    writeFileSync(`${resultsPath}.new`, JSON.stringify(results));
    renameSync(`${resultsPath}.new`, resultsPath);
  };
  for (const key of options.datasets) {
    const dataset = openDataset(key, workFolder, options.scale);
    update({ datasets: { ...results.datasets, [key]: dataset.facts } });
    console.log(`bench: ${describeDataset(results, key)}`);
    await measureDataset(dataset, {
      ...options,
      workFolder,
      programs,
      samples: () => results?.samples ?? [],
      proofs: () => results?.proofs ?? [],
      onSample(sample) {
        update({ samples: [...withoutSame(results?.samples ?? [], sample), sample] });
        printSample(sample, estimateRest(options, results?.samples ?? []));
      },
      onProof: (text) => update({ proofs: [...(results?.proofs ?? []), text] }),
      onFailure(text) {
        failures.push(text);
        console.error(`bench: FAILED ${text}`);
      },
    });
  }
  return { results, failures };
}

/** An interrupted repeat is measured anew, and what it left is replaced. */
function withoutSame(samples: readonly Sample[], { dataset, repeat, operation, program }: Sample): Sample[] {
  return samples.filter(
    (old) => old.dataset !== dataset || old.repeat !== repeat || old.operation !== operation || old.program !== program,
  );
}

function readResults(path: string): Results | undefined {
  if (!existsSync(path)) return undefined;
  const results = JSON.parse(readFileSync(path, "utf8")) as Results; // written by this program, in a folder of its own
  if (results.schema !== 1) throw new Error(`Cannot go on with ${path}: another version of the benchmark wrote it`);
  return results;
}

function printSample({ dataset, repeat, operation, program, ...usage }: Sample, restSeconds: number): void {
  const figures = [
    `${usage.wallSeconds.toFixed(2)} s`,
    `${usage.cpuSeconds.toFixed(2)} s CPU`,
    `${(usage.peakBytes / 1e6).toFixed(0)} MB`,
    `repository ${(usage.repositoryBytes / 1e6).toFixed(1)} MB`,
  ];
  console.log(
    `(${dataset}) ${repeat} ${operation.padEnd(12)} ${program.padEnd(9)} ${figures.join(", ")}; ${formatMinutes(restSeconds)} left`,
  );
}

function printReport(results: Results): void {
  for (const key of datasetKeys)
    if (results.datasets[key] !== undefined) console.log(`\n${describeDataset(results, key)}\n\n${renderDataset(results, key)}`);
  console.log(`\n${renderBytesPerBlob(results)}\n\n${renderVerdicts(results)}\n`);
  if (results.scale < 1)
    console.log(
      `bench: at ${results.scale} of the full size mostly the start of each program is measured; the targets are for full size\n`,
    );
}

function writeReport(results: Results, { outFolder, isWritten }: BenchOptions): void {
  if (!isWritten) return;
  if (outFolder === undefined && !isComplete(results)) {
    console.log(
      "bench: docs/benchmarks is left alone, because not everything was measured at full size; --out DIR writes a report elsewhere",
    );
    return;
  }
  const folder = outFolder ?? docsFolder;
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, "README.md"), renderPage(results));
  writeFileSync(join(folder, "results.json"), renderResults(results));
  for (const [name, text] of Object.entries(drawCharts(results))) writeFileSync(join(folder, name), text);
  console.log(`bench: report written to ${folder}`);
}

/** The results with a line for each sample, so that a new run can be compared with an old one line by line. */
function renderResults({ samples, ...rest }: Results): string {
  const head = JSON.stringify(rest, null, 2).replace(/\n\}$/, "");
  return `${head},\n  "samples": [\n${samples.map((sample) => `    ${JSON.stringify(sample)}`).join(",\n")}\n  ]\n}\n`;
}

/** Whether every program ran every operation on every data set, at full size. */
function isComplete(results: Results): boolean {
  const isMeasured = (dataset: DatasetKey): boolean =>
    operations.every((operation) =>
      programNames.every(
        (program) =>
          !isFor(operation, { dataset, program }) || findSpread(results, { dataset, operation, program }, "wallSeconds") !== undefined,
      ),
    );
  return results.scale === 1 && datasetKeys.every(isMeasured);
}

await main();
