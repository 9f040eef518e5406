/** What the command line asks for. */

import { parseArgs } from "node:util";
import { type DatasetKey, datasetKeys, type Operation, operations, type ProgramName, programNames } from "./vocabulary.ts";

export interface BenchOptions {
  readonly datasets: readonly DatasetKey[];
  readonly programs: readonly ProgramName[];
  readonly operations: readonly Operation[];
  readonly repeats: number;
  /** Size of the data sets; 1 is full. */
  readonly scale: number;
  /** Undefined: a new folder. */
  readonly workFolder: string | undefined;
  readonly isKept: boolean;
  readonly isResumed: boolean;
  /** Undefined: docs/benchmarks. */
  readonly outFolder: string | undefined;
  readonly isWritten: boolean;
  readonly isHelp: boolean;
}

const defaultRepeats = 5;
const quickScale = 0.02;

export const usage: string = `npm run bench -- [options]      granary, restic and borg on the same data, in turn

  --repeats N         runs of each operation (${defaultRepeats})
  --datasets LIST     of ${datasetKeys.join(",")}
  --programs LIST     of ${programNames.join(",")}
  --operations LIST   of ${operations.join(",")}
  --quick             small data, one repeat, docs left alone: whether everything works, not how fast
  --scale F           size of the data sets, 1 is full
  --work DIR          where data and repositories are; reused and kept (a new folder under .granary/, removed at the end)
  --keep              keep the new folder
  --resume            go on with what an earlier run measured in --work DIR
  --out DIR           where the report goes (docs/benchmarks, and only when everything was measured)
  --no-write          write no report
`;

/** Reads the arguments. @throws Error naming the argument that is wrong */
export function parseOptions(args: readonly string[]): BenchOptions {
  const { values } = parseArgs({
    args: [...args],
    options: {
      repeats: { type: "string" },
      datasets: { type: "string" },
      programs: { type: "string" },
      operations: { type: "string" },
      scale: { type: "string" },
      work: { type: "string" },
      out: { type: "string" },
      quick: { type: "boolean", default: false },
      keep: { type: "boolean", default: false },
      resume: { type: "boolean", default: false },
      "no-write": { type: "boolean", default: false },
      help: { type: "boolean", short: "h", default: false },
    },
  });
  if (values.resume && values.work === undefined) throw new Error("--resume needs --work DIR, the folder of the run to go on with");
  const scale = parseNumber("--scale", values.scale, values.quick ? quickScale : 1);
  return {
    datasets: parseList("--datasets", values.datasets, datasetKeys),
    programs: parseList("--programs", values.programs, programNames),
    operations: parseList("--operations", values.operations, operations),
    repeats: Math.ceil(parseNumber("--repeats", values.repeats, values.quick ? 1 : defaultRepeats)),
    scale,
    workFolder: values.work,
    isKept: values.keep || values.work !== undefined,
    isResumed: values.resume,
    outFolder: values.out,
    isWritten: !values["no-write"],
    isHelp: values.help,
  };
}

function parseList<T extends string>(name: string, text: string | undefined, known: readonly T[]): readonly T[] {
  if (text === undefined) return known;
  const words = text.split(",");
  const unknown = words.find((word) => !known.some((one) => one === word));
  if (unknown !== undefined) throw new Error(`${name} does not know "${unknown}"; it takes a list of ${known.join(",")}`);
  return known.filter((one) => words.includes(one));
}

function parseNumber(name: string, text: string | undefined, fallback: number): number {
  if (text === undefined) return fallback;
  const number = Number(text);
  if (!(number > 0 && Number.isFinite(number))) throw new Error(`${name} needs a number above 0, not "${text}"`);
  return number;
}
