/**
 * Progress of long work: on a terminal a line that is drawn over, in a pipe a line every few seconds (rarer the longer it takes), with
 * `--json` messages, and nothing with `--quiet`. It is read from the worker's counts at our own pace, so that the work never waits for it.
 */

import { type Clock, systemClock } from "@granary/base/clock";
import { formatBytes, formatCount, formatPercent, formatRate, formatSpan } from "./format-amount.ts";
import type { Output } from "./output.ts";

/** How far work has come; totals only when they are known. */
export interface Progress {
  readonly doneBytes?: number;
  readonly totalBytes?: number;
  readonly done?: number;
  readonly total?: number;
  /** What is counted by `done`: `files`, `packs`. */
  readonly noun?: string;
  /** Whether totals are an estimate, so that going beyond them is no surprise. */
  readonly isEstimate?: boolean;
  /** What else is to be shown. */
  readonly more?: string;
}

export interface ProgressOptions {
  /** What is done at present: `backing up`. */
  readonly title?: string;
  /** Makes the message for `--json`; without it there is none. */
  readonly toJson?: (progress: Progress, elapsedMs: number) => unknown;
  readonly env?: Readonly<Record<string, string | undefined>>;
  readonly clock?: Clock;
}

const drawMs = 100;
const firstLineMs = 5000;
const longestLineMs = 60_000;
const jsonMs = 1000;

/** Reports progress until it is disposed of. */
export class ProgressReporter implements Disposable {
  readonly #output: Output;
  readonly #options: ProgressOptions;
  readonly #clock: Clock;
  readonly #startMs: number;
  readonly #stop: () => void;
  #progress: Progress | undefined;
  #nextLineMs = firstLineMs;
  #lineEveryMs = firstLineMs;

  constructor(output: Output, options: ProgressOptions = {}) {
    this.#output = output;
    this.#options = options;
    this.#clock = options.clock ?? systemClock;
    this.#startMs = this.#clock.monotonicMs();
    const isSilent = output.verbosity === 0 || (output.isJson && options.toJson === undefined);
    const env = options.env ?? process.env;
    const perSecond = Number(env.GRANARY_PROGRESS_FPS ?? env.RESTIC_PROGRESS_FPS ?? "");
    const usualMs = output.isJson ? jsonMs : output.isTerminal ? drawMs : firstLineMs / 5;
    const everyMs = perSecond > 0 ? Math.max(1000 / 60, 1000 / perSecond) : usualMs;
    if (perSecond > 0) this.#nextLineMs = this.#lineEveryMs = everyMs;
    this.#stop = isSilent ? () => {} : this.#clock.every(everyMs, () => this.#tick());
  }

  /** Takes the newest counts; cheap. */
  update(progress: Progress): void {
    this.#progress = progress;
  }

  get elapsedMs(): number {
    return this.#clock.monotonicMs() - this.#startMs;
  }

  [Symbol.dispose](): void {
    this.#stop();
    this.#output.draw("");
  }

  #tick(): void {
    const progress = this.#progress;
    if (progress === undefined) return;
    const elapsedMs = this.elapsedMs;
    if (this.#output.isJson) {
      this.#output.printJson(this.#options.toJson?.(progress, elapsedMs));
      this.#output.flush();
    } else if (this.#output.isTerminal) {
      this.#output.draw(describeProgress(progress, elapsedMs, this.#options.title));
    } else if (elapsedMs >= this.#nextLineMs) {
      this.#output.note(describeProgress(progress, elapsedMs, this.#options.title));
      this.#nextLineMs = elapsedMs + this.#lineEveryMs;
      this.#lineEveryMs = Math.min(longestLineMs, this.#lineEveryMs * 1.5);
    }
  }
}

/** Milliseconds that are left, or `undefined` when nobody can know. */
export function estimateLeftMs(progress: Progress, elapsedMs: number): number | undefined {
  const [done, total] =
    progress.totalBytes !== undefined && progress.totalBytes > 0
      ? [progress.doneBytes ?? 0, progress.totalBytes]
      : [progress.done ?? 0, progress.total ?? 0];
  // before a little is done, or a moment has passed, the rate says nothing; an estimate that was exceeded says nothing either
  if (total <= 0 || elapsedMs < 1000 || done <= total / 1000 || done > total) return undefined;
  return (elapsedMs * (total - done)) / done;
}

/** The progress line. */
export function describeProgress(progress: Progress, elapsedMs: number, title?: string): string {
  const { doneBytes, totalBytes, done, total, noun = "files", more, isEstimate = false } = progress;
  const parts = [`[${formatSpan(elapsedMs)}]`];
  if (title !== undefined) parts.push(title);
  const [part, whole] = totalBytes !== undefined && totalBytes > 0 ? [doneBytes ?? 0, totalBytes] : [done ?? 0, total ?? 0];
  if (whole > 0 && !(isEstimate && part > whole)) parts.push(`${isEstimate ? "about " : ""}${formatPercent(part, whole)}`);
  if (done !== undefined) parts.push(`${formatCount(done)}${total === undefined || isEstimate ? "" : ` of ${formatCount(total)}`} ${noun}`);
  if (doneBytes !== undefined) {
    parts.push(`${formatBytes(doneBytes)}${totalBytes === undefined || isEstimate ? "" : ` of ${formatBytes(totalBytes)}`}`);
    parts.push(formatRate(doneBytes, elapsedMs));
  }
  if (more !== undefined && more !== "") parts.push(more);
  const leftMs = estimateLeftMs(progress, elapsedMs);
  if (leftMs !== undefined) parts.push(`about ${formatSpan(leftMs)} left`);
  return parts.join("  ");
}
