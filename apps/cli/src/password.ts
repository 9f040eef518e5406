/**
 * Where passwords come from, in this order: --password-command, --password-file, then of the environment GRANARY_PASSWORD_COMMAND,
 * GRANARY_PASSWORD_FILE, GRANARY_PASSWORD, then the same with RESTIC_, then the terminal, or a line of standard input.
 * Never an argument of the command line, which every user of the machine can see.
 */

import { spawn } from "node:child_process";
import { readFile } from "node:fs/promises";
import { Failure, messageOf } from "@granary/base/errors";
import { Secret } from "@granary/base/secret";
import { isInteractive, promptPassword, readPasswordLine } from "./prompt.ts";
import { splitShellWords } from "./shell-words.ts";

/** What flags and environment say of one password. */
export interface PasswordSource {
  readonly command?: string | undefined;
  readonly file?: string | undefined;
  /** From the environment. */
  readonly value?: Secret | undefined;
}

export type Environment = Readonly<Record<string, string | undefined>>;

/**
 * Finds what says a password; nothing is read yet.
 *
 * @param flags as given on the command line
 * @param infix `` for the repository, `FROM_` for the one that is copied from
 * @throws InvalidArgument when both flags are given
 */
export function findPasswordSource(
  flags: { command?: string | undefined; file?: string | undefined },
  env: Environment,
  infix = "",
): PasswordSource {
  if (flags.command !== undefined && flags.file !== undefined) {
    throw new Failure("InvalidArgument", "Cannot use --password-command and --password-file together: one of them is needed");
  }
  if (flags.command !== undefined || flags.file !== undefined) return flags;
  for (const prefix of [`GRANARY_${infix}`, `RESTIC_${infix}`]) {
    const [command, file, value] = ["PASSWORD_COMMAND", "PASSWORD_FILE", "PASSWORD"].map((name) => env[prefix + name] || undefined);
    if (command !== undefined || file !== undefined) return { command, file: command === undefined ? file : undefined };
    if (value !== undefined) return { value: new Secret(value) };
  }
  return {};
}

/** Whether a password has to be asked for. */
export function mustAsk(source: PasswordSource): boolean {
  return source.command === undefined && source.file === undefined && source.value === undefined;
}

export interface AskOptions {
  /** `password for repository /srv/backup` */
  readonly what: string;
  /** Asks again and compares, for a password that is new. */
  readonly isNew?: boolean;
  /** Standard input is needed for something else. */
  readonly isInputTaken?: boolean;
  readonly signal: AbortSignal;
}

/**
 * Gets a password.
 *
 * @throws InputUnreadable when the file cannot be read or the command fails; PasswordMissing; Cancelled
 */
export async function getPassword(source: PasswordSource, options: AskOptions): Promise<Secret> {
  if (source.command !== undefined) return runPasswordCommand(source.command, options.signal);
  if (source.file !== undefined) return readPasswordFile(source.file);
  if (source.value !== undefined) return source.value;
  const { what, isNew = false, isInputTaken = false, signal } = options;
  if (isInputTaken) throw new Failure("PasswordMissing", `Cannot ask for the ${what}: standard input is the data to back up`);
  if (!isInteractive()) return readPasswordLine(`the ${what}`, signal);
  const password = await promptPassword(`enter ${what}: `, signal);
  if (isNew && (await promptPassword("enter it again: ", signal)).reveal() !== password.reveal()) {
    throw new Failure("PasswordMissing", "Cannot use the new password: the two that were typed differ");
  }
  return password;
}

async function readPasswordFile(path: string): Promise<Secret> {
  try {
    const bytes = await readFile(path);
    const { decodeTextFile } = await import("@granary/engine"); // not before it is needed: help and mistakes are quick
    return new Secret(decodeTextFile(bytes).trim());
  } catch (cause) {
    throw new Failure("InputUnreadable", `Cannot read the password file "${path}": ${messageOf(cause)}`, { details: { path }, cause });
  }
}

function runPasswordCommand(command: string, signal: AbortSignal): Promise<Secret> {
  const [program = "", ...args] = splitShellWords(command);
  return new Promise((resolve, reject) => {
    const fail = (found: string, cause?: unknown): void =>
      reject(
        new Failure("InputUnreadable", `Cannot get a password from the command "${program}": ${found}`, { details: { program }, cause }),
      );
    const child = spawn(program, args, { stdio: ["inherit", "pipe", "inherit"], signal });
    const pieces: Buffer[] = [];
    child.stdout.on("data", (piece: Buffer) => pieces.push(piece));
    child.on("error", (error) => fail(messageOf(error), error));
    child.on("close", (code, killedBy) => {
      if (code === 0) resolve(new Secret(Buffer.concat(pieces).utf8Slice().trim()));
      else fail(killedBy === null ? `it ended with exit code ${code}` : `it was ended by ${killedBy}`);
    });
  });
}
