/** The pack files that a store has, beside what index files say of them. */
import type { Store } from "../store/store.ts";
import type { IndexSurvey } from "./index-survey.ts";

export interface UnreferencedPack {
  readonly packId: string;
  readonly sizeBytes: number;
}

export interface PackFiles {
  /** Bytes of a pack in the store; `undefined` when it is not there. @param pack its number in the survey */
  sizeOf(pack: number): number | undefined;
  /** Packs that no index file lists, ordered by id. */
  readonly unreferenced: readonly UnreferencedPack[];
  /** Bytes of all packs that are there and listed. */
  readonly totalBytes: number;
  /** Sees to it that of each blob that is in several packs the first copy is one that can be read, as far as sizes tell. */
  preferPresent(): void;
}

/** Lists the packs of a store. Not before the index files are surveyed, so that what is listed there is seen here. */
export async function surveyPackFiles(store: Store, survey: IndexSurvey, signal?: AbortSignal): Promise<PackFiles> {
  const sizes = new Float64Array(survey.packs.length).fill(-1);
  const unreferenced: UnreferencedPack[] = [];
  let totalBytes = 0;
  for await (const { name, sizeBytes } of store.list("pack", signal)) {
    const pack = survey.findPack(name);
    if (pack === undefined) unreferenced.push({ packId: name, sizeBytes });
    else {
      sizes[pack] = sizeBytes;
      totalBytes += sizeBytes;
    }
  }
  unreferenced.sort((a, b) => (a.packId < b.packId ? -1 : 1));
  const sizeOf = (pack: number): number | undefined => {
    const sizeBytes = sizes[pack] ?? -1;
    return sizeBytes < 0 ? undefined : sizeBytes;
  };
  /** 2: as it should be, 1: of another size, 0: not there. */
  const rank = (pack: number): number => {
    const sizeBytes = sizeOf(pack);
    if (sizeBytes === undefined) return 0;
    const known = survey.packs[pack];
    return known !== undefined && known.fault === "" && known.expectedBytes === sizeBytes ? 2 : 1;
  };
  return {
    sizeOf,
    unreferenced,
    totalBytes,
    preferPresent: () => survey.chooseFirst((first, second) => rank(second.pack) > rank(first.pack)),
  };
}
