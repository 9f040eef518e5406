/**
 * Patterns that choose files by their paths, with restic's meaning.
 *
 * A pattern is a list of components joined by `/`, each a glob as of Go's `filepath.Match`: `*` any number of bytes, `?` one character,
 * `[a-c]` and `[^a-c]` one character of a set, `\` takes the next character as it is. A component `**` stands for any number of components.
 * A pattern with a leading `/` begins at the top of the path, any other anywhere; either also matches everything below what it matches.
 * Patterns are cleaned first: a trailing slash, doubled slashes, `.` and `..` go away. In a list the last match counts, and a pattern
 * that begins with `!` takes matches away.
 *
 * Characters are those of UTF-8; a byte that is no UTF-8 is a character of its own. One corner differs from Go: there, a `*` may stop in the
 * middle of a character, so that `*??` matches the single character `€`; here it stands for whole ones.
 *
 * All is pure, and a compiled list is immutable; it does not cross threads, the pattern texts do.
 *
 * @see restic/internal/filter; "Excluding Files" in restic's manual
 */
import { posix } from "node:path";
import { Failure } from "@granary/base/errors";
import { type ByteString, fromUtf8, isAscii, utf8LengthAt } from "../format/byte-string.ts";

/** Whether a path matches, and whether something below it may. */
export interface Match {
  readonly matched: boolean;
  readonly childMayMatch: boolean;
}

/** Compiled patterns. */
export interface PatternList {
  readonly isEmpty: boolean;
  /** As {@link matches}. */
  readonly matches: (path: ByteString) => boolean;
  /** As {@link matchesWithChildren}. */
  readonly matchesWithChildren: (path: ByteString) => Match;
}

/** How {@link compilePatterns} reads patterns. */
export interface PatternOptions {
  /** Whether upper and lower case are the same. */
  readonly insensitive: boolean;
}

const outcomes: readonly Match[] = [
  { matched: false, childMayMatch: false },
  { matched: true, childMayMatch: false },
  { matched: false, childMayMatch: true },
  { matched: true, childMayMatch: true },
];
const nothing: Match = { matched: false, childMayMatch: false };

/** The list without patterns, which matches nothing. */
export const noPatterns: PatternList = { isEmpty: true, matches: () => false, matchesWithChildren: () => nothing };

/**
 * Compiles patterns, to be matched many times.
 *
 * @param patterns texts; empty ones are ignored
 * @throws InvalidArgument naming the first malformed pattern
 */
export function compilePatterns(patterns: readonly string[], options: PatternOptions): PatternList {
  const parsed = patterns.filter((text) => text !== "").map((text) => parsePattern(options.insensitive ? toLower(text) : text));
  if (parsed.length === 0) return noPatterns;
  const needsText = options.insensitive || parsed.some((pattern) => pattern.components.some((component) => component.needsText));
  const read = options.insensitive ? lowerPath : needsText ? textOfPath : keepPath;
  const runs = joinRuns(parsed).map((run) => ({
    isNegated: run.isNegated,
    path: compile(run.patterns.map(pathSource), needsText),
    children: compile(run.patterns.map(childrenSource), needsText),
  }));
  const [only] = runs;
  if (runs.length === 1 && only !== undefined && !only.isNegated) {
    return {
      isEmpty: false,
      matches: (path) => only.path.test(read(path)),
      matchesWithChildren: (path) => {
        const text = read(path);
        return outcomes[(only.path.test(text) ? 1 : 0) + (only.children.test(text) ? 2 : 0)] ?? nothing;
      },
    };
  }
  const walk = (path: ByteString): Match => {
    const text = read(path);
    let matched = false;
    let childMayMatch = false;
    for (const run of runs) {
      const isHit = run.path.test(text);
      if (run.isNegated) {
        matched &&= !isHit;
        childMayMatch &&= !isHit;
      } else {
        matched ||= isHit;
        childMayMatch ||= run.children.test(text);
      }
    }
    return outcomes[(matched ? 1 : 0) + (childMayMatch ? 2 : 0)] ?? nothing;
  };
  return { isEmpty: false, matches: (path) => walk(path).matched, matchesWithChildren: walk };
}

