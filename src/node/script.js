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

  return { appendJson, appendSessions, deferred, makers, messageValidator, writeEvent, writeEvents };
})();
