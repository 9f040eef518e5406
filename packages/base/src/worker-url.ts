/** Where a worker's code is, from source and from the bundle. */

/** Replaced by `true` in the bundle (tools/build.ts); not defined when running from source. */
declare const __BUNDLED__: true;

/**
 * The URL of a worker's code. From source it is the `.ts` file beside the module that asks. In the bundle every `x.worker.ts` of the
 * packages is an entry of its own, `x.worker.js`, in the one folder where all modules are.
 *
 * @param moduleUrl the caller's `import.meta.url`
 * @param path relative to the caller, ending in `.worker.ts`; the last part is unique across the project (the build checks it)
 */
export function workerUrl(moduleUrl: string, path: `${string}.worker.ts`): URL {
  if (typeof __BUNDLED__ === "undefined") return new URL(path, moduleUrl);
  return new URL(path.replace(/^.*\//, "").replace(/\.ts$/, ".js"), moduleUrl);
}
