/** The oracle: what is in a folder, looked at with Node's own file functions; it shares no code with backup or restore. */
import { createHash } from "node:crypto";
import { lstatSync, readdirSync, readFileSync, readlinkSync } from "node:fs";
import { join } from "node:path";

/** A line for each path below a folder, and "" for itself: type, mode, owner, time, and what it holds. */
export type Manifest = ReadonlyMap<string, string>;

export function readManifest(folder: string): Manifest {
  const manifest = new Map<string, string>();
  const firstOf = new Map<bigint, string>();
  const visit = (path: string): void => {
    const full = join(folder, path);
    const { mode, uid, gid, mtimeNs, nlink, ino, size } = lstatSync(full, { bigint: true });
    const facts = [`mode ${mode.toString(8)}`, `owner ${uid}:${gid}`, `mtime ${mtimeNs}`];
    const type = mode & 0o170000n;
    if (type === 0o100000n) {
      facts.push(`${size} bytes`, createHash("sha256").update(readFileSync(full)).digest("hex"));
      if (nlink > 1n) {
        if (!firstOf.has(ino)) firstOf.set(ino, path);
        facts.push(`same as ${firstOf.get(ino)}`);
      }
    } else if (type === 0o120000n) facts[0] = `link to ${readlinkSync(full)}`;
    manifest.set(path, facts.join(", "));
    if (type === 0o040000n) for (const name of readdirSync(full).sort()) visit(join(path, name));
  };
  visit("");
  return manifest;
}

/** What differs, a line each. */
export function diffManifests(wanted: Manifest, found: Manifest): string[] {
  const paths = [...new Set([...wanted.keys(), ...found.keys()])].sort();
  return paths
    .filter((path) => wanted.get(path) !== found.get(path))
    .map((path) => `${JSON.stringify(path)}: wanted ${wanted.get(path) ?? "nothing"}; found ${found.get(path) ?? "nothing"}`);
}
