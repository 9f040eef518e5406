/**
 * Forgets snapshots: removes their files, so that nothing refers to their data any more; `prune` then removes the data.
 *
 * Snapshots are grouped, by host and paths as a rule, and the policy decides on each group by itself. A plan is a value that can be shown
 * and refused; running it needs an exclusive lock, which the caller holds from before the snapshots are listed. Running it twice is
 * harmless. Removing a snapshot file is one atomic step of the store: a crash leaves some removed and the others whole.
 */
import { Failure, isFailure } from "@granary/base/errors";
import { mapOrdered } from "@granary/base/map-ordered";
import "../errors.ts";
import type { SnapshotId } from "../format/ids.ts";
import type { Store } from "../store/store.ts";
import { applyPolicy, countRules, describePolicy, isEmptyPolicy, type KeepPolicy, type KeepSubject } from "./keep-policy.ts";

/** What groups are made by. */
export interface GroupBy {
  readonly host: boolean;
  readonly paths: boolean;
  readonly tags: boolean;
}

/** What forgetting looks at in a snapshot. */
export interface ForgetSubject extends KeepSubject {
  readonly id: SnapshotId;
  readonly hostname: string;
  readonly paths: readonly string[];
}

/** Why a snapshot is kept. */
export interface KeepReason<S> {
  readonly snapshot: S;
  /** In restic's words, such as `daily snapshot`. */
  readonly matches: readonly string[];
  /** What each counting rule has left after this snapshot; rules with nothing left, or none, are not there. */
  readonly counters: Readonly<Partial<Record<(typeof countRules)[number], number>>>;
}

/** What is decided of one group; snapshots are in order, newest first. */
export interface ForgetGroup<S> {
  /** What the snapshots of the group have in common; "" and `null` where groups are not made by it. */
  readonly host: string;
  readonly paths: readonly string[] | null;
  readonly tags: readonly string[] | null;
  readonly keep: readonly S[];
  readonly remove: readonly S[];
  /** One for each kept snapshot, in the same order. */
  readonly reasons: readonly KeepReason<S>[];
}

/** What a run removes. */
export interface ForgetPlan<S> {
  /** The policy in words; "" for a plan without one. */
  readonly policy: string;
  /** Ordered by host, paths and tags; empty for a plan without a policy. */
  readonly groups: readonly ForgetGroup<S>[];
  readonly remove: readonly S[];
}

export interface PlanForgetOptions {
  readonly groupBy: GroupBy;
  /** Nanoseconds since 1970; durations count back from the newest snapshot before it. */
  readonly nowNs: bigint;
  /** The machine's time zone, such as `Europe/Vienna`. */
  readonly timeZone: string;
  /** Whether a group may lose all its snapshots. Even then, an empty policy needs `isFiltered`: nobody means a whole repository. */
  readonly allowRemoveAll: boolean;
  /** Whether the snapshots were chosen by host, tag or path. */
  readonly isFiltered: boolean;
}

/** restic's default. */
export const groupByHostAndPaths: GroupBy = { host: true, paths: true, tags: false };

/** Reads what `--group-by` takes: `host`, `paths`, `tags`, with commas between them; "" makes one group. @throws InvalidArgument */
export function parseGroupBy(text: string): GroupBy {
  const names = text.split(",").map((name) => name.trim());
  const known = ["", "host", "hosts", "path", "paths", "tag", "tags"];
  const unknown = names.find((name) => !known.includes(name));
  if (unknown !== undefined) throw new Failure("InvalidArgument", `Cannot group by "${unknown}": host, paths or tags needed`);
  const has = (name: string): boolean => names.includes(name) || names.includes(`${name}s`);
  return { host: has("host"), paths: has("path"), tags: has("tag") };
}

/**
 * Decides which snapshots to forget.
 *
 * @param snapshots in any order; equal times are ordered by id
 * @throws InvalidArgument when the policy is empty, or would remove all snapshots of a group, and that was not allowed
 */
export function planForget<S extends ForgetSubject>(snapshots: Iterable<S>, policy: KeepPolicy, options: PlanForgetOptions): ForgetPlan<S> {
  const isEmpty = isEmptyPolicy(policy);
  if (isEmpty && !options.allowRemoveAll) {
    throw new Failure("InvalidArgument", "Cannot forget snapshots: no policy was given; say what to keep, with --keep-daily 7 for example");
  }
  if (isEmpty && !options.isFiltered) {
    throw new Failure("InvalidArgument", "Cannot forget all snapshots of the repository: choose them by host, tag or path");
  }
  const groups = groupSnapshots(snapshots, options.groupBy).map(({ members, ...key }): ForgetGroup<S> => {
    const decisions = applyPolicy(members, policy, options);
    const kept = decisions.filter(({ reasons }) => reasons.length > 0);
    if (kept.length === 0 && !options.allowRemoveAll) throw lastOfGroup(key, members.length);
    return {
      ...key,
      keep: kept.map(({ snapshot }) => snapshot),
      remove: decisions.filter(({ reasons }) => reasons.length === 0).map(({ snapshot }) => snapshot),
      reasons: kept.map(({ snapshot, reasons, counters }) => ({ snapshot, matches: reasons, counters: nameCounters(counters) })),
    };
  });
  return { policy: describePolicy(policy), groups, remove: groups.flatMap(({ remove }) => remove) };
}

