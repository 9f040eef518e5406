import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { isFailure } from "@granary/base/errors";
import type { ByteString } from "../format/byte-string.ts";
import { compilePatterns, matches, matchesWithChildren, noPatterns, type PatternList } from "./pattern.ts";
import { readPatternVectors } from "./pattern-vectors.ts";

const exact = (...patterns: string[]): PatternList => compilePatterns(patterns, { insensitive: false });

/** The folders above a path, and the path, without trailing slashes. */
function walkDown(path: ByteString): ByteString[] {
  const names = path.split("/").filter((name) => name !== "");
  return names.map((_, index) => `/${names.slice(0, index + 1).join("/")}`);
}

test("patterns exclude and include what restic 0.14 excludes and includes", () => {
  const { paths, cases } = readPatternVectors();
  assert.ok(paths.length >= 70 && cases.length >= 60);
  for (const { patterns, insensitive, notExcluded, included } of cases) {
    const list = compilePatterns(patterns, { insensitive });
    const isLeftOut = (path: ByteString): boolean => walkDown(path).some((part) => matches(list, part));
    const isTaken = (path: ByteString): boolean => {
      const steps = walkDown(path);
      return steps.every((part, index) =>
        index === steps.length - 1 ? matches(list, part) : matchesWithChildren(list, part).childMayMatch,
      );
    };
    const names = (indices: readonly number[]): ByteString[] => indices.map((index) => paths[index] ?? "");
    assert.deepEqual(
      paths.filter((path) => !isLeftOut(path)),
      names(notExcluded),
      `exclude ${JSON.stringify(patterns)}`,
    );
    assert.deepEqual(paths.filter(isTaken), names(included), `include ${JSON.stringify(patterns)}`);
  }
});

test("an empty list matches nothing, and says so", () => {
  for (const list of [noPatterns, exact(), exact("", "")]) {
    assert.equal(list.isEmpty, true);
    assert.equal(matches(list, "/a"), false);
    assert.deepEqual(matchesWithChildren(list, "/a"), { matched: false, childMayMatch: false });
  }
});

test("malformed patterns are refused, by name", () => {
  for (const pattern of ["[", "a[", "[]", "[]a]", "[a", "[a-", "[a-]", "[-a]", "[^]", "x/\\", "ok/[/]", "!["]) {
    assert.throws(
      () => exact("fine", pattern),
      (error) => isFailure(error, "InvalidArgument") && error.message.includes(`"${pattern}"`),
    );
  }
});

test("a star stands for whole characters, a question mark for one, or for one byte that is no UTF-8", () => {
  const euro = "\xe2\x82\xac";
  assert.equal(matches(exact("?"), `/${euro}`), true);
  assert.equal(matches(exact("??"), `/${euro}`), false);
  assert.equal(matches(exact("???"), "/\xff\xfe\xe2"), true);
  assert.equal(matches(exact("a*€"), `/a\xff\xff${euro}`), true);
  assert.equal(matches(exact("[€-₯]"), `/${euro}`), true);
  assert.equal(matches(exact("[^€]"), `/${euro}`), false);
  assert.equal(matches(exact("*\udcff*"), "/a\xffb"), true);
});

test("case is ignored for letters of any script, one for one", () => {
  const list = compilePatterns(["STRASSE*", "*Ärger", "İx", "ΟΔΟΣ"], { insensitive: true });
  const bytes = (text: string): ByteString => Buffer.from(text).latin1Slice();
  for (const path of ["/strasse 1", "/ÄRGER", "/x/viel ärger", "/ix", "/οδοσ"]) assert.equal(matches(list, bytes(path)), true, path);
  for (const path of ["/straße", "/arger", "/ıx", "/οδος"]) assert.equal(matches(list, bytes(path)), false, path);
});

test("children are looked for wherever an anchored pattern may still match, and only there", () => {
  const list = exact("/a/b*/c", "/x/**/y");
  const may = (path: ByteString): boolean => matchesWithChildren(list, path).childMayMatch;
  for (const path of ["/", "/a", "/a/b", "/a/bb", "/a/b/c", "/a/b/c/d", "/x", "/x/any", "/x/any/deep"]) assert.equal(may(path), true, path);
  for (const path of ["/b", "/a/c", "/a/b/d", "/ax", "/xx/y"]) assert.equal(may(path), false, path);
});

test("a match is inherited by everything below, and childMayMatch never hides a match", () => {
  const name = fc.stringMatching(/^[ab*é]{1,3}$/);
  const pattern = fc.array(fc.oneof(name, fc.constantFrom("*", "**", "a?", "[ab]*", "*b")), { minLength: 1, maxLength: 4 });
  const path = fc.array(fc.stringMatching(/^[ab\xe9\xc3]{1,3}$/), { minLength: 1, maxLength: 5 });
  fc.assert(
    fc.property(pattern, path, fc.boolean(), (parts, names, isAbsolute) => {
      const list = exact((isAbsolute ? "/" : "") + parts.join("/"));
      const steps = walkDown(names.join("/"));
      const firstHit = steps.findIndex((step) => matches(list, step));
      if (firstHit < 0) return;
      assert.ok(steps.slice(firstHit).every((step) => matches(list, step)));
      assert.ok(steps.slice(0, firstHit).every((step) => matchesWithChildren(list, step).childMayMatch));
    }),
    { seed: 20_261_121, numRuns: 2000 },
  );
});
