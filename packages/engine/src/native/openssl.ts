/**
 * SHA-256, AES-CTR and Poly1305 from the OpenSSL inside the Node binary, without the per-call set-up of `node:crypto`.
 *
 * Declarations: OpenSSL 3 `evp.h`, `sha.h` and `crypto/poly1305.h`. {@link openOpenssl} checks every primitive against `node:crypto` before it is
 * used, and answers `undefined` when a symbol is missing or a result differs; callers then use `node:crypto` itself.
 */
import { Buffer } from "node:buffer";
import { createCipheriv, createMac, hash } from "node:crypto";
import { bindSymbol, type NativeFunction } from "./symbols.ts";
import { enterContext } from "./thread-ledger.ts";

/** Byte-array primitives; each writes into memory that the caller owns, and none keeps it. Not for use by several threads at once. */
export interface Openssl {
  /** SHA-256 of `data` into the 32 bytes of `target`. */
  sha256(data: Uint8Array, target: Uint8Array): void;
  /** AES-256-CTR with the key given to `openCtr`: `target` gets as many bytes as `data` has; both may be the same memory. */
  openCtr(key: Uint8Array): (iv: Uint8Array, data: Uint8Array, target: Uint8Array) => void;
  /** AES-128 of each 16-byte block of `data` into `target`, with the key given to `openBlocks`. */
  openBlocks(key: Uint8Array): (data: Uint8Array, target: Uint8Array) => void;
  /** Poly1305 of `data` under a 32-byte one-time key into the 16 bytes of `target`. */
  poly1305(key: Uint8Array, data: Uint8Array, target: Uint8Array): void;
}

let opened: Openssl | undefined | null = null;

/** The primitives of this thread, or `undefined` where they cannot be had (decided once per thread). */
export function openOpenssl(): Openssl | undefined {
  if (opened === null) {
    try {
      const candidate = bindOpenssl();
      opened = agrees(candidate) ? candidate : undefined;
    } catch {
      opened = undefined;
    }
  }
  return opened;
}

function bindOpenssl(): Openssl {
  const sha256 = bindSymbol("SHA256", "void", ["void *", "size_t", "void *"]); // its result is `target` again
  const newContext = bindSymbol("EVP_CIPHER_CTX_new", "void *", []);
  const aes256Ctr = bindSymbol("EVP_aes_256_ctr", "void *", [])() as bigint;
  const aes128Ecb = bindSymbol("EVP_aes_128_ecb", "void *", [])() as bigint;
  const setPadding = bindSymbol("EVP_CIPHER_CTX_set_padding", "int", ["void *", "int"]);
  const init = bindSymbol("EVP_EncryptInit_ex", "int", ["void *", "void *", "void *", "void *", "void *"]);
  const update = bindSymbol("EVP_EncryptUpdate", "int", ["void *", "void *", "void *", "void *", "int"]);
  const polyInit = bindSymbol("Poly1305_Init", "void", ["void *", "void *"]);
  const polyUpdate = bindSymbol("Poly1305_Update", "void", ["void *", "void *", "size_t"]);
  const polyFinal = bindSymbol("Poly1305_Final", "void", ["void *", "void *"]);
  const polySize = bindSymbol("Poly1305_ctx_size", "size_t", []) as () => number;
  const polyState = Buffer.alloc(Number(polySize()) + 64);
  return {
    sha256: (data, target) => void sha256(data, data.length, target),
    openCtr(key) {
      const crypt = openCipher(aes256Ctr, key, { newContext, init, update, setPadding });
      return (iv, data, target) => crypt(data, target, iv);
    },
    openBlocks: (key) => openCipher(aes128Ecb, key, { newContext, init, update, setPadding }),
    poly1305(key, data, target) {
      polyInit(polyState, key);
      polyUpdate(polyState, data, data.length);
      polyFinal(polyState, target);
    },
  };
}

interface CipherFunctions {
  readonly newContext: NativeFunction;
  readonly init: NativeFunction;
  readonly update: NativeFunction;
  readonly setPadding: NativeFunction;
}

/** One encrypting context, which lives as long as the thread (a few hundred bytes). An IV starts the cipher anew. */
function openCipher(
  cipher: bigint,
  key: Uint8Array,
  { newContext, init, update, setPadding }: CipherFunctions,
): (data: Uint8Array, target: Uint8Array, iv?: Uint8Array) => void {
  const context = newContext() as bigint; // a pointer
  enterContext("EVP_CIPHER_CTX_free", context);
  const written = Buffer.alloc(8);
  const begin = (from: bigint | null, secret: Uint8Array | null, iv: Uint8Array | null): void => {
    if (init(context, from, null, secret, iv) !== 1) throw new Error("EVP_EncryptInit_ex failed");
  };
  begin(cipher, key, Buffer.alloc(16));
  setPadding(context, 0);
  return (data, target, iv) => {
    if (target.length < data.length) throw new RangeError(`The cipher's target is ${target.length} bytes, ${data.length} needed`);
    if (iv !== undefined) begin(null, null, iv);
    if (data.length > 0 && update(context, target, written, data, data.length) !== 1) throw new Error("EVP_EncryptUpdate failed");
  };
}

/** Whether the bound functions compute what `node:crypto` computes, on lengths around the block sizes. */
function agrees(candidate: Openssl): boolean {
  const key = Buffer.alloc(32, 7);
  const iv = Buffer.alloc(16, 0xff); // the counter wraps at once
  const ctr = candidate.openCtr(key);
  const digest = Buffer.alloc(32);
  const tag = Buffer.alloc(16);
  const block = Buffer.alloc(16);
  candidate.openBlocks(key.subarray(16))(iv, block);
  if (!block.equals(createCipheriv("aes-128-ecb", key.subarray(16), null).setAutoPadding(false).update(iv))) return false;
  for (const length of [0, 1, 15, 16, 63, 64, 65, 1000]) {
    const data = Buffer.alloc(length, length & 0xff);
    const cipher = Buffer.alloc(length);
    candidate.sha256(data, digest);
    ctr(iv, data, cipher);
    candidate.poly1305(key, data, tag);
    const same =
      digest.equals(hash("sha256", data, "buffer")) &&
      cipher.equals(createCipheriv("aes-256-ctr", key, iv).update(data)) &&
      tag.equals(createMac("poly1305", key).update(data).final());
    if (!same) return false;
  }
  return true;
}
