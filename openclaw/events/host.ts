// What OpenClaw gives a plugin to mirror, and its transcripts, read through OpenClaw's own code in its own process:
// a second SQLite library that opened its files here would drop its locks.

/** One event of an agent run; `seq` counts 1, 2, 3 … in its run. */
export interface AgentEvent {
  runId: string;
  seq: number;
  stream: string;
  ts: number;
  data: Record<string, unknown>;
  sessionKey?: string;
  sessionId?: string;
  agentId?: string;
}

/** A session's transcript, by OpenClaw's names. */
export interface Session {
  agentId: string;
  sessionKey: string;
  sessionId: string;
}

/** A session as OpenClaw lists it. */
export interface ListedSession extends Session {
  updatedAt: number;
}

/** Some entries of a transcript in their order, and where the next ones begin. */
export interface TranscriptPage {
  entries: unknown[];
  cursor: string;
  more: boolean;
  /** The size of an entry that is too large for a page, in which case there are no entries. */
  oversized?: number;
}

/** The transcripts of the OpenClaw that runs in this process. */
export interface Transcripts {
  sessions(): ListedSession[];
  /** The entries after `cursor` (or from the start); undefined if there is no such transcript. */
  read(session: Session, cursor: string | undefined, maxBytes: number): Promise<TranscriptPage | undefined>;
}

interface RawDelta {
  kind: "page" | "reset" | "missing";
  cursor?: string;
  events?: { event: unknown; seq: number }[];
  hasMore?: boolean;
  requiredBytes?: number;
}

interface TranscriptRuntime {
  readSessionTranscriptRawDelta(
    params: Session & { cursor?: string; maxBytes?: number; maxEvents?: number },
  ): Promise<RawDelta>;
}
interface SessionRuntime {
  listSessionEntries(params: {
    agentId: string;
    readOnly: boolean;
  }): { sessionKey: string; entry: { sessionId?: string; updatedAt?: number } }[];
}
interface AgentRuntime {
  listAgentIds(config: unknown): string[];
}

/** Imports a part of OpenClaw's plugin SDK, which OpenClaw resolves for its plugins. */
async function sdk<T>(name: string): Promise<T> {
  return (await import(`openclaw/plugin-sdk/${name}`)) as T;
}

/** The transcripts of this OpenClaw, whose config names the agents. */
export async function openTranscripts(config: unknown): Promise<Transcripts> {
  const [transcripts, store, agents] = await Promise.all([
    sdk<TranscriptRuntime>("session-transcript-runtime"),
    sdk<SessionRuntime>("session-store-runtime"),
    sdk<AgentRuntime>("agent-runtime"),
  ]);
  for (const [value, name] of [
    [transcripts.readSessionTranscriptRawDelta, "readSessionTranscriptRawDelta"],
    [store.listSessionEntries, "listSessionEntries"],
    [agents.listAgentIds, "listAgentIds"],
  ]) {
    if (typeof value !== "function") throw new Error(`OpenClaw's plugin SDK has no ${name}`);
  }
  return {
    sessions() {
      return agents.listAgentIds(config).flatMap((agentId) =>
        store.listSessionEntries({ agentId, readOnly: true }).flatMap(({ sessionKey, entry }) => {
          const { sessionId, updatedAt = 0 } = entry;
          return sessionId && !isIncognito(sessionKey) ? [{ agentId, sessionKey, sessionId, updatedAt }] : [];
        }),
      );
    },
    async read({ agentId, sessionKey, sessionId }, cursor, maxBytes) {
      const ask = (from: string | undefined) =>
        transcripts.readSessionTranscriptRawDelta({
          agentId,
          sessionKey,
          sessionId,
          maxBytes,
          ...(from !== undefined && { cursor: from }),
        });
      let delta = await ask(cursor);
      // The transcript was rewritten: from its start again, which is harmless, because ids make each entry one event.
      if (delta.kind === "reset") delta = await ask(delta.cursor);
      if (delta.kind !== "page" || delta.cursor === undefined) return undefined;
      return {
        entries: (delta.events ?? []).map(({ event }) => event),
        cursor: delta.cursor,
        more: delta.hasMore === true,
        ...(delta.requiredBytes !== undefined && { oversized: delta.requiredBytes }),
      };
    },
  };
}

/** Sessions that OpenClaw keeps off the disk; nothing of them may reach the store. */
export function isIncognito(sessionKey: string | undefined): boolean {
  return /^agent:[^:]+:(?:dashboard|subagent|internal-session-effects):incognito-[^:]+$/i.test(
    sessionKey?.trim() ?? "",
  );
}
