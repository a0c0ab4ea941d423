// The providers module inside OpenClaw: what a model answers passes through native code on its way from OpenClaw's
// connection to OpenClaw's transport. Requests, the rules of the network (addresses, proxies, TLS, secrets) and the
// message that is made of the answer stay OpenClaw's own, so that transcripts do.
import { AsyncLocalStorage } from "node:async_hooks";
import type { Addon } from "../addon.js";
import type { FunctionStats } from "../stats.js";
import type { ModuleRuntime } from "../swap.js";

type Body = ReadableStream<Uint8Array>;
interface Model {
  provider: string;
  id: string;
}
type Sanitize = (response: Response, options?: unknown) => Response;
type StreamFn = (
  model: Model,
  context: unknown,
  options?: { signal?: AbortSignal },
) => Stream | PromiseLike<Stream>;
interface Stream {
  result(): Promise<Message>;
}
interface Message {
  content: Record<string, unknown>[];
  stopReason: string;
  usage?: Record<string, unknown>;
}

interface Relay {
  push(bytes: Uint8Array): number;
  end(): void;
  take(): Uint8Array;
}
interface Decoder {
  push(bytes: Uint8Array): void;
  finish(): string;
}
/** The native classes that are no part of the package's interface. */
const natives = (addon: Addon) =>
  (
    addon as unknown as {
      __native: {
        __Relay: new () => Relay;
        __Decoder: new (api: string, provider: string, model: string) => Decoder;
      };
    }
  ).__native;

/** One call of a transport. */
interface Call {
  stats: FunctionStats;
  /** In shadow mode: the bytes of the answer, unless there are too many. */
  chunks?: Uint8Array[] | undefined;
}

/** Deltas wait at most so long for others that go with them: as long as a screen shows one picture. */
const BEAT_MS = 16;
const MAX_SHADOW_BYTES = 8 << 20;

/** OpenClaw's transports, and the API that each speaks. */
const TRANSPORTS: Record<string, string> = {
  createAnthropicMessagesTransportStreamFn: "anthropic-messages",
  createOpenAICompletionsTransportStreamFn: "openai-completions",
  createOpenAIResponsesTransportStreamFn: "openai-responses",
  createGoogleTransportStreamFn: "google-generative-ai",
};

/** The replacements of this module, by the names in the table. */
export function providerReplacements(runtime: ModuleRuntime): Record<string, (original: never) => unknown> {
  const calls = new AsyncLocalStorage<Call>();
  /** Set between OpenClaw's question whether it must clean a stream and the cleaning, which follows at once. */
  let unclean = false;

  const transport = (name: string, api: string) => (original: (...args: unknown[]) => StreamFn) =>
    function createTransportStreamFn(...args: unknown[]): StreamFn {
      const streamFn = original(...args);
      return (model, context, options) => {
        const call: Call = { stats: runtime.begin(name) };
        if (runtime.mode === "shadow" && runtime.addon()) call.chunks = [];
        const stream = calls.run(call, () => streamFn(model, context, options));
        if (call.chunks)
          compare(runtime, { name, api, model, call, signal: options?.signal }, stream).catch(() => {});
        return stream;
      };
    };

  return {
    shouldSanitizeOpenAISdkSseResponse(original: (model: Model) => boolean) {
      return function shouldSanitizeOpenAISdkSseResponse(model: Model): boolean {
        const asked = original(model);
        unclean = !asked;
        return asked || runtime.mode !== "off";
      };
    },

    sanitizeOpenAISdkSseResponse(original: Sanitize): Sanitize {
      return function sanitizeOpenAISdkSseResponse(response, options) {
        const untouched = unclean;
        unclean = false;
        const stock = (from: Response) => (untouched ? from : original(from, options));
        const call = calls.getStore();
        const type = response.headers.get("content-type") ?? "";
        if (!response.ok || !response.body || !/\btext\/event-stream\b/i.test(type)) return stock(response);
        const addon = runtime.addon();
        if (!addon || runtime.mode === "shadow") {
          if (call) call.stats.original++;
          return stock(call?.chunks ? withBody(response, watched(response.body, call)) : response);
        }
        let relay: Relay;
        try {
          relay = new (natives(addon).__Relay)();
        } catch {
          if (call) call.stats.original++;
          return stock(response);
        }
        if (call) call.stats.native++;
        return withBody(response, relayed(response.body, relay, call?.stats));
      };
    },

    ...Object.fromEntries(Object.entries(TRANSPORTS).map(([name, api]) => [name, transport(name, api)])),
  };
}

