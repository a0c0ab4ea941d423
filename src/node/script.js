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
    deferred,
    makers,
    messageValidator,
    redact,
    redactBy,
    toolCaller,
    writeEvent,
    writeEvents,
  };
})();
