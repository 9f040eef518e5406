/** From a location as users write it to a store. */

import { Failure } from "@granary/base/errors";
import { Secret } from "@granary/base/secret";
import "../errors.ts";
import { openLocalStore } from "./local.ts";
import { type RestStoreOptions, openRestStore, stripCredentials } from "./rest.ts";
import type { Store } from "./store.ts";

/** How stores are opened; each takes what concerns it. */
export interface OpenStoreOptions extends RestStoreOptions {
  /** Where credentials are looked for that neither the location nor `credentials` gives; the environment of this process when absent. */
  readonly env?: Readonly<Record<string, string | undefined>>;
}

/**
 * Opens the store at a location: a folder (`/srv/backup`, `relative/path`, `local:path`) or a REST server (`rest:https://host:8000/path/`).
 * Credentials of a server come from its URL, else from `credentials`, else from GRANARY_REST_USERNAME and GRANARY_REST_PASSWORD,
 * else from restic's variables RESTIC_REST_USERNAME and RESTIC_REST_PASSWORD. Nothing is touched until the store is used.
 *
 * @throws StoreInvalid
 */
export function openStore(location: string, options: OpenStoreOptions = {}): Store {
  if (location.startsWith("rest:")) return openRestStore(location, { ...findCredentials(options.env ?? process.env), ...options });
  const path = location.replace(/^local:/, "");
  if (path === "" || /^[a-z][a-z0-9+.-]+:/i.test(path)) {
    const hint = /^https?:/i.test(path)
      ? `rest:${stripCredentials(path)}`
      : `a folder (for one with a colon in its name, ./${stripCredentials(path)}), or rest:http(s)://host:port/path/`;
    throw new Failure("StoreInvalid", `Cannot open the store "${stripCredentials(location)}": ${hint} is needed`);
  }
  return openLocalStore(path);
}

function findCredentials(env: Readonly<Record<string, string | undefined>>): Pick<RestStoreOptions, "credentials"> {
  for (const prefix of ["GRANARY", "RESTIC"]) {
    const user = env[`${prefix}_REST_USERNAME`];
    const password = env[`${prefix}_REST_PASSWORD`];
    if (user !== undefined && user !== "") return { credentials: { user, password: new Secret(password ?? "") } };
  }
  return {};
}
