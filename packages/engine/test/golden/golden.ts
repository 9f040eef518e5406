/** The golden repositories, and copies of them that tests may damage. */
import { cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { Secret } from "@granary/base/secret";
import { openRepository, type Repository } from "../../src/repository/repository.ts";
import { saveKey } from "../../src/repository/keys.ts";
import { openLocalStore } from "../../src/store/local.ts";

export const goldenFolder: string = import.meta.dirname;
export const goldenPassword = "golden";

export type GoldenName = "healthy" | "healthy-v1";

/** A copy of a golden repository, with one key that is cheap to open; removed when disposed of. */
export class GoldenCopy implements Disposable {
  readonly folder: string;
  /** Where the repository is. */
  readonly location: string;

  private constructor(folder: string) {
    this.folder = folder;
    this.location = join(folder, "repository");
  }

  static async make(name: GoldenName = "healthy"): Promise<GoldenCopy> {
    const original = await cheapOriginal(name);
    const copy = new GoldenCopy(mkdtempSync(join(tmpdir(), "granary-golden-")));
    cpSync(original, copy.location, { recursive: true });
    return copy;
  }

  open(): Promise<Repository> {
    return openRepository(openLocalStore(this.location), { password: new Secret(goldenPassword) });
  }

  /** The names of all files in a folder of the repository, in order. Packs are `data`. */
  list(kind: string): string[] {
    const folder = join(this.location, kind);
    if (kind !== "data") return readdirSync(folder).sort();
    return readdirSync(folder).flatMap((fan) => readdirSync(join(folder, fan))).sort();
  }

  pathOf(kind: string, name: string): string {
    return kind === "data" ? join(this.location, kind, name.slice(0, 2), name) : join(this.location, kind, name);
  }

  read(kind: string, name: string): Buffer {
    return readFileSync(this.pathOf(kind, name));
  }

  write(kind: string, name: string, bytes: Uint8Array): void {
    const path = this.pathOf(kind, name);
    mkdirSync(dirname(path), { recursive: true });
    rmSync(path, { force: true }); // files are read-only
    writeFileSync(path, bytes, { mode: 0o600 });
  }

  change(kind: string, name: string, change: (bytes: Buffer) => Uint8Array): void {
    this.write(kind, name, change(this.read(kind, name)));
  }

  remove(kind: string, name: string): void {
    rmSync(this.pathOf(kind, name));
  }

  has(kind: string, name: string): boolean {
    return existsSync(this.pathOf(kind, name));
  }

  [Symbol.dispose](): void {
    rmSync(this.folder, { recursive: true, force: true });
  }
}

const cheap = new Map<GoldenName, Promise<string>>();

/** restic's key takes half a second to open; tests open many times, so the copies they are made from have another. */
function cheapOriginal(name: GoldenName): Promise<string> {
  const known = cheap.get(name) ?? makeCheap(name);
  cheap.set(name, known);
  return known;
}

async function makeCheap(name: GoldenName): Promise<string> {
  const folder = mkdtempSync(join(tmpdir(), "granary-golden-"));
  process.once("exit", () => rmSync(folder, { recursive: true, force: true }));
  cpSync(join(goldenFolder, name), folder, { recursive: true });
  // git keeps no empty folders
  for (const kind of ["locks", "index", "snapshots", "keys"]) mkdirSync(join(folder, kind), { recursive: true });
  const password = new Secret(goldenPassword);
  const { store, key, keyId } = await openRepository(openLocalStore(folder), { password });
  await saveKey(store, { key, password }, { insecureScryptCost: { N: 1024, r: 8, p: 1 }, username: "golden", hostname: "golden" });
  await store.remove({ kind: "key", name: keyId });
  return folder;
}
