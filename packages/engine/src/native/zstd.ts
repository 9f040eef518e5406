/**
 * zstd from inside the Node binary, with one compression and one decompression context per thread instead of a new one per call.
 *
 * Declarations: zstd 1.5 `zstd.h`, "Simple Core API" and "Explicit context". {@link openZstd} checks a round trip against `node:zlib`
 * first, and answers `undefined` where the symbols cannot be had.
 */
import { Buffer } from "node:buffer";
import { zstdCompressSync, zstdDecompressSync } from "node:zlib";
import { bindSymbol } from "./symbols.ts";

export interface Zstd {
  /** Compresses `data` as one frame into `target`; answers the frame's length, or 0 when it does not fit. */
  compress(data: Uint8Array, target: Uint8Array, level: number): number;
  /** Decompresses one frame into `target`; answers the plain length, or -1 when the frame is invalid or does not fit. */
  decompress(frame: Uint8Array, target: Uint8Array): number;
}

let opened: Zstd | undefined | null = null;

/** The functions of this thread, or `undefined` where they cannot be had (decided once per thread). */
export function openZstd(): Zstd | undefined {
  if (opened === null) {
    try {
      const candidate = bindZstd();
      opened = agrees(candidate) ? candidate : undefined;
    } catch {
      opened = undefined;
    }
  }
  return opened;
}

function bindZstd(): Zstd {
  const isError = bindSymbol("ZSTD_isError", "uint", ["size_t"]);
  const compress = bindSymbol("ZSTD_compressCCtx", "size_t", ["void *", "void *", "size_t", "void *", "size_t", "int"]);
  const decompress = bindSymbol("ZSTD_decompressDCtx", "size_t", ["void *", "void *", "size_t", "void *", "size_t"]);
  const createCompressor = bindSymbol("ZSTD_createCCtx", "void *", []);
  const createDecompressor = bindSymbol("ZSTD_createDCtx", "void *", []);
  // Contexts live as long as the thread. Made on first use: a thread that only reads needs no compressor (about 1 MiB).
  let compressor: bigint | undefined;
  let decompressor: bigint | undefined;
  const length = (result: unknown): number => (isError(result as number) === 0 ? Number(result) : -1);
  return {
    compress(data, target, level) {
      compressor ??= createCompressor() as bigint;
      const made = length(compress(compressor, target, target.length, data, data.length, level));
      return made < 0 ? 0 : made;
    },
    decompress(frame, target) {
      decompressor ??= createDecompressor() as bigint;
      return length(decompress(decompressor, target, target.length, frame, frame.length));
    },
  };
}

function agrees(candidate: Zstd): boolean {
  const plain = Buffer.from("granary ".repeat(200));
  const frame = Buffer.alloc(2000);
  const back = Buffer.alloc(plain.length);
  const made = candidate.compress(plain, frame, 1);
  return (
    made > 0 &&
    zstdDecompressSync(frame.subarray(0, made)).equals(plain) &&
    candidate.decompress(zstdCompressSync(plain), back) === plain.length &&
    back.equals(plain) &&
    candidate.decompress(Buffer.alloc(50, 1), back) === -1 &&
    candidate.decompress(zstdCompressSync(plain), Buffer.alloc(10)) === -1
  );
}
