/**
 * Sealing: restic's authenticated encryption of every blob, header and file.
 *
 *   sealed := IV(16) || CT(n) || MAC(16)
 *   CT  = AES-256-CTR(encrypt, IV, plain)
 *   MAC = Poly1305(macR || AES-128(macK, IV), CT)
 *
 * Only CT is authenticated (the IV enters through the one-time key), and nothing binds a sealed object to its position: callers hash what
 * they opened and compare it with the name they asked for. Source: restic design.rst, "Keys, Encryption and MAC".
 *
 * A Sealer belongs to one thread. IVs come from the system's generator, 256 at a time, and their one-time keys are computed in one AES call.
 */
import { Buffer } from "node:buffer";
import { createCipheriv, createMac, randomFillSync, timingSafeEqual } from "node:crypto";
import { Failure } from "@granary/base/errors";
import { type Openssl, openOpenssl } from "../native/openssl.ts";

/** How many bytes sealing adds. */
export const sealOverheadBytes = 32;

/** The three secrets of a repository (or of a password, for key files): 32, 16 and 16 bytes. */
export interface MasterKey {
  readonly encrypt: Uint8Array;
  readonly macK: Uint8Array;
  readonly macR: Uint8Array;
}

const poolSize = 256;

export class Sealer {
  readonly #key: MasterKey;
  readonly #native: Openssl | null;
  readonly #ctr: ReturnType<Openssl["openCtr"]> | undefined;
  readonly #blocks: ReturnType<Openssl["openBlocks"]>;
  readonly #ivs = Buffer.alloc(poolSize * 16);
  readonly #oneTime = Buffer.alloc(poolSize * 16);
  #next = poolSize;
  readonly #macKey = Buffer.alloc(32);
  readonly #tag = Buffer.alloc(16);

  /** @param native the primitives to use; `null` for `node:crypto` alone (tests run both) */
  constructor(key: MasterKey, native: Openssl | null = openOpenssl() ?? null) {
    if (key.encrypt.length !== 32 || key.macK.length !== 16 || key.macR.length !== 16) {
      throw new Failure(
        "KeyInvalid",
        `Cannot use a master key of ${key.encrypt.length}, ${key.macK.length} and ${key.macR.length} bytes: 32, 16 and 16 are needed`,
      );
    }
    this.#key = key;
    this.#native = native;
    this.#ctr = native?.openCtr(key.encrypt);
    this.#blocks = native?.openBlocks(key.macK) ?? blocksWithNode(key.macK);
    this.#macKey.set(key.macR, 0);
  }

  /**
   * Seals `plain` into `target[at, at + plain.length + 32)`. `plain` must not overlap that span.
   *
   * @returns the sealed length
   */
  sealInto(target: Uint8Array, at: number, plain: Uint8Array): number {
    const sealedBytes = plain.length + sealOverheadBytes;
    if (at + sealedBytes > target.length)
      throw new RangeError(`Sealing ${plain.length} bytes at ${at} needs more than ${target.length} bytes`);
    if (this.#next === poolSize) this.#refill();
    const slot = this.#next++ * 16;
    const iv = this.#ivs.subarray(slot, slot + 16);
    target.set(iv, at);
    const cipherText = target.subarray(at + 16, at + 16 + plain.length);
    this.#crypt(iv, plain, cipherText);
    this.#macKey.set(this.#oneTime.subarray(slot, slot + 16), 16);
    this.#mac(cipherText);
    target.set(this.#tag, at + 16 + plain.length);
    return sealedBytes;
  }

  /**
   * Opens `sealed` into `target[at, …)` after its MAC was verified. `target` may be the memory of `sealed` when `at` is not beyond it.
   *
   * @returns the plain length, `sealed.length - 32`
   * @throws SealBroken when it is too short or the MAC does not match: it is damaged, or sealed under another key
   */
  openInto(target: Uint8Array, at: number, sealed: Uint8Array): number {
    const plainBytes = sealed.length - sealOverheadBytes;
    if (plainBytes < 0) throw new Failure("SealBroken", `Cannot open a sealed object of ${sealed.length} bytes: at least 32 are needed`);
    const iv = sealed.subarray(0, 16);
    const cipherText = sealed.subarray(16, 16 + plainBytes);
    this.#blocks(iv, this.#macKey.subarray(16));
    this.#mac(cipherText);
    if (!timingSafeEqual(this.#tag, sealed.subarray(16 + plainBytes))) {
      throw new Failure("SealBroken", `Cannot open a sealed object of ${sealed.length} bytes: its authentication code does not match`);
    }
    this.#crypt(iv, cipherText, target.subarray(at, at + plainBytes));
    return plainBytes;
  }

  /** Seals into memory of its own. */
  seal(plain: Uint8Array): Buffer {
    const sealed = Buffer.allocUnsafeSlow(plain.length + sealOverheadBytes);
    this.sealInto(sealed, 0, plain);
    return sealed;
  }

  /** Opens into memory of its own. @throws SealBroken */
  open(sealed: Uint8Array): Buffer {
    const plain = Buffer.allocUnsafeSlow(Math.max(0, sealed.length - sealOverheadBytes));
    this.openInto(plain, 0, sealed);
    return plain;
  }

  #refill(): void {
    randomFillSync(this.#ivs);
    this.#blocks(this.#ivs, this.#oneTime);
    this.#next = 0;
  }

  #crypt(iv: Uint8Array, data: Uint8Array, target: Uint8Array): void {
    if (this.#ctr !== undefined) this.#ctr(iv, data, target);
    else target.set(createCipheriv("aes-256-ctr", this.#key.encrypt, iv).update(data));
  }

  #mac(cipherText: Uint8Array): void {
    if (this.#native !== null) this.#native.poly1305(this.#macKey, cipherText, this.#tag);
    else this.#tag.set(createMac("poly1305", this.#macKey).update(cipherText).final());
  }
}

function blocksWithNode(key: Uint8Array): ReturnType<Openssl["openBlocks"]> {
  return (data, target) => {
    target.set(createCipheriv("aes-128-ecb", key, null).setAutoPadding(false).update(data));
  };
}
