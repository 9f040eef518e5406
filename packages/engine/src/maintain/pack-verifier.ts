/**
 * Reads whole packs and proves them: the content has the hash that is the name, the header opens and says what the index says, and each blob
 * opens, decompresses, and has the hash that is its id.
 *
 * Each pack is read once, in one call into memory that is used again; only packs above {@link wholePackBytes} are read in pieces, twice.
 */
import { Buffer } from "node:buffer";
import { createHash } from "node:crypto";
import { encodeFailure, Failure, toFailure } from "@granary/base/errors";
import "../errors.ts";
import { sha256Into } from "../crypto/hash.ts";
import type { Sealer } from "../crypto/seal.ts";
import { ByteSink } from "../format/byte-sink.ts";
import { hexOf, parsePackId } from "../format/ids.ts";
import { INDEX_ENTRY_BYTES, writeIndexEntry } from "../format/index-file.ts";
import { HEADER_LENGTH_BYTES, type HeaderEntry, type PackHeader, parseHeader, parseHeaderLength } from "../format/pack.ts";
import type { BlobIndex } from "../repository/blob-index.ts";
import { BlobDecoder } from "../repository/blob-reader.ts";
import type { PackReader } from "../repository/pack-mailbox.ts";
import type { PackFindings, PackProblem } from "./maintain-messages.ts";

/** Packs up to this size are read in one piece. restic's are 4 to 128 MiB, 16 by default. */
const wholePackBytes = 36 * 1024 * 1024;
const pieceBytes = 8 * 1024 * 1024;
/** Memory grows in these steps, so that packs of nearly the same size do not each need more. */
const roundingBytes = 4 * 1024 * 1024;

export interface PackVerifierOptions {
  readonly data: BlobIndex;
  readonly trees: BlobIndex;
  readonly packs: PackReader;
  readonly sealer: Sealer;
  /** Whether a failure to read is one of the pack alone; what it denies ends the work. */
  readonly isDamage: (failure: Failure) => boolean;
}

export class PackVerifier {
  readonly #options: PackVerifierOptions;
  readonly #decoder: BlobDecoder;
  readonly #digest = Buffer.alloc(32);
  #memory: Buffer = Buffer.alloc(0);
  readonly #unmatched = new ByteSink();

  constructor(options: PackVerifierOptions) {
    this.#options = options;
    this.#decoder = new BlobDecoder(options.sealer);
  }

  /**
   * Proves one pack.
   *
   * @param pack its number in the index
   * @throws what the pack reader throws and `isDamage` denies
   */
  verify(pack: number, sizeBytes: number): PackFindings {
    const findings: Findings = { blobs: 0, problems: [], hasHeader: false, matched: 0 };
    this.#unmatched.reset();
    try {
      this.#verify(pack, sizeBytes, findings);
    } catch (error) {
      this.#note(findings, "unreadable", error);
    }
    return { ...findings, unmatched: this.#unmatched.copy() };
  }

  #verify(pack: number, sizeBytes: number, findings: Findings): void {
    const packId = this.#options.data.packId(pack);
    const isWhole = sizeBytes <= wholePackBytes;
    if (isWhole) sha256Into(this.#digest, 0, this.#load(packId, 0, sizeBytes));
    else this.#hashInPieces(packId, sizeBytes);
    if (this.#digest.compare(packId) !== 0) {
      const found = hexOf(this.#digest);
      this.#note(
        findings,
        "hash",
        new Failure("NameMismatch", `Pack "${hexOf(packId)}" has the hash "${found}"`, { details: { foundName: found } }),
      );
    }
    const span: Span = (offsetBytes, lengthBytes) =>
      isWhole ? this.#memory.subarray(offsetBytes, offsetBytes + lengthBytes) : this.#load(packId, offsetBytes, lengthBytes);
    let header: PackHeader;
    try {
      header = this.#openHeader(packId, sizeBytes, span);
    } catch (error) {
      this.#note(findings, "header", error);
      return;
    }
    findings.hasHeader = true;
    for (const entry of header.entries()) {
      if (this.#isListed(entry, pack)) findings.matched++;
      else {
        this.#unmatched.reserve(INDEX_ENTRY_BYTES);
        this.#unmatched.length = writeIndexEntry(this.#unmatched.bytes, this.#unmatched.length, entry);
      }
      try {
        this.#decoder.decode(entry.id, span(entry.offsetBytes, entry.sealedBytes), entry.plainBytes);
        findings.blobs++;
      } catch (error) {
        const failure = encodeFailure(this.#expectDamage(error));
        findings.problems.push({ kind: "blob", failure, blobId: hexOf(entry.id), blobType: entry.type });
      }
    }
  }

  #openHeader(packId: Uint8Array, sizeBytes: number, span: Span): PackHeader {
    const file = { id: parsePackId(hexOf(packId)), sizeBytes };
    const tailBytes = Math.min(HEADER_LENGTH_BYTES, sizeBytes);
    const sealedBytes = parseHeaderLength(span(sizeBytes - tailBytes, tailBytes), file);
    return parseHeader(this.#options.sealer.open(span(sizeBytes - tailBytes - sealedBytes, sealedBytes)), file);
  }

  #isListed(entry: HeaderEntry, pack: number): boolean {
    const index = entry.type === "tree" ? this.#options.trees : this.#options.data;
    const number = index.find(entry.id);
    const place = number < 0 ? undefined : index.placeOf(number);
    return (
      place !== undefined &&
      place.pack === pack &&
      place.offsetBytes === entry.offsetBytes &&
      place.sealedBytes === entry.sealedBytes &&
      place.plainBytes === entry.plainBytes
    );
  }

  #note(findings: Findings, kind: PackProblem["kind"], error: unknown): void {
    findings.problems.push({ kind, failure: encodeFailure(this.#expectDamage(error)) });
  }

  #expectDamage(error: unknown): Failure {
    const failure = toFailure(error);
    if (!this.#options.isDamage(failure)) throw error;
    return failure;
  }

  #hashInPieces(packId: Uint8Array, sizeBytes: number): void {
    const hash = createHash("sha256");
    for (let at = 0; at < sizeBytes; at += pieceBytes) hash.update(this.#load(packId, at, Math.min(pieceBytes, sizeBytes - at)));
    this.#digest.set(hash.digest());
  }

  #load(packId: Uint8Array, offsetBytes: number, lengthBytes: number): Uint8Array {
    if (this.#memory.length < lengthBytes) {
      this.#memory = Buffer.alloc(0); // the old memory may go before the new comes
      this.#memory = Buffer.allocUnsafeSlow(Math.ceil(lengthBytes / roundingBytes) * roundingBytes);
    }
    const content = this.#memory.subarray(0, lengthBytes);
    this.#options.packs.read(packId, offsetBytes, content);
    return content;
  }
}

type Span = (offsetBytes: number, lengthBytes: number) => Uint8Array;

interface Findings {
  blobs: number;
  readonly problems: PackProblem[];
  hasHeader: boolean;
  matched: number;
}
