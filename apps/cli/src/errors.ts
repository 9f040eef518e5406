import { type CodeEntry, declareCodes } from "@granary/base/errors";

/** Every code of the command line, beside those of the engine. `docs/errors.md` is generated from this table. */
export const cliCodes: Readonly<Record<string, CodeEntry>> = declareCodes({
  RepositoryUnnamed: {
    kind: "invalid",
    guidance: "Name the repository with -r, or in the environment variable GRANARY_REPOSITORY.",
  },
  PasswordMissing: {
    kind: "invalid",
    guidance:
      "Give the password with --password-file, --password-command or GRANARY_PASSWORD, or run the command on a terminal, which asks for it.",
  },
  InputUnreadable: {
    kind: "invalid",
    guidance: "Check that the file named in the message exists and can be read, or that the command runs.",
  },
  SourceCommandFailed: { kind: "invalid", guidance: "No snapshot was made. Run the command by itself to see what is wrong with it." },
  OutputClosed: { kind: "cancelled", guidance: "Whoever read the output has stopped reading." },
  OutputFailed: { kind: "exhausted", guidance: "Free space where the output goes, and run the command again." },
  CopyDiffers: {
    kind: "corrupt",
    guidance: "What was restored is not what was backed up. If nothing changed the folder meanwhile, run `granary repo check --read-data`.",
  },
  CheckFailed: {
    kind: "corrupt",
    guidance:
      "The repository is damaged, as said above. See `granary repo repair --help`, and back up again: what is still on the disk heals.",
  },
});
