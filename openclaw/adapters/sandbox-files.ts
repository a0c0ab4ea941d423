// OpenClaw's file bridge over `SandboxFs`: its file tools work in this process, and start none.
import { constants, homedir } from "node:os";
import { isAbsolute, join, posix, relative, resolve, sep } from "node:path";
import type { SandboxFs } from "../../index.js";

/** A folder of this machine, and where the sandbox sees it. */
export interface Mount {
  hostPath: string;
  containerPath: string;
  readOnly: boolean;
}

interface At {
  filePath: string;
  cwd?: string;
  signal?: AbortSignal;
}
interface Change extends At {
  /** What `resolvePinnedMutationTarget` gave: from then on no link is followed. */
  pinnedPath?: string;
}
interface Write extends Change {
  data: Buffer | string;
  encoding?: BufferEncoding;
  mkdir?: boolean;
}
interface Copy {
  sourcePath: string;
  destinationPath: string;
  cwd?: string;
  mkdir?: boolean;
  pinnedPath?: string;
  signal?: AbortSignal;
}
type Action = "write" | "create" | "mkdir" | "remove" | "copy-destination";

/** By which OpenClaw knows that two paths are one file. */
const IDENTITY: unique symbol = Symbol.for("openclaw.sandboxFileIdentity") as never;

/** The bridge. `workdir` is where the workspace, the first mount, is in the sandbox. */
export class FileBridge {
  readonly pathMappings: readonly { hostRoot: string; containerRoot: string }[];
  readonly #files: SandboxFs;
  readonly #workdir: string;

  constructor(files: SandboxFs, workdir: string, mounts: readonly Mount[]) {
    this.#files = files;
    this.#workdir = workdir;
    this.pathMappings = mounts.map(({ hostPath, containerPath }) => ({
      hostRoot: resolve(hostPath),
      containerRoot: containerPath,
    }));
  }

