// Which events of each agent run came, by OpenClaw's own numbers, and which did not.
import { type AgentEvent, isIncognito } from "./host.js";
import type { NewEvent } from "./store.js";

/** Whose events a run's are. */
export interface Owner {
  sessionKey: string;
  agentId: string;
  sessionId?: string;
}

interface Run extends Owner {
  seq: number;
}

/** What was lost of one session, as the event that says so holds it. */
export interface Loss extends Owner {
  data: {
    reasons: string[];
    /** By run: the numbers of the lost events, as `3-7,9`. */
    runs?: Record<string, string>;
    /** By kind: how many other events. */
    kinds?: Record<string, number>;
  };
}

interface Pending extends Owner {
  reasons: Set<string>;
  runs: Map<string, [number, number][]>;
  kinds: Map<string, number>;
}

const MAX_RUNS = 4_096;
/** Kept of one run before its loss is told more roughly. */
const MAX_RANGES = 256;

export class Runs {
  readonly #runs = new Map<string, Run>();
  readonly #losses = new Map<string, Pending>();

  /** Notes an event: whose it is, and whether numbers before it are missing. */
  see(event: AgentEvent): Owner & { missed: boolean } {
    const known = this.#runs.get(event.runId);
    const agentId = event.agentId ?? known?.agentId ?? agentOf(event.sessionKey) ?? "main";
    // OpenClaw leaves the key out of some events of runs that its UI does not show.
    const sessionKey = event.sessionKey ?? known?.sessionKey ?? `agent:${agentId}:run:${event.runId}`;
    const sessionId = event.sessionId ?? known?.sessionId;
    const owner = { sessionKey, agentId, ...(sessionId && { sessionId }) };
    const last = known?.seq ?? 0;
    // Lower than before: the run was resumed and counts anew.
    const expected = event.seq <= last ? 1 : last + 1;
    const missed = event.seq > expected && !isIncognito(sessionKey);
    if (missed) {
      this.#pending(owner, "not delivered").runs.set(
        event.runId,
        add(this.#pending(owner).runs.get(event.runId), expected, event.seq - 1),
      );
    }
    this.#runs.delete(event.runId);
    this.#runs.set(event.runId, { ...owner, seq: event.seq });
    if (this.#runs.size > MAX_RUNS) {
      for (const oldest of this.#runs.keys()) {
        this.#runs.delete(oldest);
        break;
      }
    }
    return { ...owner, missed };
  }

  /** The session id of a run, if one of its events named it. */
  sessionId(runId: string | undefined): string | undefined {
    return runId === undefined ? undefined : this.#runs.get(runId)?.sessionId;
  }

  lost(event: NewEvent, run: { id: string; seq: number } | undefined, reason: string): void {
    const sessionId = this.sessionId(run?.id);
    const { sessionKey, agentId } = event;
    const pending = this.#pending({ sessionKey, agentId, ...(sessionId && { sessionId }) }, reason);
    if (run) pending.runs.set(run.id, add(pending.runs.get(run.id), run.seq, run.seq));
    else pending.kinds.set(event.kind, (pending.kinds.get(event.kind) ?? 0) + 1);
  }

  get hasLosses(): boolean {
    return this.#losses.size > 0;
  }

  takeLosses(): Loss[] {
    const losses = [...this.#losses.values()].map(
      ({ sessionKey, agentId, sessionId, reasons, runs, kinds }) => ({
        sessionKey,
        agentId,
        ...(sessionId && { sessionId }),
        data: {
          reasons: [...reasons],
          ...(runs.size > 0 && {
            runs: Object.fromEntries([...runs].map(([id, ranges]) => [id, formatRanges(ranges)])),
          }),
          ...(kinds.size > 0 && { kinds: Object.fromEntries(kinds) }),
        },
      }),
    );
    this.#losses.clear();
    return losses;
  }

  /** Losses that could not be written: told later. */
  putBack(losses: readonly Loss[]): void {
    for (const { data, ...owner } of losses) {
      for (const reason of data.reasons) {
        const pending = this.#pending(owner, reason);
        for (const [id, text] of Object.entries(data.runs ?? {})) {
          for (const [from, to] of parseRanges(text)) {
            pending.runs.set(id, add(pending.runs.get(id), from, to));
          }
        }
      }
      for (const [kind, count] of Object.entries(data.kinds ?? {})) {
        const { kinds } = this.#pending(owner);
        kinds.set(kind, (kinds.get(kind) ?? 0) + count);
      }
    }
  }

  #pending(owner: Owner, reason?: string): Pending {
    let pending = this.#losses.get(owner.sessionKey);
    if (!pending) {
      pending = { ...owner, reasons: new Set(), runs: new Map(), kinds: new Map() };
      this.#losses.set(owner.sessionKey, pending);
    }
    if (owner.sessionId) pending.sessionId = owner.sessionId;
    if (reason !== undefined && pending.reasons.size < 8) pending.reasons.add(reason);
    return pending;
  }
}

function agentOf(sessionKey: string | undefined): string | undefined {
  return /^agent:([^:]+):/.exec(sessionKey ?? "")?.[1];
}

/** Ranges in rising order with one more; past the limit the last one grows over what lies between. */
function add(ranges: [number, number][] = [], from: number, to: number): [number, number][] {
  const last = ranges.at(-1);
  if (last && (from <= last[1] + 1 || ranges.length >= MAX_RANGES)) last[1] = Math.max(last[1], to);
  else ranges.push([from, to]);
  return ranges;
}

function formatRanges(ranges: readonly [number, number][]): string {
  return ranges.map(([from, to]) => (from === to ? `${from}` : `${from}-${to}`)).join(",");
}

function parseRanges(text: string): [number, number][] {
  return text.split(",").map((part) => {
    const [from = 0, to = from] = part.split("-").map(Number);
    return [from, to];
  });
}
