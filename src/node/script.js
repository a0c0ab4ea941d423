// What is better said in JavaScript: one object of functions, compiled once for each thread that loads the addon, so
// that V8 optimises them.
(() => {
  /** What builds a usage object of each shape that has come. */
  const makers = [];

  /** A promise with its `resolve` and `reject` in one function. */
  function deferred() {
    let settle;
    const promise = new Promise((resolve, reject) => {
      settle = (ok, value) => (ok ? resolve : reject)(value);
    });
    return { promise, settle };
  }

  /** Appends the elements of a JSON array. */
  function appendJson(array, text) {
    for (const element of JSON.parse(text)) array.push(element);
  }

  /** Events as one text. A time that is no number would become null, and then be taken for the present. */
  function writeEvents(events) {
    if (Array.isArray(events))
      for (const event of events)
        if (typeof event?.timestampMs === "number" && !Number.isFinite(event.timestampMs))
          throw new RangeError(`\`timestampMs\` must be milliseconds since 1970, not ${event.timestampMs}`);
    return JSON.stringify(events);
  }

  /** As `writeEvents`, for one. */
  function writeEvent(event) {
    return writeEvents([event]);
  }

  /** Appends projections that come in columns; see `event_sessions.rs`. */
  function appendSessions(array, text, numbers, usages) {
    const { agents, texts, states } = JSON.parse(text);
    const start = array.length;
    for (let n = 0, t = 0, u = 0; n < numbers.length; n += 9, t += 2) {
      const session = {
        sessionKey: texts[t],
        agentId: agents[numbers[n + 6]],
        firstMs: numbers[n],
        lastMs: numbers[n + 1],
        events: numbers[n + 2],
        messages: numbers[n + 3],
        toolCalls: numbers[n + 4],
        ended: numbers[n + 5] === 1,
        usage: makers[numbers[n + 7]](usages, u),
        state: {},
      };
      u += numbers[n + 8];
      if (texts[t + 1] !== null) session.lastMessage = texts[t + 1];
      array.push(session);
    }
    for (const [at, state] of states) array[start + at].state = state;
  }

  const redacted = "[REDACTED]";
  const inspect = Symbol.for("nodejs.util.inspect.custom");

  /** What a clone, a spread or `console.log` of an `ApiKey` shows. */
  function redact(key) {
    const shared = Object.getPrototypeOf(key);
    if (!Object.hasOwn(shared, inspect)) Object.defineProperty(shared, inspect, { value: () => redacted });
    return Object.defineProperty(key, "secret", { value: redacted, enumerable: true });
  }

  /** `validateMessage`, around the native search for issues. `isFine` gives undefined for a text of fewer than 512 code
   *  units that has none; limits and flags cross only where they may matter. */
  function messageValidator(search, isFine) {
    /** In which nothing can be wrong, and each character is one byte. */
    const plain = /^[\t\n\r -~]*$/;
    const admits = (most, length) => most === undefined || (Number.isInteger(most) && length <= most);
    const isFlag = (value) => value === undefined || typeof value === "boolean";

    return function validateMessage(text, limits) {
      let maxChars, maxBytes, allowControl, allowBidi;
      if (limits !== undefined && limits !== null) {
        if (Object(limits) !== limits) search(text, undefined, undefined, undefined, undefined, limits);
        ({ maxChars, maxBytes, allowControl, allowBidi } = limits);
      }
      if (
        typeof text === "string" &&
        text.length < 512 &&
        admits(maxChars, text.length) &&
        // No code unit has more than three bytes.
        admits(maxBytes, 3 * text.length) &&
        isFlag(allowControl) &&
        isFlag(allowBidi) &&
        ((text.length <= 128 && plain.test(text)) || isFine(text) === undefined)
      )
        return { ok: true, text, issues: [] };
      const issues = search(text, maxChars, maxBytes, allowControl, allowBidi);
      return issues === undefined ? { ok: true, text, issues: [] } : { ok: false, text, issues };
    };
  }

  const WHOLE = 4;
  const PRIVATE_KEY = 8;

  /** A user's pattern by its name in `known`; nothing where OpenClaw would not take it, or has it already. */
  function compilePattern(raw, refuses, known) {
    const literal = raw.match(/^\/(.+)\/([gimsuy]*)$/);
    const source = (literal ? literal[1] : raw).trim();
    let flags = literal ? literal[2] : "gi";
    if (!flags.includes("g")) flags += "g";
    const name = `${flags}::${source}`;
    if (!raw.trim() || !source || known.has(name) || refuses(source)) return undefined;
    known.add(name);
    try {
      return new RegExp(source, flags);
    } catch {
      return undefined;
    }
  }

  /** Where in the match the group begins, or -1. */
  function groupStart(pattern, input, match, offset, group, captures) {
    if (input) {
      try {
        const indexed = new RegExp(pattern.source, pattern.hasIndices ? pattern.flags : `${pattern.flags}d`);
        indexed.lastIndex = offset;
        const again = indexed.exec(input);
        if (again && again.index === offset && again[0] === match[0] && again.indices[group]) {
          return again.indices[group][0] - offset;
        }
      } catch {
        // Then by its text.
      }
    }
    const referred = captures === 1 && new RegExp(`\\\\${group}(?!\\d)`).test(pattern.source);
    return referred ? match[0].indexOf(match[group]) : match[0].lastIndexOf(match[group]);
  }

  /** Replaces the secret of each match: the last group that holds something, else the whole match. */
  function replaceMatches(text, pattern, bits, mask) {
    const replace = (...match) => {
      const input = match.findLastIndex((part) => typeof part === "string");
      const offset = match[input - 1];
      let group = 0;
      let captures = 0;
      for (let index = 1; index < input - 1; index++) {
        if (typeof match[index] !== "string" || match[index] === "") continue;
        group = index;
        captures++;
      }
      const [whole] = match;
      const isKey = whole.includes("PRIVATE KEY-----");
      const token = isKey ? whole : match[group];
      const at =
        token === whole ? 0 : groupStart(pattern, match[input], match, offset, group, captures);
      const masked = at < 0 ? null : mask(whole, token, bits);
      return masked === null ? whole : whole.slice(0, at) + masked + whole.slice(at + token.length);
    };
    if (bits & WHOLE || text.length <= 32768) return text.replace(pattern, replace);
    let replaced = "";
    for (let at = 0; at < text.length; at += 16384) {
      replaced += text.slice(at, at + 16384).replace(pattern, replace);
    }
    return replaced;
  }

  /** Redacts by patterns, one after the other; the same one twice counts once. */
  function redactBy(text, patterns, treat, refuses, mask) {
    const known = new Set();
    let redacted = text;
    for (const raw of patterns) {
      const bits = treat(raw);
      if (bits & PRIVATE_KEY) {
        redacted = mask(redacted, "", PRIVATE_KEY) ?? redacted;
        continue;
      }
      const pattern = compilePattern(raw, refuses, known);
      if (pattern) redacted = replaceMatches(redacted, pattern, bits, mask);
    }
    return redacted;
  }

  /** The classes around the native clients of model providers. */
  function providerClasses(NativeProvider, NativeFailover) {
    const natives = new WeakMap();
    const wrong = (message) => Object.assign(new Error(message), { code: "VALIDATION" });
    const isObject = (value) => typeof value === "object" && value !== null;

    function encode(request) {
      if (!isObject(request)) throw wrong("`request` must be an object");
      return JSON.stringify(request);
    }

    function hooks(options) {
      if (options !== undefined && !isObject(options)) throw wrong("`options` must be an object");
      for (const name of ["onPayload", "onResponse"])
        if (options?.[name] !== undefined && typeof options[name] !== "function")
          throw wrong(`\`${name}\` must be a function`);
      return options;
    }

    /**
     * The message while it grows, as far as it was handed on. Arguments of a tool call are there once they are whole.
     * Each event has it as `partial`, a property like any other: OpenClaw copies events.
     */
    class Growing {
      /** The arguments of each tool call, as text; null once it has ended. */
      #arguments = [];

      constructor(value) {
        this.value = { role: "assistant", content: [], ...value, timestamp: Date.now() };
      }

      /** A message that was broken off: a call that the reader has not seen the end of is no part of it. */
      broken(message, more) {
        const whole = ({ type }, index) => type !== "toolCall" || this.#arguments[index] === null;
        return { ...message, content: message.content.filter(whole), ...more };
      }

      /** The event of an entry; undefined if it is none. */
      apply(op, index, text) {
        const partial = this.value;
        const { content } = partial;
        switch (op) {
          case 2:
            content[index].text += text;
            return { type: "text_delta", contentIndex: index, delta: text, partial };
          case 5:
            content[index].thinking += text;
            return { type: "thinking_delta", contentIndex: index, delta: text, partial };
          case 8:
            this.#arguments[index] += text;
            return { type: "toolcall_delta", contentIndex: index, delta: text, partial };
          case 0:
            return { type: "start", partial };
          case 1:
            content[index] = { type: "text", text: "" };
            return { type: "text_start", contentIndex: index, partial };
          case 3:
            return { type: "text_end", contentIndex: index, content: content[index].text, partial };
          case 4:
            content[index] = { type: "thinking", thinking: "" };
            return { type: "thinking_start", contentIndex: index, partial };
          case 6:
            return { type: "thinking_end", contentIndex: index, content: content[index].thinking, partial };
          case 7:
            content[index] = { type: "toolCall", id: text, name: "", arguments: {} };
            this.#arguments[index] = "";
            return undefined;
          case 10:
            content[index].name = text;
            return { type: "toolcall_start", contentIndex: index, id: content[index].id, name: text, partial };
          case 9: {
            content[index].arguments = JSON.parse(text || this.#arguments[index]);
            this.#arguments[index] = null;
            return { type: "toolcall_end", contentIndex: index, toolCall: content[index], partial };
          }
          case 11: {
            const name = { text: "textSignature", thinking: "thinkingSignature", toolCall: "thoughtSignature" }[
              content[index].type
            ];
            content[index][name] = (content[index][name] ?? "") + text;
            return undefined;
          }
          case 12:
            content[index].thinking = text;
            content[index].redacted = true;
            return undefined;
        }
      }
    }

    const DONE = { done: true, value: undefined };

    const ABORTED = { stopReason: "aborted", errorMessage: "the call was aborted" };
    /** More milliseconds than these are one to `setTimeout`. */
    const MAX_TIMER = 2 ** 31 - 1;

    /** An answer that streams: its events, once, and its message. */
    class ProviderStream {
      #native;
      #options;
      #signal;
      #unlisten;
      #growing;
      /** Batches that have crossed and were not read to their end, the first of them from `#at` and `#from` on. */
      #batches = [];
      #at = 0;
      #from = 0;
      /** The last event, once it has crossed. */
      #last;
      #over = false;
      #aborted = false;
      /** The wait for the next batch. */
      #pending;
      /** What ends the wait for a hook, which nothing else can: an abort, or the end of the time for the whole call. */
      #cut;
      #timer;
      #result;
      #settle;
      #asked = false;

      /** `begin` gives the native stream, at once or, after a hook, later; none if it `isStopped` by then. */
      constructor(options, who, begin) {
        this.#options = options;
        this.#growing = new Growing(who);
        this.#result = new Promise((resolve) => {
          this.#settle = resolve;
        });
        const signal = options?.signal ?? undefined;
        if (signal !== undefined && typeof signal.addEventListener !== "function")
          throw wrong("`signal` must be an AbortSignal");
        this.#signal = signal;
        this.#native = begin(() => this.#over || this.#last !== undefined || this.#aborted);
        // A failure is the first that a reader gets.
        this.#native.catch?.(() => {});
        const weak = new WeakRef(this);
        if (typeof (options?.onPayload ?? options?.onResponse) === "function") {
          this.#cut = deferred();
          this.#cut.promise.catch(() => {});
          const totalMs = options.timeouts?.totalMs;
          if (totalMs > 0 && totalMs <= MAX_TIMER)
            this.#timer = setTimeout(() => weak.deref()?.#expire(totalMs), totalMs).unref();
        }
        if (signal === undefined) return;
        // The signal may live longer than the stream, and is not to keep it.
        const listener = () => weak.deref()?.#abort();
        this.#unlisten = () => signal.removeEventListener("abort", listener);
        if (signal.aborted) this.#abort();
        else signal.addEventListener("abort", listener, { once: true });
      }

      async #abort() {
        this.#aborted = true;
        // What was not read yet does not follow an abort.
        this.#batches.length = this.#at = this.#from = 0;
        if (this.#last !== undefined) {
          const { message } = this.#last;
          if (message) this.#end(this.#growing.broken(message, ABORTED), this.#signal.reason);
          return;
        }
        this.#cut?.settle(false, this.#signal.reason);
        try {
          (await this.#native)?.abort();
        } catch {}
      }

      #expire(totalMs) {
        const words = `the call has not ended after ${totalMs} ms, and waits for a hook`;
        this.#cut.settle(false, Object.assign(new Error(words), { code: "TIMEOUT", phase: "total" }));
      }

      /** Nobody listens to the signal once the end has crossed: until it is read, whoever reads on looks. */
      #look() {
        if (this.#last !== undefined && !this.#aborted && this.#signal?.aborted) this.#abort();
      }

      next() {
        if (this.#pending !== undefined) return this.#pending.then(() => this.next());
        this.#look();
        const event = this.#take();
        if (event !== undefined) return Promise.resolve({ done: false, value: event });
        if (this.#over) return Promise.resolve(DONE);
        return this.#wait().then(() => this.next());
      }

      /** The next event of what has crossed. */
      #take() {
        while (this.#batches.length > 0) {
          const [numbers, text] = this.#batches[0];
          while (this.#at < numbers.length) {
            const at = this.#at;
            const end = this.#from + numbers[at + 2];
            const event = this.#growing.apply(numbers[at], numbers[at + 1], text.substring(this.#from, end));
            this.#at = at + 3;
            this.#from = end;
            if (event !== undefined) return event;
          }
          this.#batches.shift();
          this.#at = 0;
          this.#from = 0;
        }
        const last = this.#last;
        if (last !== undefined) {
          this.#last = undefined;
          this.#over = true;
          this.#settle(last.message ?? last.error);
        }
        return last;
      }

      #wait() {
        this.#pending ??= this.#fill().finally(() => {
          this.#pending = undefined;
        });
        return this.#pending;
      }

      /** Waits for the next batch. */
      async #fill() {
        let crossed;
        try {
          if (typeof this.#native.then === "function") this.#native = await this.#unlessCut(this.#native);
          crossed = await this.#native.next();
          if (crossed === null) throw Object.assign(new Error("the stream ended without an outcome"), { code: "INTERNAL" });
          if (crossed[2] !== undefined && typeof this.#options?.onResponse === "function")
            for (const response of JSON.parse(`[${crossed[2]}]`)) {
              if (this.#aborted) break;
              await this.#unlessCut(this.#options.onResponse(response));
            }
        } catch (error) {
          if (!this.#over) {
            const message = crossed?.[3] === undefined ? this.#growing.value : JSON.parse(crossed[3]);
            const why = { stopReason: "error", errorMessage: message.errorMessage ?? String(error?.message ?? error) };
            this.#end(this.#growing.broken(message, this.#aborted ? ABORTED : why), this.#aborted ? this.#signal.reason : error);
            this.#close();
          }
          return;
        }
        if (this.#over) return;
        if (!this.#aborted && crossed[0].length > 0) this.#batches.push(crossed);
        if (crossed[3] === undefined) return;
        let message = JSON.parse(crossed[3]);
        // The answer may have ended while the abort was on its way.
        if (this.#aborted && message.stopReason !== "error") message = this.#growing.broken(message, ABORTED);
        this.#end(message, message.stopReason === "aborted" ? this.#signal.reason : crossed[4]);
      }

      #unlessCut(hook) {
        return this.#cut === undefined ? hook : Promise.race([this.#cut.promise, hook]);
      }

      #end(message, cause) {
        this.#release();
        const reason = message.stopReason;
        const failed = reason === "error" || reason === "aborted";
        this.#last = failed ? { type: "error", reason, error: message, cause } : { type: "done", reason, message };
        if (this.#asked) this.#settle(message);
      }

      /** Nothing that outlives the stream refers to it any more. */
      #release() {
        this.#unlisten?.();
        clearTimeout(this.#timer);
      }

      async #close() {
        try {
          (await this.#native)?.close();
        } catch {}
      }

      return() {
        if (!this.#over) {
          this.#look();
          this.#over = true;
          this.#batches.length = 0;
          this.#release();
          const last = this.#last;
          this.#last = undefined;
          this.#settle(
            last
              ? (last.message ?? last.error)
              : this.#growing.broken(this.#growing.value, { stopReason: "aborted", errorMessage: "nobody read on" }),
          );
          this.#close();
        }
        return Promise.resolve(DONE);
      }

      [Symbol.asyncIterator]() {
        return this;
      }

      async [Symbol.asyncDispose]() {
        await this.return();
      }

      /** The message, whether good or not. The stream is read for it, and what comes is kept for whoever reads events. */
      result() {
        if (!this.#asked) {
          this.#asked = true;
          this.#look();
          if (this.#last === undefined) this.#pump();
          else this.#settle(this.#last.message ?? this.#last.error);
        }
        return this.#result;
      }

      async #pump() {
        while (!this.#over && this.#last === undefined) await this.#wait();
      }
    }

    /** What a client does, by its native core. */
    async function complete(owner, request, options) {
      if (hooks(options)?.onPayload === undefined && options?.onResponse === undefined)
        return natives.get(owner).complete(encode(request), options, options?.signal);
      const stream = owner.stream(request, options);
      for await (const event of stream) {
        if (event.type === "done") return event.message;
        if (event.type === "error") throw event.cause;
      }
    }

    class Provider {
      constructor(options, api) {
        if (new.target === Provider || api === undefined)
          throw wrong("a Provider is made as one of its classes, such as AnthropicProvider");
        natives.set(this, new NativeProvider(api, options));
      }

      get id() {
        return natives.get(this).id;
      }

      complete(request, options) {
        return complete(this, request, options);
      }

      stream(request, options) {
        const native = natives.get(this);
        const json = encode(request);
        const { onPayload } = hooks(options) ?? {};
        const who = { api: native.api, provider: native.id, model: request.model };
        if (onPayload === undefined) return new ProviderStream(options, who, () => native.start(json, options));
        return new ProviderStream(options, who, async (isStopped) => {
          const payload = await native.encode(json);
          if (isStopped()) return undefined;
          const changed = await onPayload(JSON.parse(payload));
          if (isStopped()) return undefined;
          return native.start(json, options, changed === undefined ? payload : JSON.stringify(changed));
        });
      }

      async listModels(options) {
        return natives.get(this).listModels(hooks(options), options?.signal);
      }

      usage() {
        return natives.get(this).usage();
      }
    }

    const of = (api, name) =>
      ({
        [name]: class extends Provider {
          constructor(options) {
            super(options, api);
          }
        },
      })[name];

    class FailoverProvider {
      constructor(candidates, options) {
        if (!Array.isArray(candidates)) throw wrong("`candidates` must be an array");
        if (options !== undefined && !isObject(options)) throw wrong("`options` must be an object");
        const cores = candidates.map((candidate, at) => {
          const core = isObject(candidate) && natives.get(candidate.provider);
          if (!core || typeof candidate.model !== "string")
            throw wrong(`\`candidates[${at}]\` must be { provider, model }, with one of the Provider classes`);
          return core;
        });
        const models = candidates.map((candidate) => candidate.model);
        const profileIds = candidates.map((candidate) => candidate.profileId);
        natives.set(this, new NativeFailover(cores, models, profileIds, options?.profiles));
        this.#cap = options?.retryAfterCapMs;
      }

      #cap;

      #options(options) {
        if (hooks(options)?.onPayload !== undefined)
          throw wrong("`onPayload` is for one provider: candidates of a FailoverProvider have payloads of their own");
        return this.#cap === undefined ? options : { retryAfterCapMs: this.#cap, ...options };
      }

      async complete(request, options) {
        return complete(this, { model: "-", ...request }, this.#options(options));
      }

      stream(request, options) {
        const how = this.#options(options);
        const json = encode({ model: "-", ...request });
        return new ProviderStream(how, {}, () => natives.get(this).start(json, how));
      }
    }

    return {
      Provider,
      AnthropicProvider: of("anthropic-messages", "AnthropicProvider"),
      OpenAiProvider: of("openai-completions", "OpenAiProvider"),
      OpenAiResponsesProvider: of("openai-responses", "OpenAiResponsesProvider"),
      GeminiProvider: of("google-generative-ai", "GeminiProvider"),
      OllamaProvider: of("ollama", "OllamaProvider"),
      FailoverProvider,
    };
  }

  /** The classes around the native channels, one for each platform. */
  function channelClasses(NativeChannel, names, ids) {
    const natives = new WeakMap();
    const wrong = (message) => Object.assign(new Error(message), { code: "VALIDATION" });
    const isObject = (value) => typeof value === "object" && value !== null;
    /** Messages that cross at once. */
    const BATCH = 64;

    /** Acknowledgements of one turn of the event loop go together. */
    class Acks {
      #native;
      #numbers = [];
      #flush;
      #latest;

      constructor(native) {
        this.#native = native;
      }

      add(number) {
        this.#numbers.push(number);
        this.#flush ??= new Promise((resolve) => setImmediate(resolve)).then(() => {
          const numbers = this.#numbers;
          this.#numbers = [];
          this.#flush = undefined;
          return this.#native.ack(numbers);
        });
        this.#latest = this.#flush;
        return this.#flush;
      }

      /** Done once what was acknowledged so far is on the disk, awaited or not. */
      async settled() {
        await this.#latest?.catch(() => {});
      }
    }

    function message(native, acks, [number, redelivered, message]) {
      message.redelivered = redelivered;
      message.ack = () => acks.add(number);
      for (const attachment of message.attachments) {
        const json = JSON.stringify(attachment);
        attachment.download = async (options) => native.download(json, options?.maxBytes, options?.signal);
      }
      return message;
    }

    /** One iteration over a channel's messages. */
    class Messages {
      #native;
      #acks;
      #signal;
      #unlisten;
      #forget;
      #stop = new AbortController();
      #batch = [];
      #pending;
      #over = false;

      constructor(native, acks, live, signal) {
        this.#native = native;
        this.#acks = acks;
        if (signal !== undefined && typeof signal?.addEventListener !== "function")
          throw wrong("`signal` must be an AbortSignal");
        this.#signal = signal;
        const end = () => this.#end();
        live.add(end);
        this.#forget = () => live.delete(end);
        this.#unlisten = () => signal?.removeEventListener("abort", end);
        if (signal?.aborted) this.#end();
        else signal?.addEventListener("abort", end, { once: true });
      }

      async next() {
        while (this.#batch.length === 0) {
          if (this.#signal?.aborted) throw this.#signal.reason;
          if (this.#over) return { done: true, value: undefined };
          this.#pending ??= this.#fill().finally(() => {
            this.#pending = undefined;
          });
          await this.#pending;
        }
        return { done: false, value: message(this.#native, this.#acks, this.#batch.shift()) };
      }

      async #fill() {
        let text;
        try {
          text = await this.#native.next(BATCH, this.#stop.signal);
        } catch (error) {
          if (this.#over) return;
          this.#end();
          throw error;
        }
        const batch = text === null ? [] : JSON.parse(text);
        if (text === null) this.#end();
        else if (this.#over) this.#release(batch);
        else this.#batch = batch;
      }

      #release(batch) {
        if (batch.length > 0) this.#native.release(batch.map(([number]) => number));
      }

      /** What has crossed and was not looked at goes back; done once nothing is on its way here any more. */
      async #end() {
        if (!this.#over) {
          this.#over = true;
          this.#unlisten();
          this.#stop.abort();
          this.#release(this.#batch);
          this.#batch = [];
        }
        await this.#pending?.catch(() => {});
        this.#forget();
      }

      async return() {
        await this.#end();
        return { done: true, value: undefined };
      }

      [Symbol.asyncIterator]() {
        return this;
      }

      async [Symbol.asyncDispose]() {
        await this.return();
      }
    }

    class Channel {
      constructor(options, id) {
        if (new.target === Channel || id === undefined)
          throw wrong("a Channel is made as one of its classes, such as TelegramChannel");
        const native = new NativeChannel(id, options);
        natives.set(this, { native, acks: new Acks(native), live: new Set() });
      }

      get id() {
        return natives.get(this).native.id;
      }

      get accountId() {
        return natives.get(this).native.accountId;
      }

      messages(options) {
        if (options !== undefined && !isObject(options)) throw wrong("`options` must be an object");
        const { native, acks, live } = natives.get(this);
        return new Messages(native, acks, live, options?.signal);
      }

      async send(message, options) {
        if (!isObject(message)) throw wrong("`message` must be an object");
        const { attachments = [], idempotencyKey, ...rest } = message;
        if (!Array.isArray(attachments) || !attachments.every((file) => file?.data instanceof Uint8Array))
          throw wrong("`attachments` must be an array of { data: Uint8Array, name }");
        const heads = attachments.map(({ name, mimeType }) => ({ name, mimeType }));
        const files = attachments.map(({ data }) => data);
        const { native } = natives.get(this);
        return native.send(JSON.stringify(rest), JSON.stringify(heads), files, idempotencyKey, options?.signal);
      }

      async edit(to, messageId, text) {
        return natives.get(this).native.edit(to, messageId, text);
      }

      async react(to, messageId, emoji) {
        return natives.get(this).native.react(to, messageId, emoji);
      }

      async typing(to, threadId) {
        return natives.get(this).native.typing(to, threadId);
      }

      status() {
        return JSON.parse(natives.get(this).native.status());
      }

      async close() {
        const { native, acks, live } = natives.get(this);
        // What has crossed, or is about to, and was not looked at is the next channel's, and new to it; so it has to be back
        // before the channel is closed.
        await Promise.all([...[...live].map((end) => end()), acks.settled()]);
        return native.close();
      }

      async [Symbol.asyncDispose]() {
        await this.close();
      }
    }

    class ChannelRegistry {
      #channels = new Map();

      add(channel) {
        if (!natives.has(channel)) throw wrong("`channel` must be a Channel");
        const key = JSON.stringify([channel.id, channel.accountId]);
        if (this.#channels.has(key))
          throw wrong(`there is a channel ${channel.id} of the account ${channel.accountId} already`);
        this.#channels.set(key, channel);
      }

      get(id, accountId = "default") {
        return this.#channels.get(JSON.stringify([id, accountId])) ?? null;
      }

      list() {
        return [...this.#channels.values()].map((channel) => ({
          id: channel.id,
          accountId: channel.accountId,
          status: channel.status(),
        }));
      }

      async closeAll() {
        const channels = [...this.#channels.values()];
        this.#channels.clear();
        await Promise.all(channels.map((channel) => channel.close()));
      }
    }

    const classes = { Channel, ChannelRegistry };
    names.forEach((name, at) => {
      classes[name] = {
        [name]: class extends Channel {
          constructor(options) {
            super(options, ids[at]);
          }
        },
      }[name];
    });
    return classes;
  }

  /** Calls the handler of a tool, and ends its call: with `answer` null the one of this number is aborted. */
  function toolCaller(handler) {
    const running = new Map();
    return (number, id, args, answer) => {
      if (answer === null) {
        const controller = running.get(number);
        running.delete(number);
        controller?.abort();
        return;
      }
      const controller = new AbortController();
      running.set(number, controller);
      const settle = (ok, text) => {
        if (running.delete(number)) answer(ok, text);
      };
      const call = async () => handler(JSON.parse(args), { signal: controller.signal, toolCallId: id });
      call()
        .then((result) => settle(true, JSON.stringify(result) ?? "null"))
        .catch((error) => {
          let text = "the tool failed";
          try {
            text = String(error?.message ?? error);
          } catch {
            // An error that cannot even be shown.
          }
          settle(false, text);
        });
    };
  }

  return {
    appendJson,
    appendSessions,
    channelClasses,
    deferred,
    makers,
    messageValidator,
    providerClasses,
    redact,
    redactBy,
    toolCaller,
    writeEvent,
    writeEvents,
  };
})();
