/**
 * zstd from inside the Node binary, with one compression and one decompression context per thread instead of a new one per call.
 *
 * Declarations: zstd 1.5 `zstd.h`, "Simple Core API" and "Explicit context". {@link openZstd} checks a round trip against `node:zlib`
 * first, and answers `undefined` where the symbols cannot be had.
 */
import { Buffer } from "node:buffer";
import { zstdCompressSync, zstdDecompressSync } from "node:zlib";
import { bindSymbol } from "./symbols.ts";
import { enterContext } from "./thread-ledger.ts";

export interface Zstd {
  /** Compresses `data` as one frame into `target`; answers the frame's length, or 0 when it does not fit. */
  compress(data: Uint8Array, target: Uint8Array, level: number): number;
  /** Decompresses one frame into `target`; answers the plain length, or -1 when the frame is invalid or does not fit. */
  decompress(frame: Uint8Array, target: Uint8Array): number;
}

/**
 * Level 1 looks back 512 KiB through a table of 2^14 entries. For chunks, which are larger, 2 MiB and 2^15 make the result 3 to 10 % smaller at
 * hardly any cost (measured on 1.2 MB pieces of system files: 598 against 597 MB/s, 20.1 against 20.8 %). Numbers of zstd.h, ZSTD_cParameter.
 */
const largeParameters: readonly (readonly [number, number])[] = [
  [100, 1], // ZSTD_c_compressionLevel
  [101, 21], // ZSTD_c_windowLog
  [102, 15], // ZSTD_c_hashLog
];
const largeBytes = 256 * 1024;

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
  const compressSet = bindSymbol("ZSTD_compress2", "size_t", ["void *", "void *", "size_t", "void *", "size_t"]);
  const setParameter = bindSymbol("ZSTD_CCtx_setParameter", "size_t", ["void *", "int", "int"]);
  const createCompressor = bindSymbol("ZSTD_createCCtx", "void *", []);
  const createDecompressor = bindSymbol("ZSTD_createDCtx", "void *", []);
  // Contexts live as long as the thread. Made on first use: a thread that only reads needs no compressor (about 1 MiB).
  let compressor: bigint | undefined;
  let largeCompressor: bigint | undefined;
  let decompressor: bigint | undefined;
  const makeCompressor = (): bigint => {
    const context = createCompressor() as bigint;
    enterContext("ZSTD_freeCCtx", context);
    return context;
  };
  const length = (result: unknown): number => (isError(result as number) === 0 ? Number(result) : -1);
  return {
    compress(data, target, level) {
      if (level === 1 && data.length >= largeBytes) {
        if (largeCompressor === undefined) {
          largeCompressor = makeCompressor();
          for (const [parameter, value] of largeParameters) setParameter(largeCompressor, parameter, value);
        }
        const made = length(compressSet(largeCompressor, target, target.length, data, data.length));
        return made < 0 ? 0 : made;
      }
      compressor ??= makeCompressor();
      const made = length(compress(compressor, target, target.length, data, data.length, level));
      return made < 0 ? 0 : made;
    },
    decompress(frame, target) {
      if (decompressor === undefined) {
        decompressor = createDecompressor() as bigint;
        enterContext("ZSTD_freeDCtx", decompressor);
      }
      return length(decompress(decompressor, target, target.length, frame, frame.length));
    },
  };
}

function agrees(candidate: Zstd): boolean {
  const plain = Buffer.from("granary ".repeat(200));
  const frame = Buffer.alloc(2000);
  const back = Buffer.alloc(plain.length);
  const made = candidate.compress(plain, frame, 1);
  const isWhole = zstdDecompressSync(frame.subarray(0, made)).equals(plain);
  const large = Buffer.alloc(largeBytes + 1, "granary");
  const largeMade = candidate.compress(large, frame, 1);
  const largeFrame = Buffer.from(frame.subarray(0, largeMade));
  return (
    made > 0 &&
    largeMade > 0 &&
    zstdDecompressSync(largeFrame).equals(large) &&
    isWhole &&
    candidate.decompress(zstdCompressSync(plain), back) === plain.length &&
    back.equals(plain) &&
    candidate.decompress(Buffer.alloc(50, 1), back) === -1 &&
    candidate.decompress(zstdCompressSync(plain), Buffer.alloc(10)) === -1
  );
}
