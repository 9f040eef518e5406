/**
 * From a password to the key that opens a key file: scrypt (RFC 7914), on Node's thread pool, so that other work goes on meanwhile.
 *
 * scrypt works on 128·N·r bytes, p times over; its time grows with N·r·p. Nothing here may be cheaper than what OWASP asks for:
 * r = 8 and N·p of at least 2^15·3 (2^16·2, 2^17·1).
 */
import { scrypt } from "node:crypto";
import { type Clock, systemClock } from "@granary/base/clock";
import { Failure } from "@granary/base/errors";
import type { Secret } from "@granary/base/secret";
import "../errors.ts";
import type { MasterKey } from "./seal.ts";

/** The work that scrypt does; the names are those of RFC 7914. */
export interface ScryptCost {
  /** A power of two, at least 2. */
  readonly N: number;
  readonly r: number;
  readonly p: number;
}

/** How {@link calibrateScrypt} chooses. */
export interface CalibrateOptions {
  /** How long one derivation should take; 200 ms when absent. The floor comes first. */
  readonly targetMs?: number;
  /** Memory of one derivation at most; 32 MiB when absent, which is also the least that is used. */
  readonly maxMemoryBytes?: number;
  readonly clock?: Clock;
}

const derivedBytes = 64;
/** Weakest first: N, and the least p with it (OWASP Password Storage Cheat Sheet, "scrypt"). */
const floors: readonly { readonly N: number; readonly p: number }[] = [
  { N: 2 ** 15, p: 3 },
  { N: 2 ** 16, p: 2 },
  { N: 2 ** 17, p: 1 },
];
const blockFactor = 8;
/** No password is worth more than some seconds at each opening, whatever the target. */
const maxP = 64;

/**
 * Derives the key that seals a key file's master key: of 64 bytes, the first 32 encrypt, then 16 each for the two halves of the code.
 *
 * @throws InvalidArgument when no scrypt has this cost
 * @see restic design.rst, "Keys, Encryption and MAC"
 */
export async function deriveKey(password: Secret, salt: Uint8Array, cost: ScryptCost): Promise<MasterKey> {
  const bytes = await derive(password.reveal(), salt, cost);
  return { encrypt: bytes.subarray(0, 32), macK: bytes.subarray(32, 48), macR: bytes.subarray(48, 64) };
}

/**
 * Finds what this machine can do in the time that is granted, never less than OWASP's floor. Takes about a third of the floor's time.
 */
export async function calibrateScrypt(options: CalibrateOptions = {}): Promise<ScryptCost> {
  const { targetMs = 200, maxMemoryBytes = 32 * 2 ** 20, clock = systemClock } = options;
  const probe: ScryptCost = { N: 2 ** 15, r: blockFactor, p: 1 };
  const startMs = clock.monotonicMs();
  await derive("calibration", new Uint8Array(derivedBytes), probe);
  const probeMs = Math.max(1, clock.monotonicMs() - startMs);
  const floor = floors.findLast(({ N }) => 128 * N * blockFactor <= maxMemoryBytes) ?? { N: 2 ** 15, p: 3 };
  const roundMs = (probeMs * floor.N) / probe.N;
  return { N: floor.N, r: blockFactor, p: Math.min(maxP, Math.max(floor.p, Math.floor(targetMs / roundMs))) };
}

function derive(password: string, salt: Uint8Array, cost: ScryptCost): Promise<Buffer> {
  const { N, r, p } = cost;
  // OpenSSL's own count is 128·r·(N + p + 2) and a little more.
  const maxmem = 128 * r * (N + p + 2) + 65536;
  return new Promise((resolve, reject) => {
    const refuse = (cause: unknown): void =>
      reject(new Failure("InvalidArgument", `Cannot derive a key by scrypt with N=${N}, r=${r}, p=${p}`, { details: { N, r, p }, cause }));
    try {
      scrypt(password, salt, derivedBytes, { N, r, p, maxmem }, (error, key) => (error === null ? resolve(key) : refuse(error)));
    } catch (error) {
      refuse(error);
    }
  });
}