/** Whether the list matches the path. @param path not empty; absolute as a rule, so that patterns with a leading slash can match */
export function matches(list: PatternList, path: ByteString): boolean {
  return list.matches(path);
}

/** Whether the list matches the path, and whether it may match something below it: a pattern without leading slash always may. */
export function matchesWithChildren(list: PatternList, path: ByteString): Match {
  return list.matchesWithChildren(path);
}

/** One component: what the source of its regular expression is, for paths as bytes and as text. */
interface Component {
  readonly text: string;
  readonly bytes: string;
  /** Whether it names characters, so that it can be matched on text only. */
  readonly needsText: boolean;
}

interface Pattern {
  readonly isNegated: boolean;
  readonly isAbsolute: boolean;
  /** `anyDepth` stands for `**`. Never empty but for the patterns that match every path. */
  readonly components: readonly Component[];
}

const anyDepth: Component = { text: "", bytes: "", needsText: false };

function parsePattern(original: string): Pattern {
  const isNegated = original.startsWith("!");
  const body = isNegated ? original.slice(1) : original;
  const cleaned = posix.normalize(body).replace(/(?<=[^/])\/+$/, "");
  const isAbsolute = cleaned.startsWith("/");
  const parts = (isAbsolute ? cleaned.slice(1) : cleaned).split("/");
  const components = parts.map((part) => (part === "**" || part === "" ? anyDepth : parseComponent(part, original)));
  return { isNegated, isAbsolute, components };
}

/** Turns a glob into a regular expression. */
function parseComponent(part: string, original: string): Component {
  let text = "";
  let bytes = "";
  let needsText = false;
  let isAnyName = true;
  let isAfterStar = false;
  const characters = Array.from(part);
  for (let at = 0; at < characters.length; at++) {
    let character = characters[at] ?? "";
    if (character === "*") {
      // stars in a row say what one says
      if (!isAfterStar) {
        text += "[^/]*";
        bytes += "[^/]*";
      }
      isAfterStar = true;
      continue;
    }
    isAfterStar = false;
    isAnyName = false;
    if (character === "?") {
      text += "[^/]";
      needsText = true;
    } else if (character === "[") {
      const set = parseSet(characters, at, original);
      text += set.source;
      at = set.end;
      needsText = true;
    } else {
      if (character === "\\") character = characters[++at] ?? fail(original, "nothing follows its last backslash");
      text += escapeCharacter(character);
      bytes += Array.from(fromUtf8(character), escapeCharacter).join("");
      // a byte that was no UTF-8 came in as half a surrogate pair
      if (/^[\ud800-\udfff]$/.test(character)) needsText = true;
    }
  }
  // a name is never empty, so that "*" does not match what stands before the first slash
  return isAnyName ? { text: "[^/]+", bytes: "[^/]+", needsText } : { text, bytes, needsText };
}

/** Reads `[…]` from its bracket on. @returns its regular expression, and the index of its closing bracket */
function parseSet(characters: readonly string[], start: number, original: string): { source: string; end: number } {
  let at = start + 1;
  const isNegated = characters[at] === "^";
  if (isNegated) at++;
  const next = (): string => {
    let character = characters[at++];
    if (character === "-" || character === "]") fail(original, `a set holds an unescaped "${character}" where a character is needed`);
    if (character === "\\") character = characters[at++];
    if (character === undefined || at >= characters.length) return fail(original, "a set is not closed");
    return character;
  };
  let ranges = "";
  do {
    const low = next();
    let high = low;
    if (characters[at] === "-") {
      at++;
      high = next();
    }
    // a range that runs backwards holds nothing
    if ((low.codePointAt(0) ?? 0) <= (high.codePointAt(0) ?? 0)) ranges += `${escapeCharacter(low)}-${escapeCharacter(high)}`;
  } while (characters[at] !== "]");
  return { source: isNegated ? `[^/${ranges}]` : `[${ranges}]`, end: at };
}