function withBody({ status, statusText, headers }: Response, body: Body): Response {
  return new Response(body, { status, statusText, headers });
}

/** The body with fewer events in it: deltas that come within one beat are one, and nothing else waits. */
function relayed(body: Body, relay: Relay, stats?: FunctionStats): Body {
  const reader = body.getReader();
  let coming: ReturnType<typeof reader.read> | undefined;
  let begun = false;
  let broken: { error: unknown } | undefined;
  let timer: NodeJS.Timeout | undefined;
  return new ReadableStream({
    async pull(controller) {
      if (broken) return controller.error(broken.error);
      try {
        let beat: Promise<void> | undefined;
        for (;;) {
          coming ??= reader.read();
          const got = await (beat ? Promise.race([coming, beat]) : coming);
          if (!got) break;
          coming = undefined;
          if (got.done) {
            relay.end();
            const rest = relay.take();
            if (rest.length > 0) controller.enqueue(rest);
            controller.close();
            return;
          }
          if (stats) stats.bytes += got.value.length;
          const ready = relay.push(got.value);
          if (ready === 0) continue;
          // The first words are shown at once.
          if (ready === 2 || !begun) {
            begun ||= ready === 1;
            break;
          }
          // All streams of a process keep the same beat, so that many of them wake it no more often than one.
          beat ??= new Promise((resolve) => {
            timer = setTimeout(resolve, BEAT_MS - (performance.now() % BEAT_MS));
          });
        }
        controller.enqueue(relay.take());
      } catch (error) {
        reader.cancel(error).catch(() => {});
        // An error drops what is queued, so what came before it is read first.
        const rest = held(relay);
        if (rest.length === 0) return controller.error(error);
        broken = { error };
        controller.enqueue(rest);
      } finally {
        clearTimeout(timer);
      }
    },
    async cancel(reason) {
      clearTimeout(timer);
      await reader.cancel(reason).catch(() => {});
    },
  });
}

/** What the relay still has, if it can tell. */
function held(relay: Relay): Uint8Array {
  try {
    return relay.take();
  } catch {
    return new Uint8Array();
  }
}

/** The body as it is; what passes is kept for the shadow. */
function watched(body: Body, call: Call): Body {
  const chunks: Uint8Array[] = [];
  let bytes = 0;
  call.chunks = chunks;
  return body.pipeThrough(
    new TransformStream<Uint8Array, Uint8Array>({
      transform(chunk, controller) {
        bytes += chunk.length;
        if (bytes <= MAX_SHADOW_BYTES) chunks.push(chunk.slice());
        // A part of an answer says nothing about the whole.
        else call.chunks = undefined;
        controller.enqueue(chunk);
      },
    }),
  );
}

interface Watched {
  name: string;
  api: string;
  model: Model;
  call: Call;
  signal: AbortSignal | undefined;
}

/** Holds OpenClaw's message against the one that native code makes of the same bytes. */
async function compare(
  runtime: ModuleRuntime,
  watch: Watched,
  coming: Stream | PromiseLike<Stream>,
): Promise<void> {
  const { name, api, model, call, signal } = watch;
  const stream = await coming;
  const message = await stream.result().catch(() => undefined);
  const bytes = Buffer.concat(call.chunks ?? []);
  // A call that was broken off, or never came to an answer, says nothing about who reads answers better.
  if (!message || message.stopReason === "aborted" || signal?.aborted || bytes.length === 0) return;
  const addon = runtime.addon();
  if (!addon) return;
  const original = () => {
    if (message.stopReason === "error") throw new Error("the original reports an error");
    return said(message);
  };
  const native = () => {
    const decoder = new (natives(addon).__Decoder)(api, model.provider, model.id);
    decoder.push(bytes);
    return said(JSON.parse(decoder.finish()) as Message);
  };
  // The original has read the answer already.
  runtime.shadow.observe(name, bytes.toString("latin1"), original, native, { isTimed: false });
}

const COUNTS = ["input", "output", "cacheRead", "cacheWrite", "totalTokens"];

/** What a message says, without what OpenClaw adds for itself; it has 0 where a count was not sent. */
function said({ content, stopReason, usage }: Message): unknown {
  return {
    stopReason,
    content: content.map(({ type, text, thinking, name, arguments: args, redacted }) => ({
      type,
      text,
      thinking,
      name,
      arguments: JSON.stringify(args),
      redacted,
    })),
    usage: COUNTS.map((count) => usage?.[count] ?? 0),
  };
}
