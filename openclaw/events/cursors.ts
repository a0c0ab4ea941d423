// How far each transcript is in the store. The file lies in the store's folder, so that the two are moved, restored and
// deleted together. It may lag behind the store after a crash: entries are then read twice and are one event.
import { appendFile, readFile, rename, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { ListedSession, Session } from "./host.js";
import { codeOf } from "./store.js";

interface Line extends Partial<Session> {
  /** The first time anything was mirrored into this store, in the first line. */
  sinceMs?: number;
  cursor?: string;
  /** OpenClaw's own date of the session when it was last found read to its end. */
  updatedAt?: number;
  gone?: boolean;
}

interface Position extends Session {
  cursor: string;
  updatedAt: number;
}

const FILE = "transcripts.jsonl";
const YOUNG_MS = 7 * 24 * 3_600_000;

export class Cursors {
  readonly #file: string;
  readonly #sinceMs: number;
  readonly #positions: Map<string, Position>;
  #changed = new Set<string>();
  /** Lines in the file; far more than there are transcripts, and it is written anew. */
  #lines: number;

  static async open(folder: string): Promise<Cursors> {
    const file = join(folder, FILE);
    let text = "";
    try {
      text = await readFile(file, "utf8");
    } catch (error) {
      if (codeOf(error) !== "ENOENT") throw error;
    }
    let sinceMs: number | undefined;
    const positions = new Map<string, Position>();
    for (const line of text.split("\n")) {
      const record = parse(line);
      if (!record) continue;
      sinceMs ??= record.sinceMs;
      const { agentId, sessionKey, sessionId, cursor, updatedAt = 0 } = record;
      if (!agentId || !sessionId) continue;
      const key = `${agentId}\n${sessionId}`;
      if (record.gone || !cursor || !sessionKey) positions.delete(key);
      else positions.set(key, { agentId, sessionKey, sessionId, cursor, updatedAt });
    }
    const cursors = new Cursors(file, sinceMs ?? Date.now(), positions);
    await cursors.#rewrite();
    return cursors;
  }

  private constructor(file: string, sinceMs: number, positions: Map<string, Position>) {
    this.#file = file;
    this.#sinceMs = sinceMs;
    this.#positions = positions;
    this.#lines = 0;
  }

  get(key: string): string | undefined {
    return this.#positions.get(key)?.cursor;
  }

  sessions(): Iterable<[string, Session]> {
    return [...this.#positions];
  }

  /**
   * Whether a transcript may hold more than was read. One that nobody touched since the mirror first ran is left to the
   * import, which says what it does and how far it is.
   */
  mayHaveGrown({ agentId, sessionId, updatedAt }: ListedSession): boolean {
    const position = this.#positions.get(`${agentId}\n${sessionId}`);
    if (!position) return updatedAt >= this.#sinceMs;
    // A crash may come between an entry and the date, so what is young is looked at in any case.
    return position.updatedAt !== updatedAt || updatedAt > Date.now() - YOUNG_MS;
  }

  /** A transcript was read to its end, having been listed with this date. */
  settled(key: string, updatedAt: number): void {
    const position = this.#positions.get(key);
    if (!position || position.updatedAt === updatedAt) return;
    position.updatedAt = updatedAt;
    this.#changed.add(key);
  }

  set(key: string, session: Session, cursor: string): void {
    const position = this.#positions.get(key);
    if (position?.cursor === cursor) return;
    // Written to in this life: its date says nothing any more, so the next start looks.
    this.#positions.set(key, { ...session, cursor, updatedAt: 0 });
    this.#changed.add(key);
  }

  forget(key: string): void {
    if (this.#positions.delete(key)) this.#changed.add(key);
  }

  /** Appends what changed; not synced, because a lost line costs a second reading and nothing else. */
  async save(): Promise<void> {
    if (this.#changed.size === 0) return;
    const changed = this.#changed;
    this.#changed = new Set();
    try {
      if (this.#lines + changed.size > 2 * this.#positions.size + 1_000) {
        await this.#rewrite();
        return;
      }
      const lines = [...changed].map((key) => {
        const [agentId = "", sessionId = ""] = key.split("\n");
        return JSON.stringify(this.#positions.get(key) ?? { agentId, sessionId, gone: true });
      });
      await appendFile(this.#file, `${lines.join("\n")}\n`);
      this.#lines += lines.length;
    } catch (error) {
      for (const key of changed) this.#changed.add(key);
      throw error;
    }
  }

  async close(): Promise<void> {
    await this.save();
  }

  async #rewrite(): Promise<void> {
    const lines = [{ sinceMs: this.#sinceMs }, ...this.#positions.values()].map((line) =>
      JSON.stringify(line),
    );
    const temporary = `${this.#file}.tmp`;
    await writeFile(temporary, `${lines.join("\n")}\n`, { mode: 0o600 });
    await rename(temporary, this.#file);
    this.#lines = lines.length;
  }
}

function parse(line: string): Line | undefined {
  try {
    const value = JSON.parse(line);
    return typeof value === "object" && value !== null ? value : undefined;
  } catch {
    // Empty, or cut off by the end of the process.
    return undefined;
  }
}
