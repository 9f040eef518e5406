/**
 * For tests: prunes a repository in a process of its own, which kills itself at the n-th change of the store, before it, in the middle of it,
 * or after it. `node prune-in-child.ts LOCATION N before|midway|after`; prints how many changes there were when it lives to the end.
 */
import { Secret } from "@granary/base/secret";
import { lockRepository } from "../repository/lock.ts";
import { openRepository } from "../repository/repository.ts";
import { openLocalStore } from "../store/local.ts";
import type { Store } from "../store/store.ts";
import { planPrune, runPrune } from "./prune.ts";

/** A store that ends the process. Everything but saving and removing goes through as it is. */
function dieAt(inner: Store, nth: number, mode: string): { readonly store: Store; count(): number } {
  let changes = 0;
  const die = (): never => {
    process.kill(process.pid, "SIGKILL");
    for (;;); // the signal is on its way; nothing more may be done
  };
  const change = async (act: () => Promise<void>): Promise<void> => {
    const isLast = ++changes === nth;
    if (isLast && mode === "before") die();
    const acting = act();
    if (isLast && mode === "midway") setImmediate(die);
    await acting;
    if (isLast && mode === "after") die();
  };
  const store: Store = {
    location: inner.location,
    concurrency: inner.concurrency,
    settleMs: inner.settleMs,
    create: () => inner.create(),
    save: (ref, bytes, signal) => change(() => inner.save(ref, bytes, signal)),
    load: (ref, span, signal) => inner.load(ref, span, signal),
    stat: (ref, signal) => inner.stat(ref, signal),
    list: (kind, signal) => inner.list(kind, signal),
    remove: (ref, signal) => change(() => inner.remove(ref, signal)),
    pathOf: (ref) => inner.pathOf?.(ref) ?? "",
    close: () => inner.close(),
  };
  return { store, count: () => changes };
}

const [location = "", nth = "0", mode = "after", password = ""] = process.argv.slice(2);
const dying = dieAt(openLocalStore(location), Number(nth), mode);
const repository = await openRepository(dying.store, { password: new Secret(password) });
{
  await using lock = await lockRepository(repository, { exclusive: true });
  const plan = await planPrune(repository, {
    workers: 1,
    maxUnused: { kind: "size", sizeBytes: 0 },
    packBytes: 1 << 20,
    signal: lock.signal,
  });
  await runPrune(repository, plan, { workers: 1, signal: lock.signal });
}
process.stdout.write(String(dying.count()));
