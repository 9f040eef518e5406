/** For tests: what restic restores of a sample tree with given patterns; the results are in test/vectors/restic-patterns.json. */
import { execFileSync } from "node:child_process";
import { closeSync, mkdirSync, mkdtempSync, openSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type ByteString, toBytes } from "../format/byte-string.ts";

/** Which files restic 0.14 restores. */
export interface PatternVectors {
  readonly origin: string;
  /** The files, and the empty folders with a trailing slash, of the sample tree; bytes as characters. */
  readonly paths: readonly ByteString[];
  readonly cases: readonly PatternCase[];
}

export interface PatternCase {
  readonly patterns: readonly string[];
  readonly insensitive: boolean;
  /** Indices in `paths` of what is restored with the patterns as `--exclude`. */
  readonly notExcluded: readonly number[];
  /** Indices in `paths` of what is restored with the patterns as `--include`. */
  readonly included: readonly number[];
}

const file: URL = new URL("../../test/vectors/restic-patterns.json", import.meta.url);

export function readPatternVectors(): PatternVectors {
  return JSON.parse(readFileSync(file, "utf8")) as PatternVectors; // written by writePatternVectors()
}

export function writePatternVectors(vectors: PatternVectors): void {
  const ascii = (value: unknown): string =>
    JSON.stringify(value).replace(/[\x7f-\uffff]/g, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`);
  const cases = vectors.cases.map((one) => `    ${ascii(one)}`).join(",\n");
  writeFileSync(file, `{\n  "origin": ${ascii(vectors.origin)},\n  "paths": ${ascii(vectors.paths)},\n  "cases": [\n${cases}\n  ]\n}\n`);
}

/** Backs a sample tree up with restic, restores it with each list of patterns, as exclude and as include, and tells what was restored. */
export function askRestic(paths: readonly ByteString[], lists: readonly Pick<PatternCase, "patterns" | "insensitive">[]): PatternCase[] {
  const folder = mkdtempSync(join(tmpdir(), "granary-patterns-"));
  const env = { ...process.env, RESTIC_REPOSITORY: join(folder, "repo"), RESTIC_PASSWORD: "x", RESTIC_CACHE_DIR: join(folder, "cache") };
  const restic = (...args: string[]): void =>
    void execFileSync("restic", args, { env, cwd: join(folder, "tree"), stdio: ["ignore", "ignore", "pipe"] });
  try {
    mkdirSync(join(folder, "tree"));
    for (const path of paths) makeEntry(join(folder, "tree"), path);
    restic("init");
    restic("backup", ".");
    const restore = (one: Pick<PatternCase, "patterns" | "insensitive">, verb: "include" | "exclude"): number[] => {
      const target = join(folder, "target");
      restic(
        "restore",
        "latest",
        "--target",
        target,
        ...one.patterns.map((pattern) => `--${one.insensitive ? "i" : ""}${verb}=${pattern}`),
      );
      const found = listTree(target);
      rmSync(target, { recursive: true, force: true });
      return paths.flatMap((path, index) => (found.has(path) ? [index] : []));
    };
    return lists.map((one) => ({ ...one, notExcluded: restore(one, "exclude"), included: restore(one, "include") }));
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function makeEntry(root: string, path: ByteString): void {
  const names = path.split("/").slice(1);
  let folder = Buffer.from(root);
  for (const [index, name] of names.entries()) {
    if (name === "") break;
    const next = Buffer.concat([folder, Buffer.from("/"), toBytes(name)]);
    if (index < names.length - 1) mkdirSync(next, { recursive: true });
    else closeSync(openSync(next, "w"));
    folder = next;
  }
}

/** Files, and folders with a trailing slash, as absolute paths below `root`. */
function listTree(root: string): Set<ByteString> {
  const found = new Set<ByteString>();
  const walk = (folder: Buffer, path: ByteString): void => {
    for (const entry of readdirSync(folder, { encoding: "buffer", withFileTypes: true })) {
      const below = `${path}/${entry.name.latin1Slice()}`;
      found.add(entry.isDirectory() ? `${below}/` : below);
      if (entry.isDirectory()) walk(Buffer.concat([folder, Buffer.from("/"), entry.name]), below);
    }
  };
  try {
    walk(Buffer.from(root), "");
  } catch (error) {
    if (!(error instanceof Error && "code" in error && error.code === "ENOENT")) throw error; // nothing was restored
  }
  return found;
}
