// Which names of the credential store people and SecretRefs may use.

/** Whether the name is one of the core's own: auth profiles keep their tokens in `auth/…`, all else in `auth.state`. */
export function isReserved(name: string): boolean {
  return name === "auth.state" || name.startsWith("auth/");
}

/** Whether the store takes it, as `CREDENTIAL_NAME` of the core says. */
export function isName(name: string): boolean {
  return /^[A-Za-z0-9][A-Za-z0-9._/-]{0,127}$/.test(name) && !name.includes("..") && !name.includes("//");
}
