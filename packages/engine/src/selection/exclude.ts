/**
 * What a backup leaves out, or a restore, as plain data that crosses threads; and the texts in which users write it down.
 *
 * Only paths are judged here. What needs a look at the disk (marker files, caches, sizes, file systems) is told by {@link ExcludeRules} and
 * done by whoever walks the disk.
 */
import { Failure } from "@granary/base/errors";
import { type ByteString, fromBytes } from "../format/byte-string.ts";
import { compilePatterns } from "./pattern.ts";

/** A folder with such a file in it is left out, but for the file itself. */
export interface PresenceRule {
  /** A name without slashes. */
  readonly name: string;
  /** How the file must begin for the rule to hold. */
  readonly header?: string;
}

/** What is left out. Plain data: a worker gets it by message and compiles it itself. */
export interface ExcludeRules {
  /** Patterns as of pattern.ts, in order. */
  readonly patterns: readonly string[];
  /** Patterns for which upper and lower case are the same. */
  readonly insensitivePatterns: readonly string[];
  readonly ifPresent: readonly PresenceRule[];
  /** Whether folders that are marked by {@link cacheMarker} are left out. */
  readonly caches: boolean;
  /** Files above this size are left out; 0: none. */
  readonly largerThanBytes: number;
  /** Whether folders on other file systems than the backup's targets stay empty. */
  readonly oneFileSystem: boolean;
}

/** Leaves nothing out. */
export const noExcludes: ExcludeRules = {
  patterns: [],
  insensitivePatterns: [],
  ifPresent: [],
  caches: false,
  largerThanBytes: 0,
  oneFileSystem: false,
};

/** What marks a folder as a cache. @see https://bford.info/cachedir/ */
export const cacheMarker: Required<PresenceRule> = { name: "CACHEDIR.TAG", header: "Signature: 8a477f597d28d172789f06886806bc55" };

/** Whether a path is left out, and with a folder all that is in it. @param path absolute */
export type Excluder = (path: ByteString, isDirectory: boolean) => boolean;

const excludesNothing: Excluder = () => false;

/**
 * Compiles the patterns of `rules`; its other members are not looked at.
 *
 * @throws InvalidArgument naming the first malformed pattern
 */
export function compileExcluder(rules: Pick<ExcludeRules, "patterns" | "insensitivePatterns">): Excluder {
  const exact = compilePatterns(rules.patterns, { insensitive: false });
  const insensitive = compilePatterns(rules.insensitivePatterns, { insensitive: true });
  if (exact.isEmpty && insensitive.isEmpty) return excludesNothing;
  if (insensitive.isEmpty) return (path) => exact.matches(path);
  return (path) => exact.matches(path) || insensitive.matches(path);
}

/**
 * Reads the argument of `--exclude-if-present`: `NAME` or `NAME:HEADER`.
 *
 * @throws InvalidArgument when there is no name, or it has a slash
 */
export function parsePresenceRule(text: string): PresenceRule {
  const colon = text.indexOf(":");
  const name = colon < 0 ? text : text.slice(0, colon);
  if (name === "" || name === "." || name === ".." || /[/\0]/.test(name)) {
    throw new Failure("InvalidArgument", `Cannot exclude folders by the file "${name}": a file name is needed, as in NAME or NAME:HEADER`);
  }
  return colon < 0 ? { name } : { name, header: text.slice(colon + 1) };
}

/**
 * The text of a file that a user wrote: UTF-8, or UTF-16 with a byte order mark; the mark is taken off.
 * Bytes that are no UTF-8 become U+FFFD.
 */
export function decodeTextFile(bytes: Uint8Array): string {
  if (bytes[0] === 0xff && bytes[1] === 0xfe) return new TextDecoder("utf-16le").decode(bytes);
  if (bytes[0] === 0xfe && bytes[1] === 0xff) return new TextDecoder("utf-16be").decode(bytes);
  return new TextDecoder("utf-8").decode(bytes);
}

/** The patterns of an exclude file: one a line, trimmed; empty lines and those that begin with `#` are skipped. */
export function parseExcludeFile(text: string): string[] {
  return splitLines(text)
    .map(trimSpace)
    .filter((line) => line !== "" && !line.startsWith("#"));
}

/** The lines of a `--files-from` file, each a glob to be expanded: trimmed; empty lines and those that begin with `#` are skipped. */
export function parseFilesFrom(text: string): string[] {
  return parseExcludeFile(text);
}

/** The lines of a `--files-from-verbatim` file, each a path as it is; empty lines are skipped. */
export function parseFilesFromVerbatim(text: string): string[] {
  return splitLines(text).filter((line) => line !== "");
}

/**
 * The paths of a `--files-from-raw` file, as `find -print0` writes it: any bytes, each followed by a NUL.
 *
 * @throws InvalidArgument when the last NUL is missing (the list may have been cut off), or a path is empty
 */
export function parseFilesFromRaw(bytes: Uint8Array): ByteString[] {
  if (bytes.length === 0) return [];
  const paths = fromBytes(bytes).split("\0");
  if (paths.pop() !== "")
    throw new Failure("InvalidArgument", "Cannot use the list of files: its last path is not followed by a zero byte");
  const empty = paths.indexOf("");
  if (empty >= 0) throw new Failure("InvalidArgument", `Cannot use the list of files: path ${empty + 1} of ${paths.length} is empty`);
  return paths;
}

/** Lines as Go's scanner has them: a carriage return before the line feed belongs to the line's end. */
function splitLines(text: string): string[] {
  return text.split("\n").map((line) => (line.endsWith("\r") ? line.slice(0, -1) : line));
}

/** Without the space around it; a byte order mark, which JavaScript takes for space, is none. */
function trimSpace(line: string): string {
  return line.replace(/^\p{White_Space}+|\p{White_Space}+$/gu, "");
}
