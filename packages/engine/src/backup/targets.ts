/**
 * Where the given targets lie in the snapshot's tree, as restic places them: an absolute path with all its components, a relative one as it was
 * given, and `/`, `.` or `..` as what is in that directory.
 *
 * Pure; the names in a directory that stands for its contents are given by the caller. A target within another target is covered by it.
 */
import { resolve } from "node:path";
import { Failure } from "@granary/base/errors";
import { type ByteString, toUtf8OrEscaped } from "../format/byte-string.ts";

/** What the snapshot has under a name: an entry of a directory on the disk, to be saved with all below it, or a directory above such. */
export type Placement =
  | { readonly kind: "target"; readonly directory: ByteString }
  | { readonly kind: "above"; readonly path: ByteString; readonly children: Placements };

/** By name. */
export type Placements = Map<ByteString, Placement>;

export interface PlacedTargets {
  readonly root: Placements;
  /** Absolute, in the order given, for the snapshot's `paths`. */
  readonly paths: readonly ByteString[];
}

/**
 * Places targets.
 *
 * @param targets as given, raw bytes
 * @param from the absolute directory that relative targets start from, and what lists a directory's names
 * @throws InvalidArgument when there is no target, one is no path, or two places on the disk would get one place in the snapshot
 */
export function placeTargets(
  targets: readonly ByteString[],
  from: { readonly directory: ByteString; readonly list: (path: ByteString) => readonly ByteString[] },
): PlacedTargets {
  if (targets.length === 0) throw new Failure("InvalidArgument", "Cannot back up nothing: name at least one file or folder");
  const root: Placements = new Map();
  const paths = targets.map((target) => {
    const path = resolveTarget(target, from.directory);
    const components = target.startsWith("/") ? path.split("/").filter(Boolean) : componentsOf(target);
    if (components.length > 0) place(root, path, components);
    else for (const name of from.list(path)) place(root, path === "/" ? `/${name}` : `${path}/${name}`, [name]);
    return path;
  });
  return { root, paths };
}

/** The absolute path of a target. @throws InvalidArgument when it is no path */
export function resolveTarget(target: ByteString, directory: ByteString): ByteString {
  if (target === "" || target.includes("\0"))
    throw new Failure("InvalidArgument", `Cannot back up "${toUtf8OrEscaped(target)}": a path is needed`);
  return resolve(directory, target);
}

/** What is left of a relative path without `.`, and without what leads out of the directory it starts from. */
function componentsOf(target: ByteString): readonly ByteString[] {
  const kept: ByteString[] = [];
  for (const component of target.split("/")) {
    if (component === "..") kept.pop();
    else if (component !== "" && component !== ".") kept.push(component);
  }
  return kept;
}

function place(root: Placements, path: ByteString, components: readonly ByteString[]): void {
  const onDisk = path.split("/");
  let children = root;
  for (const [at, name] of components.entries()) {
    const end = onDisk.length - components.length + at + 1;
    const here = onDisk.slice(0, end).join("/");
    const directory = onDisk.slice(0, end - 1).join("/") || "/";
    const found = children.get(name);
    if (found !== undefined) {
      const other = found.kind === "above" ? found.path : found.directory === "/" ? `/${name}` : `${found.directory}/${name}`;
      if (other !== here) throw clash(name, other, here);
    }
    if (found?.kind === "target") return;
    if (at === components.length - 1) {
      children.set(name, { kind: "target", directory });
      return;
    }
    const above: Placement = found ?? { kind: "above", path: here, children: new Map() };
    children.set(name, above);
    children = above.children;
  }
}

function clash(name: ByteString, one: ByteString, other: ByteString): Failure {
  const [a, b] = [toUtf8OrEscaped(one), toUtf8OrEscaped(other)];
  return new Failure(
    "InvalidArgument",
    `Cannot back up "${a}" and "${b}" into one snapshot: both would be "${toUtf8OrEscaped(name)}" there; use absolute paths`,
  );
}
