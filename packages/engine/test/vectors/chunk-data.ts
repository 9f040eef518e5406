import { createCipheriv, createHash } from "node:crypto";

/** One stretch of a vector's data. */
export type DataSection =
  | { readonly kind: "random"; readonly seed: string; readonly sizeBytes: number }
  | { readonly kind: "repeat"; readonly hex: string; readonly sizeBytes: number };

/**
 * The data of a chunk vector: its sections, one after the other.
 *
 * "random" is the AES-256-CTR key stream from counter zero, with the SHA-256 of the seed (UTF-8) as the key; "repeat" is the given
 * bytes over and over.
 */
export function buildData(sections: readonly DataSection[]): Uint8Array {
  return new Uint8Array(Buffer.concat(sections.map(buildSection)));
}

/** Bytes that look random and depend on `seed` alone. */
export function buildRandomData(seed: string, sizeBytes: number): Uint8Array {
  return buildData([{ kind: "random", seed, sizeBytes }]);
}

function buildSection(section: DataSection): Uint8Array {
  if (section.kind === "repeat") return Buffer.alloc(section.sizeBytes, section.hex, "hex");
  const key = createHash("sha256").update(section.seed).digest();
  return createCipheriv("aes-256-ctr", key, new Uint8Array(16)).update(new Uint8Array(section.sizeBytes));
}
