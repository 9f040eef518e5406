/**
 * Fails when an import breaks the map of the house: the table of rooms, the layers inside the engine, cycles, imports that are not
 * declared, and folders whose names say nothing. `import type` obeys the same rules. Tests may reach across the engine's layers.
 *
 * Reads the files of one tree (the project, or the folder given as the first argument) and prints one line per fault.
 */

import { existsSync, globSync, readFileSync } from "node:fs";
import { isBuiltin } from "node:module";
import { basename, dirname, join, resolve } from "node:path";

/** Which rooms a room may import. `tools` and `test` belong to no room and may import any. */
const rooms: Readonly<Record<string, readonly string[]>> = {
  base: [],
  contract: ["base"],
  engine: ["base"],
  vm: ["base", "engine"],
  seed: ["base", "engine"],
  workload: ["base", "engine"],
  vault: ["base", "contract", "engine", "seed"],
  agent: ["base", "contract", "engine", "vm", "seed", "workload"],
  station: ["base", "contract", "engine", "seed"],
  cli: ["base", "contract", "engine", "vm", "seed"],
  portal: ["contract"],
};
/** Rooms that `cli` may start, with `import()` only. */
const startable = ["vault", "agent", "station", "portal"];

/** The engine's folders and what each may import of the others, lowest first; verbs never import each other. */
const layers: Readonly<Record<string, readonly string[]>> = {
  native: [],
  crypto: ["native"],
  chunk: ["native"],
  format: ["native", "crypto", "chunk"],
  selection: ["format"],
  store: ["native", "crypto", "chunk", "format"],
  repository: ["native", "crypto", "chunk", "format", "store"],
  backup: ["native", "crypto", "chunk", "format", "selection", "store", "repository"],
  restore: ["native", "crypto", "chunk", "format", "selection", "store", "repository"],
  maintain: ["native", "crypto", "chunk", "format", "selection", "store", "repository"],
};
/** Layers that turn bytes into values and back; these touch neither files nor sockets. */
const pureLayers = ["crypto", "chunk", "format"];
const inputOutput = /^node:(?:fs|net|http|https|http2|tls|dgram|child_process|worker_threads)(?:\/|$)/;

const bannedFolders = ["utils", "helpers", "common", "shared", "misc", "lib", "core"];
const goodFileName = /^[a-z0-9]+(?:-[a-z0-9]+)*(?:\.(?:d|test|worker|bench|long|routes|store))*\.ts$/;

interface Import {
  readonly specifier: string;
  readonly isDynamic: boolean;
}

interface Manifest {
  readonly name?: string;
  readonly exports?: Readonly<Record<string, unknown>>;
  readonly dependencies?: Readonly<Record<string, string>>;
  readonly devDependencies?: Readonly<Record<string, string>>;
}

/** Every fault of the tree under `root`, as `path: what is wrong`, sorted. */
export function checkLayers(root: string): string[] {
  const faults = new Set<string>();
  const graph = new Map<string, string[]>();
  for (const path of globSync("{packages,apps,tools,test}/**/*.ts", {
    cwd: root,
    exclude: (name) => name === "node_modules" || name === "dist",
  })) {
    const fault = (text: string): void => void faults.add(`${path}: ${text}`);
    const source = readFileSync(join(root, path), "utf8");
    const bad = dirname(path)
      .split("/")
      .find((folder) => bannedFolders.includes(folder));
    if (bad !== undefined) fault(`folder "${bad}" says nothing; name it after what it holds`);
    if (!goodFileName.test(basename(path))) fault("file names are kebab-case");
    if (/^export \*/m.test(source)) fault("`export *` hides what is exported; name it");
    const edges: string[] = [];
    for (const found of findImports(source)) {
      if (found.specifier.startsWith(".")) edges.push(checkRelative(root, path, { specifier: found.specifier, fault }));
      else checkBare(root, path, { found, fault });
    }
    graph.set(path, edges);
  }
  for (const cycle of findCycles(graph)) faults.add(`${cycle[0] ?? ""}: import cycle ${cycle.join(" → ")}`);
  return [...faults].sort();
}

