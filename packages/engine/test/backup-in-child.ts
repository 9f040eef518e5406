/**
 * For tests: backs a folder up in a process of its own, which kills itself at one of its saves, or lives until it is killed or done.
 * `node backup-in-child.ts LOCATION FOLDER KIND N before|midway|after`; without KIND it prints `saved` for each pack that is durable, and at the
 * end the snapshot's id and the most memory that the process took.
 */
import { fromUtf8 } from "../src/format/byte-string.ts";
import { openLocalStore } from "../src/store/local.ts";
import type { FileRef, Store } from "../src/store/store.ts";
import { backUp, wrapStore } from "./workbench.ts";

interface Death {
  readonly kind: string;
  readonly nth: number;
  readonly mode: string;
}

/** A store that ends the process at a save. Packs are written by the store itself, and read by the workers straight from their files. */
function dieAt(inner: Store, death: Death): Store {
  let count = 0;
  const die = (): never => {
    process.kill(process.pid, "SIGKILL");
    for (;;); // the signal is on its way; nothing more may be done
  };
  const save = async (ref: FileRef, data: Uint8Array, signal?: AbortSignal): Promise<void> => {
    const isLast = ref.kind === death.kind && ++count === death.nth;
    if (isLast && death.mode === "before") die();
    const saving = inner.save(ref, data, signal);
    if (isLast && death.mode === "midway") setImmediate(die);
    await saving;
    if (ref.kind === "pack" && death.kind === "") process.stdout.write("saved\n");
    if (isLast && death.mode === "after") die();
  };
  return wrapStore(inner, { save });
}

const [location = "", folder = "", kind = "", nth = "0", mode = ""] = process.argv.slice(2);
const store = dieAt(openLocalStore(location), { kind, nth: Number(nth), mode });
const { snapshotId } = await backUp(store, { targets: [fromUtf8(folder)], packBytes: 1 << 19, allowShrink: true });
process.stdout.write(`${snapshotId}\npeak ${process.resourceUsage().maxRSS} KiB\n`);