  /** By the names alone; where a path really leads is decided when it is opened. */
  resolvePath({ filePath, cwd }: At): { hostPath: string; relativePath: string; containerPath: string } {
    const containerPath = this.#inSandbox(filePath, cwd);
    const hostPath = this.#onHost(containerPath);
    if (hostPath === undefined) {
      const roots = this.pathMappings.map(({ containerRoot }) => containerRoot).join(", ");
      throw new Error(
        `Path escapes sandbox root: ${filePath}. Use a path under ${this.#workdir}/ (mounted: ${roots}).`,
      );
    }
    const inner = posix.relative(this.#workdir, containerPath);
    return { hostPath, containerPath, relativePath: leavesRoot(inner) ? containerPath : inner };
  }

  async resolvePinnedMutationTarget(
    request: At & { action: Action },
  ): Promise<{ policyPath: string; pinnedPath: string }> {
    const { containerPath } = this.resolvePath(request);
    const path = await coded(async () => {
      if (request.action === "mkdir") return this.#files.resolvePath(containerPath);
      const parent = await this.#files.resolvePath(posix.dirname(containerPath));
      return posix.join(parent, posix.basename(containerPath));
    });
    return { policyPath: path, pinnedPath: path };
  }

  async readDirectory(request: At): Promise<{ name: string; isDirectory: boolean }[]> {
    const { containerPath } = this.resolvePath(request);
    return coded(() => this.#files.readDirectory(containerPath));
  }

  async readFile(request: At & { maxBytes?: number }): Promise<Buffer> {
    return (await this.#read(request)).data;
  }

  async readFileWithSource(
    request: At & { maxBytes?: number },
  ): Promise<{ data: Buffer; canonicalPath: string; workspaceRelativePath?: string }> {
    const { data, path } = await this.#read(request);
    const inner = posix.relative(this.#workdir, path);
    return { data, canonicalPath: path, ...(leavesRoot(inner) ? {} : { workspaceRelativePath: inner }) };
  }

  async writeFile(request: Write): Promise<void> {
    const { path, options } = this.#change(request, request.mkdir);
    await coded(() => this.#files.writeFile(path, bytesOf(request), options));
  }

  async createFileExclusive(request: Write): Promise<"created" | "exists"> {
    const { path, options } = this.#change(request, request.mkdir);
    const created = await coded(() => this.#files.createFile(path, bytesOf(request), options));
    return created ? "created" : "exists";
  }

  async copyFile({ sourcePath, destinationPath, cwd, ...rest }: Copy): Promise<void> {
    const at = cwd === undefined ? {} : { cwd };
    const from = this.resolvePath({ filePath: sourcePath, ...at }).containerPath;
    const { path, options } = this.#change({ filePath: destinationPath, ...at, ...rest }, rest.mkdir);
    await coded(() => this.#files.copyFile(from, path, options));
  }

  async mkdirp(request: Change): Promise<void> {
    const { containerPath } = this.resolvePath(request);
    const pinned = request.pinnedPath !== undefined;
    await coded(() => this.#files.mkdirp(request.pinnedPath ?? containerPath, { pinned }));
  }

  async remove(request: Change & { recursive?: boolean; force?: boolean }): Promise<void> {
    const { path, options } = this.#change(request);
    // OpenClaw counts what is not there as removed, unless told otherwise.
    const { recursive = false, force = true } = request;
    await coded(() => this.#files.remove(path, { ...options, recursive, force }));
  }

  async rename({ from, to, cwd }: { from: string; to: string; cwd?: string }): Promise<void> {
    const at = cwd === undefined ? {} : { cwd };
    const [source, target] = [from, to].map(
      (filePath) => this.resolvePath({ filePath, ...at }).containerPath,
    );
    await coded(() => this.#files.rename(source as string, target as string));
  }

  async stat(
    request: At,
  ): Promise<{ type: "file" | "directory" | "other"; size: number; mtimeMs: number } | null> {
    const { containerPath } = this.resolvePath(request);
    return coded(() => this.#files.stat(containerPath));
  }

  async [IDENTITY](request: At): Promise<string> {
    const { containerPath } = this.resolvePath(request);
    const path = await this.#files.resolvePath(containerPath).catch(() => containerPath);
    return this.#onHost(path) ?? `container:${path}`;
  }

  async #read(request: At & { maxBytes?: number }) {
    const { maxBytes, signal } = request;
    if (maxBytes !== undefined && !(Number.isSafeInteger(maxBytes) && maxBytes >= 0))
      throw new RangeError("maxBytes must be a non-negative safe integer");
    const { containerPath } = this.resolvePath(request);
    const options = { ...(maxBytes === undefined ? {} : { maxBytes }), ...(signal ? { signal } : {}) };
    return coded(() => this.#files.readFileWithPath(containerPath, options), maxBytes);
  }

  /** Where a change goes, and how: to a pinned path without following anything. */
  #change(request: Change, mkdir?: boolean) {
    const { containerPath } = this.resolvePath(request);
    const { pinnedPath, signal } = request;
    if (pinnedPath !== undefined && posix.basename(pinnedPath) !== posix.basename(containerPath))
      throw new Error(`Pinned sandbox destination does not match the requested path: ${containerPath}`);
    const options = {
      pinned: pinnedPath !== undefined,
      mkdir: mkdir !== false,
      ...(signal ? { signal } : {}),
    };
    return { path: pinnedPath ?? containerPath, options };
  }

  /** A path of the sandbox, or one of this machine that is mounted, as the sandbox names it. */
  #inSandbox(filePath: string, cwd: string | undefined): string {
    let path = filePath.startsWith("@") ? filePath.slice(1) : filePath;
    if (path === "~" || path.startsWith("~/")) path = homedir() + path.slice(1);
    const slashed = path.split(sep).join("/");
    if (!isAbsolute(path) && !slashed.startsWith("/"))
      return posix.resolve(cwd === undefined ? this.#workdir : this.#inSandbox(cwd, undefined), slashed);
    const inside = posix.normalize(slashed);
    if (this.#onHost(inside) !== undefined) return trimmed(inside);
    // The innermost of the mounted folders that hold it.
    const mapping = [...this.pathMappings]
      .sort((a, b) => b.hostRoot.length - a.hostRoot.length)
      .find(({ hostRoot }) => !leavesRoot(relative(hostRoot, path)));
    if (!mapping) return trimmed(inside);
    return trimmed(posix.join(mapping.containerRoot, relative(mapping.hostRoot, path).split(sep).join("/")));
  }

  #onHost(containerPath: string): string | undefined {
    const mapping = [...this.pathMappings]
      .sort((a, b) => b.containerRoot.length - a.containerRoot.length)
      .find(({ containerRoot }) => !leavesRoot(posix.relative(containerRoot, containerPath)));
    return mapping && join(mapping.hostRoot, posix.relative(mapping.containerRoot, containerPath));
  }
}

function leavesRoot(inner: string): boolean {
  return inner === ".." || inner.startsWith("../") || inner.startsWith(`..${sep}`) || isAbsolute(inner);
}

function trimmed(path: string): string {
  return path.length > 1 && path.endsWith("/") ? path.slice(0, -1) : path;
}

function bytesOf({ data, encoding }: Write): Buffer {
  return Buffer.isBuffer(data) ? data : Buffer.from(data, encoding ?? "utf8");
}

const errnoNames = new Map(Object.entries(constants.errno).map(([name, number]) => [number, name]));

/** Errors with the codes that OpenClaw looks for, where the system has given one. */
async function coded<T>(work: () => Promise<T>, maxBytes?: number): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (!(error instanceof Error)) throw error;
    const { code } = error as { code?: string };
    if (code === "LIMIT" && maxBytes !== undefined)
      throw new RangeError(`File exceeds ${maxBytes} bytes`, { cause: error });
    const number = /\(os error (\d+)\)/.exec(error.message)?.[1];
    const name = code === "IO" && number !== undefined ? errnoNames.get(Number(number)) : undefined;
    if (name === undefined) throw error;
    throw Object.assign(new Error(`${name}: ${error.message}`, { cause: error }), { code: name });
  }
}