function findImports(source: string): Import[] {
  const still = /^(?:import|export)\s+(?:type\s+)?(?:[\w$*{},\s]+\s+from\s+)?["']([^"'\n]+)["']/gm;
  const dynamic = /\bimport\(\s*["']([^"'\n]+)["']/g;
  const code = source.replace(/^\s*(?:\/\/|\*|\/\*).*$/gm, "");
  return [
    ...Array.from(code.matchAll(still), (match) => ({ specifier: match[1] ?? "", isDynamic: false })),
    ...Array.from(code.matchAll(dynamic), (match) => ({ specifier: match[1] ?? "", isDynamic: true })),
  ];
}

/** The room (`engine`) and the folder of a file inside its `src` (`format`, or empty). */
function locate(path: string): { top: string; room: string; layer: string; isTest: boolean } {
  const [top = "", room = "", part = "", layer = "", ...rest] = path.split("/");
  const isTest = part !== "src" || layer === "testing" || /\.test\.ts$|^testing\.ts$/.test(basename(path));
  return { top, room, layer: part === "src" && rest.length > 0 ? layer : "", isTest };
}

function checkRelative(root: string, path: string, { specifier, fault }: { specifier: string; fault: (text: string) => void }): string {
  const target = join(dirname(path), specifier);
  const from = locate(path);
  const to = locate(target);
  if (!existsSync(join(root, target))) fault(`"${specifier}" does not exist`);
  const isRoom = from.top === "packages" || from.top === "apps";
  if (to.top !== from.top || (isRoom && to.room !== from.room)) fault(`"${specifier}" leaves its room; import the package by its name`);
  else if (isRoom && from.room === "engine") checkLayer(from, to, { path, target, fault });
  if (!from.isTest && to.isTest && to.room === from.room && isRoom) fault(`"${specifier}" is for tests`);
  return target;
}

function checkLayer(
  from: ReturnType<typeof locate>,
  to: ReturnType<typeof locate>,
  { path, target, fault }: { path: string; target: string; fault: (text: string) => void },
): void {
  if (from.isTest || from.layer === to.layer || basename(path) === "index.ts") return;
  if (from.layer !== "" && layers[from.layer] === undefined) fault(`folder "${from.layer}" is not a layer of the engine`);
  else if (to.layer === "" && basename(target) === "index.ts") fault("a layer imports what it needs, not the index");
  else if (to.layer !== "" && layers[from.layer]?.includes(to.layer) !== true) fault(`"${from.layer}" must not import "${to.layer}"`);
}

function checkBare(root: string, path: string, { found, fault }: { found: Import; fault: (text: string) => void }): void {
  const { specifier, isDynamic } = found;
  const { top, room, layer, isTest } = locate(path);
  const isRoom = top === "packages" || top === "apps";
  if (specifier.startsWith("node:")) {
    if (!isBuiltin(specifier)) fault(`"${specifier}" is not part of Node`);
    if (room === "engine" && !isTest && pureLayers.includes(layer) && inputOutput.test(specifier))
      fault(`"${layer}" is pure and must not import "${specifier}"`);
    return;
  }
  const name = specifier.split("/", specifier.startsWith("@") ? 2 : 1).join("/");
  const own = readManifest(root, isRoom ? join(top, room) : ".");
  const outer = isTest || !isRoom ? readManifest(root, ".") : {};
  const isWorkspace = name.startsWith("@granary/");
  const declared = [own.dependencies, isTest ? own.devDependencies : {}, outer.dependencies, outer.devDependencies];
  if ((isRoom || !isWorkspace) && !declared.some((names) => names !== undefined && name in names))
    fault(`"${name}" is not declared in package.json`);
  if (isWorkspace) checkWorkspace(root, path, { specifier, isDynamic, fault });
}

function checkWorkspace(root: string, path: string, { specifier, isDynamic, fault }: Import & { fault: (text: string) => void }): void {
  const { top, room, isTest } = locate(path);
  const [, target = "", ...rest] = specifier.split("/");
  const key = rest.length === 0 ? "." : `./${rest.join("/")}`;
  const folder = ["packages", "apps"].map((place) => join(place, target)).find((place) => existsSync(join(root, place, "package.json")));
  const exported = folder === undefined ? {} : (readManifest(root, folder).exports ?? {});
  if (folder === undefined) fault(`"${specifier}" does not exist`);
  else if (!(key in exported) && !("./*" in exported && rest.length === 1))
    fault(`"${specifier}" reaches inside a package; it is not among its exports`);
  if (key === "./testing" && !isTest) fault(`"${specifier}" is for tests`);
  if (top !== "packages" && top !== "apps") return;
  const isStarting = room === "cli" && isDynamic && startable.includes(target);
  if (rooms[room] === undefined) fault(`"${room}" is not a room of the house; a new one needs an ADR`);
  else if (target === room) fault("inside a package, imports are relative");
  else if (!rooms[room].includes(target) && !isStarting) fault(`"${room}" must not import "${target}"`);
}

const manifests = new Map<string, Manifest>();

function readManifest(root: string, folder: string): Manifest {
  const path = join(root, folder, "package.json");
  const known = manifests.get(path);
  if (known !== undefined) return known;
  const manifest: Manifest = existsSync(path) ? (JSON.parse(readFileSync(path, "utf8")) as Manifest) : {};
  manifests.set(path, manifest);
  return manifest;
}

/** One cycle per way back found by a depth-first walk; empty exactly when there is none. */
function findCycles(graph: ReadonlyMap<string, readonly string[]>): string[][] {
  const cycles: string[][] = [];
  const done = new Set<string>();
  const trail: string[] = [];
  function walk(path: string): void {
    const start = trail.indexOf(path);
    if (start >= 0) cycles.push([...trail.slice(start), path]);
    if (start >= 0 || done.has(path)) return;
    trail.push(path);
    for (const next of graph.get(path) ?? []) walk(next);
    trail.pop();
    done.add(path);
  }
  for (const path of graph.keys()) walk(path);
  return cycles;
}

if (import.meta.main) {
  const faults = checkLayers(resolve(process.argv[2] ?? join(import.meta.dirname, "..")));
  for (const line of faults) console.error(line);
  if (faults.length > 0) process.exitCode = 1;
}
