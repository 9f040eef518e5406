import type { Command } from "commander";
import { Failure } from "@granary/base/errors";
import { createRepository } from "@granary/engine";
import { addExamples } from "../command-help.ts";
import { addFromOptions, addGlobalOptions, readFromAddress } from "../global-options.ts";
import { getPassword } from "../password.ts";
import { type Run, runWork } from "../run.ts";
import { openRunStore, openSession, prepareNothing } from "./session.ts";

interface InitFlags {
  readonly copyChunkerParams?: boolean;
  readonly repositoryVersion?: string;
}

/** `granary repo init` */
export function configureInit(command: Command): void {
  command
    .description("Creates a repository at the place that -r names. Asks for the password, unless a flag or the environment gives it.")
    .option("--copy-chunker-params", "let restic clients cut files as in the repository of --from-repo, so that copies are stored once")
    .option("--repository-version <version>", "2, latest or stable, which all mean version 2");
  addFromOptions(command);
  addGlobalOptions(command);
  addExamples(command, [
    ["repo init -r /srv/backup", "creates a repository in a folder; asks for a new password, twice"],
    ["repo init -r rest:https://backup.example:8000/me/ --password-file ~/.granary-password", "creates one on a REST server"],
  ]);
  command.action((flags: InitFlags) => runWork(command, (run) => initRepository(run, flags)));
}

async function initRepository(run: Run, flags: InitFlags): Promise<void> {
  const wanted = flags.repositoryVersion ?? "2";
  if (!["2", "latest", "stable"].includes(wanted)) {
    throw new Failure("InvalidArgument", `Cannot create a repository of version "${wanted}": only version 2 is written`);
  }
  const polynomial = flags.copyChunkerParams === true ? await readPolynomial(run) : undefined;
  const store = openRunStore(run);
  try {
    const { signal, output } = run;
    const password = await getPassword(run.options.repository.password, {
      what: `password for new repository ${store.location}`,
      isNew: true,
      signal,
    });
    const { config } = await createRepository(store, {
      password,
      signal,
      ...(polynomial === undefined ? {} : { chunkerPolynomial: polynomial }),
    });
    if (output.isJson) output.printJson({ message_type: "initialized", id: config.id, repository: store.location });
    output.say(`created repository ${config.id.slice(0, 10)} at ${store.location}`);
    output.say("\nKeep the password: without it nothing can be restored, and nobody can replace it.");
  } finally {
    await store.close();
  }
}

async function readPolynomial(run: Run): Promise<bigint> {
  const address = readFromAddress(run.command, process.env);
  if (address.location === undefined) throw new Failure("RepositoryUnnamed", "Cannot copy chunker parameters: --from-repo is needed");
  await using from = await openSession(run, { lock: "none", address, what: "password for source repository", prepare: prepareNothing });
  return from.repository.config.chunkerPolynomial;
}
