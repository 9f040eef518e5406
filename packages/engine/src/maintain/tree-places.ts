/** Says where trees that a walk came upon lie: in which snapshot, at which path. For messages, so it may take its time. */
import { isFailure } from "@granary/base/errors";
import "../errors.ts";
import type { ByteString } from "../format/byte-string.ts";
import { createTreeLoader, type TreeLoader } from "../repository/blob-load.ts";
import type { FileAccess } from "../repository/files.ts";
import type { IndexSurvey } from "./index-survey.ts";
import type { SharedWalk } from "./shared-walk.ts";
import { scanReferences } from "./tree-references.ts";

/** Where a tree was first met. */
export interface TreePlace {
  /** The number that the walk's root was given. */
  readonly snapshot: number;
  /** Of the directory, raw bytes: "" for the root, `/home/alice`. A part that cannot be found out is `?`. */
  readonly path: ByteString;
}

export class TreePlaces {
  readonly #survey: IndexSurvey;
  readonly #walk: SharedWalk;
  readonly #load: TreeLoader;
  readonly #known = new Map<number, TreePlace>();

  constructor(access: FileAccess, survey: IndexSurvey, walk: SharedWalk) {
    this.#survey = survey;
    this.#walk = walk;
    this.#load = createTreeLoader({ store: access.store, sealer: access.sealer, index: survey.trees });
  }

  /** @param tree its entry @throws StoreUnavailable; Cancelled */
  async find(tree: number, signal?: AbortSignal): Promise<TreePlace> {
    const chain: number[] = [];
    let place: TreePlace | undefined;
    for (let at = tree; place === undefined; at = this.#walk.parentOf(at)) {
      if (at < 0) place = { snapshot: -1 - at, path: "" };
      else {
        place = this.#known.get(at);
        if (place === undefined) chain.push(at);
      }
    }
    for (const at of chain.reverse()) {
      const parent = this.#walk.parentOf(at);
      if (parent >= 0) place = { snapshot: place.snapshot, path: `${place.path}/${await this.#findName(parent, at, signal)}` };
      this.#known.set(at, place);
    }
    return place;
  }

  async #findName(parent: number, tree: number, signal: AbortSignal | undefined): Promise<ByteString> {
    let found: ByteString = "?";
    const wanted = this.#survey.trees.idOf(tree);
    try {
      let name: ByteString = "";
      scanReferences(await this.#load(this.#survey.trees.idOf(parent), signal), {
        entry: (entryName) => {
          name = entryName;
        },
        data: () => {},
        tree: (id) => {
          if (found === "?" && Buffer.compare(id, wanted) === 0) found = name;
        },
        problem: () => {},
      });
    } catch (error) {
      if (!isFailure(error) || (error.kind !== "corrupt" && error.kind !== "notFound")) throw error;
    }
    return found;
  }
}
