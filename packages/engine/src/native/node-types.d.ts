// What Node 26 has and its published types do not yet name.
import "node:crypto";

declare module "node:crypto" {
  interface Mac {
    update(data: Uint8Array): this;
    final(): Buffer;
  }
  /** A keyed message authentication code; "poly1305" takes a 32-byte one-time key. */
  function createMac(algorithm: "poly1305", key: Uint8Array): Mac;
}

declare global {
  interface Buffer<TArrayBuffer extends ArrayBufferLike = ArrayBufferLike> {
    latin1Slice(start?: number, end?: number): string;
    utf8Slice(start?: number, end?: number): string;
    latin1Write(text: string, offset?: number, length?: number): number;
    utf8Write(text: string, offset?: number, length?: number): number;
  }
}
