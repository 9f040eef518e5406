/**
 * Finds C functions by name, through koffi. Everything the engine calls outside JavaScript is declared in this folder and nowhere else:
 * a wrong signature here is a crash, so each file says from which header its declarations come.
 *
 * `runtime` is the Node binary itself, which exports the OpenSSL and zstd it was linked with: calling them directly saves the set-up that
 * `node:crypto` and `node:zlib` do on every call (see docs/adr/0003-native-primitives.md). Every thread loads its own copy; nothing is shared.
 */
import { createRequire } from "node:module";
import type Koffi from "koffi";
import { passGate } from "./termination-gate.ts";

type KoffiModule = typeof Koffi;
/** A C function taking numbers, bigints, byte arrays (their address is passed) or null. */
export type NativeFunction = (...args: readonly (number | bigint | Uint8Array | string | null)[]) => unknown;

let koffi: KoffiModule | undefined;
let runtime: ReturnType<KoffiModule["load"]> | undefined;

function load(): NonNullable<typeof runtime> {
  if (runtime === undefined) {
    // Loaded on first use: a command that needs no native call starts 15 ms sooner.
    passGate(() => {
      koffi = createRequire(import.meta.url)("koffi") as KoffiModule; // the module's own type
      runtime = koffi.load(null);
    });
  }
  return runtime as NonNullable<typeof runtime>; // passGate() calls its argument
}

/**
 * Binds a function of the running process (libc, or what the Node binary exports).
 *
 * @throws Error when the process has no such symbol
 */
export function bindSymbol(name: string, result: string, parameters: readonly string[]): NativeFunction {
  return passGate(() => load().func(name, result, [...parameters]) as NativeFunction);
}

/** The `errno` that the last native call of this thread left. */
export function lastErrno(): number {
  load();
  return koffi === undefined ? 0 : koffi.errno();
}

/** The string that the first member of a C structure points to (struct passwd, struct group). */
export function readCString(structure: Uint8Array): string {
  load();
  return koffi === undefined ? "" : String(koffi.decode(structure, "char *") ?? "");
}
