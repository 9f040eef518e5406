/**
 * What a command says. Data and results go to standard output; messages, warnings and progress to standard error, so that a pipe gets
 * data only. With `--json` standard output is JSON and nothing else.
 *
 * On a terminal the last line of standard error may be a progress line, which is taken away while something else is printed.
 */

import { inspect } from "node:util";

/** How much is said: 0 quiet, 1 as a rule, 2 with `-v`, 3 with `-vv`. */
export type Verbosity = 0 | 1 | 2 | 3;

/** Of a terminal that does not say. */
const usualColumns = 80;
/** Output is written in pieces of about this many characters. */
const pieceChars = 32 * 1024;

export class Output {
  readonly isJson: boolean;
  readonly verbosity: Verbosity;
  #pending = "";
  #pendingBytes = "";
  #progress = "";

  constructor(options: { readonly isJson: boolean; readonly verbosity: Verbosity }) {
    this.isJson = options.isJson;
    this.verbosity = options.verbosity;
  }

  /** Whether messages go to a terminal, on which a line can be drawn over. */
  get isTerminal(): boolean {
    return process.stderr.isTTY;
  }

  /** Writes a line of text to standard output, whatever the verbosity. */
  print(text: string): void {
    this.#write(`${text}\n`);
  }

  /** Writes one JSON value as a line. */
  printJson(value: unknown): void {
    this.#write(`${JSON.stringify(value)}\n`);
  }

  /** Writes a line that came from a repository: its raw bytes (one character each) as they are, or escaped for a terminal. */
  printBytes(line: { readonly bytes: string; readonly escaped: string }): void {
    if (process.stdout.isTTY) {
      this.print(line.escaped);
      return;
    }
    this.#flushText();
    this.#pendingBytes += `${line.bytes}\n`;
    if (this.#pendingBytes.length >= pieceChars) this.flush();
  }

  /** Writes a result for people: not with `--json`, not with `--quiet`. */
  say(text: string, least: Verbosity = 1): void {
    if (!this.isJson && this.verbosity >= least) this.print(text);
  }

  /** Writes a message to standard error: not with `--quiet`. */
  note(text: string, least: Verbosity = 1): void {
    if (this.verbosity >= least) this.complain(text);
  }

  /** Writes to standard error, whatever the verbosity. */
  complain(text: string): void {
    this.flush();
    const line = this.#progress;
    this.draw("");
    process.stderr.write(`${text}\n`);
    this.draw(line);
  }

  /** Shows a progress line on the terminal in place of the one before; the empty text takes it away. */
  draw(text: string): void {
    if (!this.isTerminal || text === this.#progress) return;
    this.#progress = text;
    process.stderr.write(`\r\u001b[K${text.slice(0, (process.stderr.columns || usualColumns) - 1)}`);
  }

  /** Sends what is not yet on its way. */
  flush(): void {
    this.#flushText();
    if (this.#pendingBytes === "") return;
    const bytes = this.#pendingBytes;
    this.#pendingBytes = "";
    process.stdout.write(bytes, "latin1");
  }

  #flushText(): void {
    if (this.#pending === "") return;
    const text = this.#pending;
    this.#pending = "";
    process.stdout.write(text);
  }

  #write(text: string): void {
    if (this.#pendingBytes !== "") this.flush();
    if (this.#progress !== "" && process.stdout.isTTY) {
      const line = this.#progress;
      this.draw("");
      process.stdout.write(text);
      this.draw(line);
      return;
    }
    this.#pending += text;
    if (this.#pending.length >= pieceChars || process.stdout.isTTY) this.flush();
  }
}

/** Facts of a failure, for people: one line each. */
export function describeDetails(details: Readonly<Record<string, unknown>>): string[] {
  return Object.entries(details).map(
    ([name, value]) => `  ${name}: ${typeof value === "string" ? value : inspect(value, { breakLength: Infinity })}`,
  );
}
