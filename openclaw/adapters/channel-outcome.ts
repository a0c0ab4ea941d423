// What a turn comes to, as far as a channel sees it: whether its answer is out, and what of it is lost for want of a disk.
import { type AgentEvent, messageOf, type ReplyPayload } from "./channel-host.js";
import { isOfTheDisk } from "./channel-lane.js";

export class Outcome {
  readonly sinceMs = Date.now();
  /** Something of it has gone out. */
  isOut = false;
  /** The model has said or done something, of which the transcript may know nothing. */
  acted = false;
  /** Why an answer was not sent, or the turn ended. */
  failure: unknown;
  /** What OpenClaw has to say of a failure, and has not said. */
  excuse: ReplyPayload | undefined;
  /** What OpenClaw said last. */
  #said: ReplyPayload | undefined;
  /** What the model said, of a run that ended well. */
  #answer: ReplyPayload | undefined;
  /** Why the run failed, in OpenClaw's words. */
  #reason = "";
  readonly #session: string;

  constructor(session: string) {
    this.#session = session.toLowerCase();
  }

  /** Something happened in a run, of whatever session. */
  observe({ sessionKey, stream, data }: AgentEvent): void {
    if (sessionKey?.toLowerCase() !== this.#session) return;
    if (stream === "assistant" || stream === "tool") this.acted = true;
    if (stream !== "lifecycle") return;
    if (typeof data.error === "string") this.#reason = data.error;
    const { disposition, text } = data.terminalReply ?? {};
    if (data.phase === "end" && disposition === "visible" && text) this.#answer = { text };
  }

  /** Gives what may be said to the chat: that there is no disk is no answer, as long as one may come, or is there. */
  say(payload: ReplyPayload): ReplyPayload | null {
    const isExcuse =
      payload.isError === true
        ? this.#said === undefined && (isOfTheDisk(this.#reason) || this.#answer !== undefined)
        : isOfTheDisk(this.failure);
    if (isExcuse && !this.isOut) {
      this.excuse = payload;
      return null;
    }
    this.#said = payload;
    return payload;
  }

  /** Something went out to the chat: before anything was said, it was the answer to another. */
  heard(): void {
    this.isOut ||= this.#said !== undefined;
  }

  /** Whether nothing is out for want of a disk. */
  get isLost(): boolean {
    return !this.isOut && (this.excuse !== undefined || isOfTheDisk(this.failure));
  }

  /** What there is to say, if the transcript knows no better. */
  get payload(): ReplyPayload | undefined {
    return this.#said ?? this.#answer ?? this.excuse;
  }

  get why(): string {
    return this.failure === undefined ? this.#reason || (this.excuse?.text ?? "") : messageOf(this.failure);
  }
}
