/**
 * What a command writes, as a stream to back up. The stream ends only after the command has ended well: when it fails, the backup fails too,
 * so that half of what a database should have dumped never becomes a snapshot.
 *
 * Between the command and the backup is a named pipe, of which this process holds a writing end until it knows how the command ended.
 */

import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { closeSync, mkdtempSync, openSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Failure, messageOf } from "@granary/base/errors";

/** A command that runs. Disposing of it ends the command, if it has not ended. */
export interface CommandStream extends AsyncDisposable {
  /** An open pipe, to be read until its end. */
  readonly handle: number;
  /** Aborted with `SourceCommandFailed` when the command fails. */
  readonly signal: AbortSignal;
}

/**
 * Starts a command.
 *
 * @param words the program and its arguments
 * @throws SourceCommandFailed when there is no named pipe to be had
 */
export function startCommandStream(words: readonly string[]): CommandStream {
  const [program = "", ...args] = words;
  const failed = new AbortController();
  const fail = (found: string, cause?: unknown): void =>
    failed.abort(new Failure("SourceCommandFailed", `Cannot back up what "${program}" writes: ${found}`, { details: { program }, cause }));
  const { reader, writer, keeper } = openPipe(program);
  let child: ChildProcess;
  try {
    child = spawn(program, args, { stdio: ["inherit", writer, "inherit"] });
  } finally {
    closeSync(writer);
  }
  const ended = new Promise<void>((resolve) => {
    child.on("error", (error) => {
      fail(messageOf(error), error);
      resolve();
    });
    child.on("exit", (code, killedBy) => {
      if (code !== 0) fail(killedBy === null ? `it ended with exit code ${code}` : `it was ended by ${killedBy}`);
      else closeSync(keeper); // now the stream may end
      resolve();
    });
  });
  return {
    handle: reader,
    signal: failed.signal,
    async [Symbol.asyncDispose]() {
      child.kill();
      await ended;
      if (failed.signal.aborted) closeSync(keeper);
      closeSync(reader);
    },
  };
}

function openPipe(program: string): { reader: number; writer: number; keeper: number } {
  const folder = mkdtempSync(join(tmpdir(), "granary-pipe-"));
  const path = join(folder, "pipe");
  try {
    execFileSync("mkfifo", ["-m", "600", path]);
    const keeper = openSync(path, "r+"); // waits for nobody, since it is both ends
    return { keeper, reader: openSync(path, "r"), writer: openSync(path, "w") };
  } catch (cause) {
    throw new Failure("SourceCommandFailed", `Cannot back up what "${program}" writes: no pipe can be made: ${messageOf(cause)}`, {
      cause,
    });
  } finally {
    rmSync(folder, { recursive: true });
  }
}
