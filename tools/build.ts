/**
 * Bundles the command into dist/: `main.js`, one entry for each `*.worker.ts` (see base/worker-url), and the pieces they have in common.
 * What package.json lists as dependencies stays outside and is installed with the package.
 */

import { globSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { build } from "esbuild";

const root = join(import.meta.dirname, "..");

/** The first file of the bundle. Compiled code is kept for the next start, in the user's own folder: one that all share could be poisoned. */
const entry = `import { enableCompileCache } from "node:module";
import { homedir } from "node:os";
import { join } from "node:path";

enableCompileCache(join(process.env.XDG_CACHE_HOME || join(homedir(), ".cache"), "granary"));
await import(${JSON.stringify("./cli.js")});
`;

/** Entry name → source; throws when two workers would get one name. */
export function listEntries(folder: string): Record<string, string> {
  const entries: Record<string, string> = { cli: "apps/cli/src/main.ts" };
  for (const path of globSync("{packages,apps}/*/src/**/*.worker.ts", { cwd: folder }).sort()) {
    const name = basename(path, ".ts");
    if (name in entries)
      throw new Error(`Cannot bundle ${path}: ${entries[name] ?? ""} has the same file name; worker files need names of their own`);
    entries[name] = path;
  }
  return entries;
}

/** Bundles the tree under `folder` into its dist/. */
export async function bundle(folder: string): Promise<void> {
  const manifest = JSON.parse(readFileSync(join(folder, "package.json"), "utf8")) as { dependencies: Record<string, string> };
  rmSync(join(folder, "dist"), { recursive: true, force: true });
  await build({
    absWorkingDir: folder,
    entryPoints: listEntries(folder),
    outdir: "dist",
    chunkNames: "[name]-[hash]", // beside the entries, where workerUrl() looks
    bundle: true,
    splitting: true,
    format: "esm",
    platform: "node",
    target: "node26",
    conditions: ["source"],
    define: { __BUNDLED__: "true" },
    external: Object.keys(manifest.dependencies),
    logLevel: "warning",
  });
  writeFileSync(join(folder, "dist/main.js"), entry);
}

if (import.meta.main) await bundle(root);
