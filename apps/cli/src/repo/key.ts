import { type Command } from "commander";
import { Failure } from "@granary/base/errors";
import { addKey, changePassword, formatTimeNs, type KeyId, listByPrefix, listKeys, removeKey } from "@granary/engine";
import { addExamples } from "../command-help.ts";
import { formatLocalTime } from "../format-amount.ts";
import { renderTable } from "../format-table.ts";
import { addGlobalOptions } from "../global-options.ts";
import { type Run, runWork } from "../run.ts";
import { getNewPassword, openSession, prepareNothing, type Session } from "./session.ts";
import { shortId } from "./snapshot-json.ts";

interface NewKeyFlags {
  readonly newPasswordFile?: string;
  readonly user?: string;
  readonly host?: string;
}

/** `granary repo key` with its own commands. */
export function configureKey(command: Command): void {
  command.description("Manages the keys of a repository: each is a password that opens it.");
  const list = command
    .command("list")
    .summary("List the keys")
    .description("Lists the keys; a star marks the one that opened the repository.");
  addExamples(list, [["repo key list --json", "lists them for a program to read"]]);
  list.action(() => runWork(list, listAll));

  const add = command.command("add").summary("Add a key").description("Adds a key, with a password of its own.");
  addNewKeyOptions(add);
  addExamples(add, [["repo key add --new-password-file ~/second-password", "adds a second password"]]);
  add.action((flags: NewKeyFlags) => runWork(add, (run) => addOne(run, flags)));

  const remove = command.command("remove").summary("Remove a key").description("Removes a key; not the one that opened the repository.");
  remove.argument("<id>", "the first characters of its id");
  addExamples(remove, [["repo key remove eb78040b", "removes that key: its password opens the repository no more"]]);
  remove.action((id: string) => runWork(remove, (run) => removeOne(run, id)));

  const passwd = command
    .command("passwd")
    .summary("Change the password")
    .description("Replaces the key that opened the repository by one with a new password.");
  addNewKeyOptions(passwd);
  addExamples(passwd, [["repo key passwd", "asks for the old password, and twice for the new one"]]);
  passwd.action((flags: NewKeyFlags) => runWork(passwd, (run) => changeOne(run, flags)));

  for (const child of command.commands) addGlobalOptions(child);
  addGlobalOptions(command);
  command.configureHelp({ ...command.configureHelp(), visibleOptions: () => [] });
  addExamples(command, [["repo key list", "lists the keys of the repository"]]);
}

function addNewKeyOptions(command: Command): void {
  command
    .option("--new-password-file <file>", "file to read the new password from")
    .option("--user <name>", "the user that the key is said to be for")
    .option("--host <name>", "the machine that the key is said to be for");
}

async function listAll(run: Run): Promise<void> {
  const { output } = run;
  await using session = await openSession(run, { lock: "shared", prepare: prepareNothing });
  const keys = await listKeys(session.repository, { onDamagedKey: (failure) => run.warn(failure.message), signal: session.signal });
  if (output.isJson) {
    output.printJson(
      keys.map(({ id, isCurrent, username, hostname, createdNs }) => ({
        current: isCurrent,
        id: shortId(id),
        full_id: id,
        userName: username,
        hostName: hostname,
        created: formatTimeNs(createdNs),
      })),
    );
    return;
  }
  const rows = keys.map(({ id, isCurrent, username, hostname, createdNs }) => [
    [`${isCurrent ? "*" : " "}${shortId(id)}`],
    [username],
    [hostname],
    [formatLocalTime(createdNs)],
  ]);
  for (const line of renderTable([" ID", "User", "Host", "Created"], rows)) output.print(line);
}

async function addOne(run: Run, flags: NewKeyFlags): Promise<void> {
  await using session = await openSession(run, { lock: "shared", prepare: prepareNothing });
  const password = await getNewPassword(run, { file: flags.newPasswordFile }, "new password");
  sayKey(run, await addKey(session.repository, password, describeOwner(session, flags)), "added");
}

async function changeOne(run: Run, flags: NewKeyFlags): Promise<void> {
  await using session = await openSession(run, { lock: "exclusive", prepare: prepareNothing });
  const password = await getNewPassword(run, { file: flags.newPasswordFile }, "new password");
  const { keyId } = await changePassword(session.repository, password, describeOwner(session, flags));
  sayKey(run, keyId, "changed");
}

async function removeOne(run: Run, prefix: string): Promise<void> {
  await using session = await openSession(run, { lock: "exclusive", prepare: prepareNothing });
  const { repository, signal } = session;
  const [id, ...more] = await listByPrefix(repository.store, { kind: "key", prefix }, signal);
  if (id === undefined) throw new Failure("KeyNotFound", `Cannot remove key "${prefix}": no id begins so`);
  if (more.length > 0) throw new Failure("InvalidArgument", `Cannot remove key "${prefix}": ${more.length + 1} ids begin so`);
  await removeKey(repository, id, signal);
  sayKey(run, id, "removed");
}

function describeOwner({ signal }: Session, flags: NewKeyFlags): { username?: string; hostname?: string; signal: AbortSignal } {
  return {
    ...(flags.user === undefined ? {} : { username: flags.user }),
    ...(flags.host === undefined ? {} : { hostname: flags.host }),
    signal,
  };
}

function sayKey(run: Run, id: KeyId, what: "added" | "changed" | "removed"): void {
  if (run.output.isJson) run.output.printJson({ message_type: `key_${what}`, id });
  run.output.say(what === "changed" ? `password changed; the new key is ${shortId(id)}` : `key ${shortId(id)} ${what}`);
}