function escapeCharacter(character: string): string {
  if (/^\w$/.test(character)) return character;
  const code = character.codePointAt(0) ?? 0;
  return code < 0x100 ? `\\x${code.toString(16).padStart(2, "0")}` : `\\u{${code.toString(16)}}`;
}

function fail(pattern: string, found: string): never {
  throw new Failure("InvalidArgument", `Cannot use pattern "${pattern}": ${found}`, { details: { pattern } });
}

/** Neighbours that are all negated or all not can be one regular expression, since their order does not matter. */
function joinRuns(parsed: readonly Pattern[]): { isNegated: boolean; patterns: Pattern[] }[] {
  const runs: { isNegated: boolean; patterns: Pattern[] }[] = [];
  for (const pattern of parsed) {
    const last = runs.at(-1);
    if (last?.isNegated === pattern.isNegated) last.patterns.push(pattern);
    else runs.push({ isNegated: pattern.isNegated, patterns: [pattern] });
  }
  return runs;
}

type Source = (needsText: boolean) => string;

function compile(sources: readonly Source[], needsText: boolean): RegExp {
  return new RegExp(sources.map((source) => source(needsText)).join("|"), needsText ? "u" : "");
}

/** A path that the pattern matches, or that lies below one. */
function pathSource(pattern: Pattern): Source {
  return (needsText) => {
    const { components } = pattern;
    // at the end of a pattern, and at the beginning of one that may begin anywhere, `**` says nothing
    const first = pattern.isAbsolute ? 0 : components.findIndex((component) => component !== anyDepth);
    const last = components.findLastIndex((component) => component !== anyDepth);
    if (last < 0) return pattern.isAbsolute ? "^/" : "^";
    const parts = components.slice(Math.max(0, first), last + 1).map((component, index, kept) => {
      if (component === anyDepth) return "(?:[^/]+/)*";
      return sourceOf(component, needsText) + (index === kept.length - 1 ? "(?:/|$)" : "/");
    });
    return (pattern.isAbsolute ? "^/" : "(?:^|/)") + parts.join("");
  };
}

/** A path below which the pattern may match: as deep as it goes, it agrees with the pattern up to the first `**`. */
function childrenSource(pattern: Pattern): Source {
  return (needsText) => {
    if (!pattern.isAbsolute) return "^";
    const end = pattern.components.indexOf(anyDepth);
    const fixed = end < 0 ? pattern.components : pattern.components.slice(0, end);
    const nested = fixed.reduceRight(
      (below, component) => `${sourceOf(component, needsText)}${below === "" ? "(?:/|$)" : `(?:/?$|/${below})`}`,
      "",
    );
    return nested === "" ? "^/" : `^/(?:$|${nested})`;
  };
}

function sourceOf(component: Component, needsText: boolean): string {
  return needsText ? component.text : component.bytes;
}

function keepPath(path: ByteString): string {
  return path;
}

function lowerPath(path: ByteString): string {
  return isAscii(path) ? path.toLowerCase() : toLower(textOfPath(path));
}

/** The text of a path, in which a byte that is no UTF-8 is U+DC00 plus its value. */
function textOfPath(path: ByteString): string {
  if (isAscii(path)) return path;
  let text = "";
  for (let at = 0; at < path.length; ) {
    const length = utf8LengthAt(path, at);
    text +=
      length === 0 ? String.fromCharCode(0xdc00 + path.charCodeAt(at)) : Buffer.from(path.slice(at, at + length), "latin1").utf8Slice();
    at += Math.max(1, length);
  }
  return text;
}

/** Lower case, one character for one, as Go's `strings.ToLower` has it. */
function toLower(text: string): string {
  return text.replace(/\p{Changes_When_Lowercased}/gu, (character) => Array.from(character.toLowerCase())[0] ?? character);
}
