/** Judges what reading whole packs showed: turns it into errors, and compares headers with the index. */
import { isFailure } from "@granary/base/errors";
import "../errors.ts";
import { hexOf, ID_BYTES } from "../format/ids.ts";
import { INDEX_ENTRY_BYTES } from "../format/index-file.ts";
import { readUint32 } from "../format/pack.ts";
import type { BlobPlace } from "../repository/blob-index.ts";
import { BlobDecoder } from "../repository/blob-reader.ts";
import type { FileAccess } from "../repository/files.ts";
import type { CheckFinding } from "./check-report.ts";
import type { BlobNumber, IndexSurvey } from "./index-survey.ts";
import type { PackFindings } from "./maintain-messages.ts";

export class ContentCheck {
  packs = 0;
  bytes = 0;
  /** Blobs that were proved. */
  blobs = 0;
  readonly #survey: IndexSurvey;
  readonly #add: (finding: CheckFinding) => void;
  /** Packs whose header cannot be read, so that their blobs must be looked for where the index says they are. */
  readonly #headless = new Set<number>();

  constructor(survey: IndexSurvey, add: (finding: CheckFinding) => void) {
    this.#survey = survey;
    this.#add = add;
  }

  /** Takes in what was found of a pack. */
  take(pack: number, sizeBytes: number, findings: PackFindings): void {
    this.packs++;
    this.bytes += sizeBytes;
    this.blobs += findings.blobs;
    const packId = this.#survey.packIdOf(pack);
    for (const { kind, failure, blobId, blobType } of findings.problems) {
      if (kind === "blob") {
        const message = `${failure.message} (pack "${packId}")`;
        this.#add({ kind: "blobDamaged", packId, blobId: blobId ?? "", blobType: blobType ?? "data", message });
      } else {
        const kinds = { unreadable: "packUnreadable", hash: "packHash", header: "packHeader" } as const;
        this.#add({ kind: kinds[kind], packId, message: failure.message });
        if (kind === "header") this.#headless.add(pack);
      }
    }
    if (findings.hasHeader) this.#compare(pack, packId, findings);
  }

  #compare(pack: number, packId: string, { matched, unmatched }: PackFindings): void {
    const listed = this.#survey.packs[pack]?.blobs ?? 0;
    let found = matched;
    let stranger = "";
    for (let at = 0; at < unmatched.length; at += INDEX_ENTRY_BYTES) {
      const place = readPlace(unmatched, at, pack);
      if (this.#hasCopy(unmatched.subarray(at, at + ID_BYTES), place)) found++;
      else if (stranger === "") stranger = `${place.isTree ? "tree" : "data"} blob "${hexOf(unmatched, at)}" at byte ${place.offsetBytes}`;
    }
    if (stranger !== "") {
      this.#add({
        kind: "packListing",
        packId,
        message: `The index and the header of pack "${packId}" differ: the header has ${stranger}, the index has not`,
      });
    } else if (found !== listed) {
      this.#add({
        kind: "packListing",
        packId,
        message: `The index and the header of pack "${packId}" differ: ${listed} and ${found} blobs`,
      });
    }
  }

  #hasCopy(id: Uint8Array, place: BlobPlace): boolean {
    const index = place.isTree ? this.#survey.trees : this.#survey.data;
    const entry = index.find(id);
    const isIt = (other: BlobPlace): boolean =>
      other.pack === place.pack &&
      other.offsetBytes === place.offsetBytes &&
      other.sealedBytes === place.sealedBytes &&
      other.plainBytes === place.plainBytes;
    return entry >= 0 && this.#survey.findCopies(entry * 2 + (place.isTree ? 1 : 0)).some((copy) => isIt(copy.place));
  }

  /** Looks for the blobs of packs without a readable header. @throws StoreDenied, StoreUnavailable; Cancelled */
  async finish(access: FileAccess, signal?: AbortSignal): Promise<void> {
    if (this.#headless.size === 0) return;
    const listed: { readonly blob: BlobNumber; readonly place: BlobPlace }[] = [];
    this.#survey.forEachPlace((blob, place) => void (this.#headless.has(place.pack) && listed.push({ blob, place })));
    const decoder = new BlobDecoder(access.sealer);
    for (const { blob, place } of listed) {
      const id = this.#survey.idOf(blob);
      const packId = this.#survey.packIdOf(place.pack);
      try {
        const span = { offsetBytes: place.offsetBytes, lengthBytes: place.sealedBytes };
        decoder.decode(id, await access.store.load({ kind: "pack", name: packId }, span, signal), place.plainBytes);
        this.blobs++;
      } catch (error) {
        if (!isFailure(error) || (error.kind !== "corrupt" && error.kind !== "notFound")) throw error;
        this.#add({
          kind: "blobDamaged",
          packId,
          blobId: hexOf(id),
          blobType: place.isTree ? "tree" : "data",
          message: `${error.message} (pack "${packId}")`,
        });
      }
    }
  }
}

/** Reads a packed index entry (format/index-file.ts). */
function readPlace(entries: Uint8Array, at: number, pack: number): BlobPlace {
  const fieldsAt = at + ID_BYTES;
  return {
    pack,
    offsetBytes: readUint32(entries, fieldsAt),
    sealedBytes: readUint32(entries, fieldsAt + 4),
    plainBytes: readUint32(entries, fieldsAt + 8),
    isTree: entries[fieldsAt + 12] === 1,
  };
}
