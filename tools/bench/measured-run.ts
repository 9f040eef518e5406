/** Runs a command and says what it used, as the kernel counted it: through GNU time, which waits for the command and reads its account. */

import { type ChildProcess, spawn } from "node:child_process";
import { closeSync, openSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { Usage } from "./vocabulary.ts";

/** A command and where it runs. */
export interface Command {
  readonly words: readonly string[];
  readonly folder: string;
  readonly environment: Readonly<Record<string, string>>;
}

export const timeProgram = "/usr/bin/time";

/** The command that runs now, to be stopped when the benchmark is. */
let running: ChildProcess | undefined;

/** Stops the command that runs now. */
export function stopRunning(): void {
  running?.kill("SIGTERM");
}

/**
 * Runs a command to its end; what it prints goes to files in `logFolder`.
 *
 * @throws Error with the end of what it printed when its exit code is not 0
 */
export async function runMeasured(command: Command, logFolder: string): Promise<Usage> {
  const accountPath = join(logFolder, "account");
  const outputPath = join(logFolder, "output");
  const output = openSync(outputPath, "w");
  const words = ["--quiet", "--format", "%U %S %M", "--output", accountPath, "--", ...command.words];
  const startMs = performance.now();
  const exitCode = await new Promise<number | string>((resolve, reject) => {
    running = spawn(timeProgram, words, { cwd: command.folder, env: command.environment, stdio: ["ignore", output, output] });
    running.once("error", reject);
    running.once("exit", (code, signal) => resolve(code ?? signal ?? "nothing"));
  }).finally(() => {
    running = undefined;
    closeSync(output);
  });
  const wallSeconds = Math.round(performance.now() - startMs) / 1000;
  if (exitCode !== 0)
    throw new Error(`"${command.words.join(" ")}" ended with ${exitCode}:\n${readFileSync(outputPath, "utf8").trim().slice(-2000)}`);
  return { wallSeconds, ...parseAccount(readFileSync(accountPath, "utf8")) };
}

/** Reads `user system peak` as GNU time writes them for `%U %S %M`: seconds, seconds, KiB. */
export function parseAccount(text: string): Omit<Usage, "wallSeconds"> {
  const match = /^(\d+(?:\.\d+)?) (\d+(?:\.\d+)?) (\d+)$/.exec(text.trim());
  if (match === null) throw new Error(`Cannot read what GNU time wrote: ${JSON.stringify(text)}`);
  const [, user, system, peak] = match;
  return { cpuSeconds: Math.round((Number(user) + Number(system)) * 100) / 100, peakBytes: Number(peak) * 1024 };
}

/** What several commands, run one after the other, used together. */
export function addUsages(usages: readonly Usage[]): Usage {
  return {
    wallSeconds: usages.reduce((sum, { wallSeconds }) => sum + wallSeconds, 0),
    cpuSeconds: usages.reduce((sum, { cpuSeconds }) => sum + cpuSeconds, 0),
    peakBytes: Math.max(0, ...usages.map(({ peakBytes }) => peakBytes)),
  };
}
