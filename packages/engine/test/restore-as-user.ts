/** Restores the newest snapshot of a repository into a folder, as whoever runs it; prints what was reported. Run by a test as another user. */
import { Secret } from "@granary/base/secret";
import { fromUtf8 } from "../src/format/byte-string.ts";
import { loadIndex } from "../src/repository/index-load.ts";
import { openRepository } from "../src/repository/repository.ts";
import { loadSnapshots } from "../src/repository/snapshots.ts";
import { restoreSnapshot } from "../src/restore/restore.ts";
import { openLocalStore } from "../src/store/local.ts";
import { password } from "./workbench.ts";

const [location = "", target = ""] = process.argv.slice(2);
const repository = await openRepository(openLocalStore(location), { password: new Secret(password) });
const snapshot = (await loadSnapshots(repository)).at(-1);
await loadIndex(repository);
const troubles: string[] = [];
const report = await restoreSnapshot(repository, {
  tree: Buffer.from(snapshot?.tree ?? "", "hex"),
  target: fromUtf8(target),
  onTrouble: ({ path, reason }) => troubles.push(`${path} ${reason}`),
});
process.stdout.write(JSON.stringify({ troubles, failed: report.failed }));