/** The plan that forgets exactly these snapshots, whatever they are. */
export function planForgetOf<S extends ForgetSubject>(snapshots: Iterable<S>): ForgetPlan<S> {
  return { policy: "", groups: [], remove: [...snapshots] };
}

interface Group<S> {
  readonly host: string;
  readonly paths: readonly string[] | null;
  readonly tags: readonly string[] | null;
  readonly members: S[];
}

function groupSnapshots<S extends ForgetSubject>(snapshots: Iterable<S>, by: GroupBy): Group<S>[] {
  const groups = new Map<string, Group<S>>();
  for (const snapshot of snapshots) {
    const key = {
      host: by.host ? snapshot.hostname : "",
      paths: by.paths ? snapshot.paths.toSorted() : null,
      tags: by.tags ? snapshot.tags.toSorted() : null,
    };
    const text = JSON.stringify(key);
    const group = groups.get(text);
    if (group === undefined) groups.set(text, { ...key, members: [snapshot] });
    else group.members.push(snapshot);
  }
  for (const { members } of groups.values()) members.sort(compareNewestFirst);
  return [...groups].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, group]) => group);
}

function compareNewestFirst(a: ForgetSubject, b: ForgetSubject): number {
  if (a.timeNs !== b.timeNs) return a.timeNs > b.timeNs ? -1 : 1;
  return a.id < b.id ? -1 : 1;
}

function nameCounters(counters: readonly number[]): KeepReason<unknown>["counters"] {
  return Object.fromEntries(countRules.map((rule, i) => [rule, counters[i] ?? 0] as const).filter(([, left]) => left !== 0));
}

function lastOfGroup(key: Omit<Group<unknown>, "members">, count: number): Failure {
  const parts: string[] = [];
  if (key.host !== "") parts.push(`host "${key.host}"`);
  if (key.paths !== null) parts.push(`paths "${key.paths.join('", "')}"`);
  if (key.tags !== null) parts.push(`tags "${key.tags.join('", "')}"`);
  const group = parts.length === 0 ? "the repository" : parts.join(", ");
  return new Failure(
    "InvalidArgument",
    `Cannot forget all ${count} snapshots of ${group}: the policy keeps none of them; use --unsafe-allow-remove-all if that is meant`,
  );
}

/** What happens during a run. */
export type ForgetEvent =
  | { readonly kind: "removed"; readonly id: SnapshotId; readonly doneCount: number; readonly totalCount: number }
  | { readonly kind: "failed"; readonly id: SnapshotId; readonly failure: Failure };

export interface RunForgetOptions {
  /** Must not throw. */
  readonly onEvent?: (event: ForgetEvent) => void;
  readonly signal?: AbortSignal;
}

/**
 * Removes the snapshots of a plan. A snapshot that cannot be removed is reported and the others are removed all the same.
 *
 * @returns which were removed and which were not
 * @throws Cancelled; what was removed until then stays removed
 */
export async function runForget(
  store: Store,
  plan: ForgetPlan<ForgetSubject>,
  options: RunForgetOptions = {},
): Promise<{ readonly removed: readonly SnapshotId[]; readonly failed: readonly SnapshotId[] }> {
  const { onEvent, signal } = options;
  const removed: SnapshotId[] = [];
  const failed: SnapshotId[] = [];
  const limits = { limit: store.concurrency, ...(signal === undefined ? {} : { signal }) };
  const results = mapOrdered(plan.remove, limits, async ({ id }, stop) => {
    try {
      await store.remove({ kind: "snapshot", name: id }, stop);
      return { id, failure: undefined };
    } catch (error) {
      if (!isFailure(error) || error.kind === "cancelled" || error.kind === "bug") throw error;
      return { id, failure: error };
    }
  });
  for await (const { id, failure } of results) {
    (failure === undefined ? removed : failed).push(id);
    if (failure === undefined) onEvent?.({ kind: "removed", id, doneCount: removed.length, totalCount: plan.remove.length });
    else onEvent?.({ kind: "failed", id, failure });
  }
  return { removed, failed };
}
