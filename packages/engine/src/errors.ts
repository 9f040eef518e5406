import { type CodeEntry, declareCodes } from "@granary/base/errors";

/** Every code the engine throws, with its kind and what the reader can do. `docs/errors.md` is generated from this table. */
export const engineCodes: Readonly<Record<string, CodeEntry>> = declareCodes({
  // the repository as a whole
  RepositoryNotFound: {
    kind: "notFound",
    guidance: "Check the path or URL given with -r; create a new repository with `granary repo init`.",
  },
  RepositoryExists: { kind: "conflict", guidance: "A repository is already there. Use it, or choose another place." },
  RepositoryVersion: { kind: "unsupported", guidance: "The repository was written by a newer program. Update granary." },
  RepositoryLocked: {
    kind: "unavailable",
    guidance:
      "Another process is working on the repository. Wait, or use --retry-lock; if that process is dead, run `granary repo unlock`.",
  },
  LockLost: { kind: "unavailable", guidance: "The lock could not be refreshed in time, so the work was stopped to be safe. Run it again." },
  WrongPassword: {
    kind: "denied",
    guidance: "No key of the repository opens with this password. Check the password or the password file.",
  },
  KeyNotFound: { kind: "notFound", guidance: "List the keys with `granary repo key list`." },
  KeyInUse: { kind: "conflict", guidance: "The key that opened the repository cannot be removed. Open it with another key first." },
  // objects that are not what they should be
  ConfigInvalid: { kind: "corrupt", guidance: "The config file is damaged. Restore it from a copy of the repository." },
  KeyInvalid: { kind: "corrupt", guidance: "The key file is damaged. Use another key, or restore the file from a copy." },
  SealBroken: {
    kind: "corrupt",
    guidance: "The object was changed or damaged after it was written. Run `granary repo check --read-data`.",
  },
  NameMismatch: {
    kind: "corrupt",
    guidance: "The content does not match its name: it is damaged or swapped. Run `granary repo check --read-data`.",
  },
  PackInvalid: { kind: "corrupt", guidance: "The pack is damaged. Run `granary repo check --read-data`, then `granary repo repair`." },
  BlobInvalid: {
    kind: "corrupt",
    guidance: "The blob is damaged. Run `granary repo check --read-data`; a new backup of the same files may heal it.",
  },
  BlobMissing: {
    kind: "corrupt",
    guidance: "The index names no pack with this blob. Run `granary repo check`, then `granary repo repair index`.",
  },
  IndexInvalid: { kind: "corrupt", guidance: "The index file is damaged. Run `granary repo repair index` to rebuild it from the packs." },
  SnapshotInvalid: { kind: "corrupt", guidance: "The snapshot file is damaged. Other snapshots are not affected." },
  TreeInvalid: { kind: "corrupt", guidance: "A directory of the snapshot is damaged. Run `granary repo check`." },
  LockInvalid: {
    kind: "corrupt",
    guidance: "The lock file is damaged. If nothing uses the repository, run `granary repo unlock --remove-all`.",
  },
  // the store
  StoreFileNotFound: { kind: "notFound", guidance: "The object is not in the store. Run `granary repo check`." },
  StoreFileExists: { kind: "conflict", guidance: "An object of that name, with other content, is already in the store." },
  StoreUnavailable: {
    kind: "unavailable",
    guidance: "The store did not answer. Check the network and the server, and run the command again.",
  },
  StoreDenied: { kind: "denied", guidance: "The store refused. Check its credentials and permissions." },
  StoreFull: {
    kind: "exhausted",
    guidance: "The store is full. Free space there, and run the command again; nothing that was saved is lost.",
  },
  StoreTruncated: { kind: "corrupt", guidance: "The object is shorter than it should be. Run `granary repo check --read-data`." },
  StoreInvalid: { kind: "invalid", guidance: "Check the repository's location: a path, or rest:http(s)://host:port/path/." },
  // backup
  SourceUnreadable: { kind: "invalid", guidance: "Check that the path exists and can be read." },
  SourceShrunken: {
    kind: "conflict",
    guidance: "Much less was found than in the parent snapshot. If a disk is not mounted, mount it; if this is right, use --allow-shrink.",
  },
  // restore and the reading verbs
  SnapshotNotFound: { kind: "notFound", guidance: "List the snapshots with `granary repo snapshots`." },
  SnapshotAmbiguous: { kind: "invalid", guidance: "Give more characters of the snapshot's id." },
  PathNotFound: { kind: "notFound", guidance: "List the snapshot with `granary repo ls`." },
  TargetInvalid: { kind: "invalid", guidance: "Choose a target folder that exists or can be created." },
  TargetFull: {
    kind: "exhausted",
    guidance: "The target's file system is full. Free space and run the same restore again; it goes on where it stopped.",
  },
  RestoreIncomplete: {
    kind: "corrupt",
    guidance: "Some files could not be restored; each is named above. Run `granary repo check --read-data`.",
  },
  RestoreTooLarge: { kind: "exhausted", guidance: "Restore the snapshot in parts, with --include." },
  // maintenance
  PruneUnsafe: { kind: "corrupt", guidance: "Blobs that snapshots need are missing, so nothing was removed. Run `granary repo check`." },
  // this machine
  PlatformUnsupported: { kind: "unsupported", guidance: "Backing up and restoring folders needs Linux on x64 or arm64." },
});
