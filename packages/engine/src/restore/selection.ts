/** Which entries of a snapshot are restored. */
import type { ByteString } from "../format/byte-string.ts";
import { compileExcluder, type ExcludeRules } from "../selection/exclude.ts";
import { compilePatterns, matchesWithChildren } from "../selection/pattern.ts";

/** Patterns as of selection/pattern.ts, for paths that begin at the restored tree. Plain data. */
export type PatternRules = Pick<ExcludeRules, "patterns" | "insensitivePatterns">;

/** What to restore: all that is included, or everything when there are no includes; but not what is excluded. */
export interface RestoreSelection {
  readonly include: PatternRules;
  readonly exclude: PatternRules;
}

const noRules: PatternRules = { patterns: [], insensitivePatterns: [] };

/** Everything. */
export const selectAll: RestoreSelection = { include: noRules, exclude: noRules };

/** A decision about one path. */
export const choice = {
  no: 0,
  /** Only something below it may be selected. */
  below: 1,
  yes: 2,
} as const;
export type Choice = (typeof choice)[keyof typeof choice];

/** Decides about paths. `undefined` when everything is selected. */
export type Selector = (path: ByteString, isDirectory: boolean) => Choice;

/** @throws InvalidArgument naming the first malformed pattern */
export function compileSelection(selection: RestoreSelection): Selector | undefined {
  const { include, exclude } = selection;
  const isLimited = include.patterns.length + include.insensitivePatterns.length > 0;
  const isCut = exclude.patterns.length + exclude.insensitivePatterns.length > 0;
  if (!isLimited && !isCut) return undefined;
  const isExcluded = compileExcluder(exclude);
  if (!isLimited) return (path, isDirectory) => (isExcluded(path, isDirectory) ? choice.no : choice.yes);
  const exact = compilePatterns(include.patterns, { insensitive: false });
  const insensitive = compilePatterns(include.insensitivePatterns, { insensitive: true });
  return (path, isDirectory) => {
    if (isExcluded(path, isDirectory)) return choice.no;
    const one = matchesWithChildren(exact, path);
    const other = matchesWithChildren(insensitive, path);
    if (one.matched || other.matched) return choice.yes;
    return isDirectory && (one.childMayMatch || other.childMayMatch) ? choice.below : choice.no;
  };
}
