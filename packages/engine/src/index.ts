/**
 * The engine's public surface: repositories in restic's format, and the verbs that work on them.
 *
 * A program opens a store, then the repository in it, locks it, lists snapshots, loads the index (in this order), and runs a verb.
 * Paths and names are `ByteString`s: one character for each raw byte.
 */

export { engineCodes } from "./errors.ts";

// values of the format
export { type ByteString, findUtf8, fromBytes, fromUtf8, isAscii, toBytes, toUtf8OrEscaped } from "./format/byte-string.ts";
export type { Config } from "./format/config.ts";
export {
  type BlobId,
  blobIdOf,
  bytesOfId,
  hexOf,
  type IndexId,
  isId,
  type KeyId,
  type LockId,
  type PackId,
  parseBlobId,
  parseIndexId,
  parseKeyId,
  parseLockId,
  parsePackId,
  parseSnapshotId,
  type SnapshotId,
} from "./format/ids.ts";
export type { NodeType } from "./format/mode.ts";
export { encodeNode, type ExtendedAttribute, type TreeNode, type Uint64 } from "./format/node.ts";
export { encodeSnapshot, type Snapshot, type SnapshotSummary } from "./format/snapshot.ts";
export { findTimeNs, formatTimeNs, joinTimeNs, parseTimeNs } from "./format/time.ts";

// this machine's files, where Node's own functions do not reach
export { listAttributes, readAttribute } from "./native/libc.ts";

// which files to take
export {
  compileExcluder,
  decodeTextFile,
  type Excluder,
  type ExcludeRules,
  noExcludes,
  parseExcludeFile,
  parseFilesFrom,
  parseFilesFromRaw,
  parseFilesFromVerbatim,
  parsePresenceRule,
  type PresenceRule,
} from "./selection/exclude.ts";
export { compilePatterns, type PatternList } from "./selection/pattern.ts";

// where repositories live
export { openLocalStore } from "./store/local.ts";
export { openStore, type OpenStoreOptions } from "./store/open-store.ts";
export { openRestStore, type RestStoreOptions } from "./store/rest.ts";
export type { FileEntry, FileKind, FileRef, Span, Store } from "./store/store.ts";

// repositories
export { type BlobSource, createTreeLoader, loadBlob, type TreeLoader } from "./repository/blob-load.ts";
export { BlobIndex, type BlobPlace } from "./repository/blob-index.ts";
export { type FileAccess, type IdOfKind, listByPrefix, type ListedFile, listFiles, loadFile, type NamedKind } from "./repository/files.ts";
export { type AllIndexesVisitor, type IndexProgress, loadIndex, type LoadIndexOptions, scanAllIndexes } from "./repository/index-load.ts";
export { addKey, changePassword, type CreateKeyOptions, type KeyInfo, listKeys, removeKey } from "./repository/keys.ts";
export { lockAndPrepare, lockRepository, type LockOptions, type RepositoryLock } from "./repository/lock.ts";
export { listLocks, removeAllLocks, removeStaleLocks, type StoredLock } from "./repository/lock-list.ts";
export {
  createRepository,
  type CreateRepositoryOptions,
  openRepository,
  type OpenRepositoryOptions,
  type Repository,
} from "./repository/repository.ts";
export { endWarmWorkers } from "./repository/worker-pool.ts";
export {
  findParent,
  findSnapshot,
  type FoundSnapshot,
  loadSnapshot,
  loadSnapshots,
  matchesFilter,
  type ParentQuery,
  type SnapshotFilter,
  type StoredSnapshot,
} from "./repository/snapshots.ts";

// verbs: back up
export { type BackupOptions, type BackupReport, type CutChoice, runBackup } from "./backup/backup.ts";
export { prepareBackup } from "./backup/crew.ts";
export type { BackupCounts } from "./backup/counters.ts";
export type { BackupTrouble } from "./backup/messages.ts";

// verbs: restore
export { prepareRestore } from "./restore/crew.ts";
export type { OverwriteMode, RestoreTrouble } from "./restore/messages.ts";
export {
  type PlannedEntry,
  planRestore,
  type RestoreOptions,
  type RestorePlan,
  type RestoreProgress,
  type RestoreReport,
  type RestoreSummary,
  restoreSnapshot,
  runRestore,
} from "./restore/restore.ts";
export { type RestoreSelection, selectAll } from "./restore/selection.ts";

// verbs: read
export { diffTrees, type DiffChange, type DiffCounts, type DiffEvent, type DiffOptions, type DiffStatistics } from "./maintain/diff.ts";
export { type ArchiveFormat, type DumpEvent, type DumpOptions, type DumpSubject, type FoundDump, openDump } from "./maintain/dump.ts";
export { findEntries, type FindEvent, type FindSubject, type NameQuery, type ObjectQuery } from "./maintain/find.ts";
export { formatGoMode, type ListOptions, listSnapshot } from "./maintain/ls.ts";
export { countStats, type Stats, type StatsMode, statsModes, type StatsOptions } from "./maintain/stats.ts";
export { findEntry, type TreeEntry, walkTree, type WalkOptions } from "./maintain/tree-walk.ts";

// verbs: keep in order
export { checkRepository, type CheckOptions } from "./maintain/check.ts";
export type { CheckCounts, CheckError, CheckEvent, CheckLevel, CheckNote, CheckReport } from "./maintain/check-report.ts";
export { type CalendarDuration, parseDuration } from "./maintain/calendar-duration.ts";
export {
  type ForgetEvent,
  type ForgetGroup,
  type ForgetPlan,
  type ForgetSubject,
  type GroupBy,
  groupByHostAndPaths,
  parseGroupBy,
  planForget,
  planForgetOf,
  type PlanForgetOptions,
  runForget,
} from "./maintain/forget.ts";
export {
  countRules,
  describePolicy,
  emptyPolicy,
  formatTags,
  isEmptyPolicy,
  type KeepPolicy,
  parseKeepCount,
} from "./maintain/keep-policy.ts";
export { changeTags, type TagChange, type TagEvent, type TagOptions } from "./maintain/tag.ts";
export { copySnapshots, type CopyEvent, type CopyOptions, type CopyReport } from "./maintain/copy.ts";
export { parseReadDataSubset, type ReadDataSelection } from "./maintain/read-data-selection.ts";
export {
  planPrune,
  type PlanPruneOptions,
  type PruneEvent,
  type PrunePlan,
  type PruneReport,
  type PruneSummary,
  runPrune,
} from "./maintain/prune.ts";
export { defaultMaxUnused, type MaxUnused, parseMaxUnused } from "./maintain/prune-plan.ts";

// verbs: repair
export {
  type DroppedPack,
  type IndexRepairEvent,
  type IndexRepairPlan,
  planIndexRepair,
  type PlanIndexOptions,
  type ReindexedPack,
  runIndexRepair,
  type RunIndexRepairOptions,
} from "./maintain/rebuild-index.ts";
export {
  type LostBlob,
  type PackRepair,
  type PackRepairPlan,
  type PackRepairReport,
  planPackRepair,
  type PlanPacksOptions,
  runPackRepair,
  type RunPacksOptions,
} from "./maintain/repair-packs.ts";
export {
  planSnapshotRepair,
  type PlanSnapshotsOptions,
  runSnapshotRepair,
  type RunSnapshotsOptions,
  type SnapshotRepair,
  type SnapshotRepairPlan,
  type SnapshotRepairReport,
} from "./maintain/repair-snapshots.ts";
export type { SetAsideOptions } from "./maintain/set-aside.ts";
export type { RepairedEntry } from "./maintain/tree-rewriter.ts";
