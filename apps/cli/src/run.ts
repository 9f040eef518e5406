/**
 * One run of a command: its options are read, its work is done, and whatever comes of it becomes messages and an exit code.
 * The only place that catches.
 */

import type { Command } from "commander";
import { Failure, isFailure, toFailure } from "@granary/base/errors";
import "./errors.ts";
import { exitCodeOf, exitDone, exitWithWarnings } from "./exit-codes.ts";
import { type GlobalOptions, readGlobalOptions } from "./global-options.ts";
import { watchInterrupts } from "./interrupts.ts";
import { describeDetails, Output } from "./output.ts";

/** What a command's work is given. */
export interface Run {
  readonly command: Command;
  readonly options: GlobalOptions;
  readonly output: Output;
  /** Aborted by Ctrl-C, or when nobody reads the output any more. */
  readonly signal: AbortSignal;
  /** Says that something was left out; the run then ends with the exit code for that. With `--json`, the object is written instead. */
  warn(text: string, json?: Readonly<Record<string, unknown>>): void;
}

/** Does the work of a command, and sets the process's exit code. Never rejects. */
export async function runWork(command: Command, work: (run: Run) => Promise<void>): Promise<void> {
  let output = new Output({ isJson: process.argv.includes("--json"), verbosity: 1 });
  let warningCount = 0;
  using interrupts = watchInterrupts((name) => {
    const again = name === "SIGINT" ? "; press Ctrl-C again to stop at once" : "";
    output.note(`granary: stopping${again}`);
  });
  process.stdout.on("error", (error: NodeJS.ErrnoException) => interrupts.stop(describeOutputError(error)));
  try {
    const options = readGlobalOptions(command, process.env);
    output = new Output(options);
    const warn = (text: string, json?: Readonly<Record<string, unknown>>): void => {
      warningCount++;
      output.complain(options.isJson ? JSON.stringify(json ?? { message_type: "error", error: { message: text } }) : `warning: ${text}`);
    };
    await work({ command, options, output, signal: interrupts.signal, warn });
    output.flush();
    if (interrupts.signal.aborted) throw interrupts.signal.reason;
    process.exitCode = warningCount === 0 ? exitDone : exitWithWarnings;
  } catch (error) {
    // a stream that broke also breaks what was under way, with other errors than the one that matters
    const failure = isFailure(interrupts.signal.reason, "OutputClosed") ? interrupts.signal.reason : toFailure(error);
    output.flush();
    reportFailure(failure, output);
    process.exitCode = exitCodeOf(failure);
  }
}

function describeOutputError(error: NodeJS.ErrnoException): Failure {
  if (error.code === "EPIPE") return new Failure("OutputClosed", "Nobody reads the output any more", { cause: error });
  return new Failure("OutputFailed", `Cannot write to standard output: ${error.message}`, { cause: error });
}

/** Tells of the failure that ended a run: as one JSON object with `--json`, else in words. */
export function reportFailure(failure: Failure, output: Output): void {
  const { code, kind, message, guidance, details } = failure;
  const exitCode = exitCodeOf(failure);
  if (output.isJson) {
    output.complain(
      JSON.stringify({ message_type: "exit_error", code: exitCode, message, error: { code, kind, message, guidance, details } }),
    );
    return;
  }
  if (code === "OutputClosed") return;
  const lines = [`granary: ${message}`];
  if (guidance !== "" && kind !== "cancelled") lines.push(`  ${guidance}`);
  lines.push(`  (${code}, exit code ${exitCode})`);
  if (output.verbosity >= 2) {
    lines.push(...describeDetails(details));
    if (kind === "bug" || output.verbosity >= 3) lines.push(...describeCauses(failure));
  }
  output.complain(lines.join("\n"));
}

function describeCauses(failure: Failure): string[] {
  const lines = [failure.stack ?? ""];
  for (let cause = failure.cause; cause instanceof Error && lines.length < 8; cause = cause.cause)
    lines.push(`caused by ${cause.stack ?? cause.message}`);
  return lines;
}
