// Work off the hot path: comparing native answers with the originals', and the report an operator reads before
// switching a module on. What may be secret never reaches the report: values are described, text is masked.
import { createHmac, randomBytes } from "node:crypto";
import {
  appendFileSync,
  closeSync,
  existsSync,
  fstatSync,
  mkdirSync,
  openSync,
  readFileSync,
  readSync,
  renameSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";

const QUEUE_JOBS = 256;
const QUEUE_BYTES = 16 * 1024 * 1024;
const BATCH_MS = 5;
const EXIT_MS = 500;
const DISTINCT = 10_000;
/** Comparisons of a process that are not timed: its code is cold. And how many timings a report has. */
const [COLD, PAIRS] = [10, 64];
/** From so many timings on they say something. */
const TIMED = 30;
const SAMPLES = 20;
const EXCERPT = 400;
const FILE_BYTES = 1024 * 1024;
const SUMMARY_MS = 60_000;

/** A bounded queue of jobs that run when the event loop has nothing better to do, and at exit for a short while. */
export class Background {
  readonly #jobs: { bytes: number; job: () => void }[] = [];
  #bytes = 0;
  #scheduled = false;
  /** Jobs that were not run because the queue was full or the process ended. */
  dropped = 0;

  /** Takes a job that holds on to `bytes` of input; false when there is no room for it. */
  add(bytes: number, job: () => void): boolean {
    if (this.#jobs.length >= QUEUE_JOBS || this.#bytes + bytes > QUEUE_BYTES) {
      this.dropped++;
      return false;
    }
    this.#jobs.push({ bytes, job });
    this.#bytes += bytes;
    this.#schedule();
    return true;
  }

  /** Runs what is left, for at most half a second; the rest counts as dropped. */
  finish(): void {
    this.#run(EXIT_MS);
    this.dropped += this.#jobs.length;
    this.#jobs.length = 0;
    this.#bytes = 0;
  }

  #schedule(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    setImmediate(() => {
      this.#scheduled = false;
      this.#run(BATCH_MS);
      if (this.#jobs.length > 0) this.#schedule();
    }).unref();
  }

  #run(milliseconds: number): void {
    const end = performance.now() + milliseconds;
    for (let next = this.#jobs.shift(); next; next = this.#jobs.shift()) {
      this.#bytes -= next.bytes;
      next.job();
      if (performance.now() > end) return;
    }
  }
}

/** What one side answered. */
export type Outcome = { value: unknown } | { error: unknown };

/** Sums of one module's comparisons. */
export interface ShadowCounts {
  calls: number;
  bytes: number;
  /** Different inputs, counted to ten thousand: a thousand equal calls prove no more than one. */
  distinct: number;
  compared: number;
  differences: number;
  /** Calls that were not compared, for lack of room or time. */
  dropped: number;
}

/** A line of the report: sums since the line before, of one process. */
export interface ShadowSummary extends ShadowCounts {
  kind: "summary";
  /** Hashes of inputs that are new in the process. */
  inputs: string[];
  /** What both sides took on one input, in turns first: native, original. */
  pairs: [nativeNs: number, originalNs: number][];
}

/** Over all processes so far. */
export interface ShadowTotals extends ShadowCounts {
  /** Of a call, the median; once there are enough calls for one. */
  nativeNs?: number;
  originalNs?: number;
}

/** Compares both sides of one module's calls and writes down where they differ. */
export class Shadow {
  readonly counts: ShadowCounts = {
    calls: 0,
    bytes: 0,
    distinct: 0,
    compared: 0,
    differences: 0,
    dropped: 0,
  };
  readonly #module: string;
  readonly #queue: Background;
  readonly #folder: () => string | undefined;
  readonly #context: Record<string, unknown>;
  readonly #inputs = new Set<string>();
  #key: Buffer | undefined;
  #fresh: string[] = [];
  #pairs: [number, number][] = [];
  #samples = 0;
  #reported: ShadowCounts = { ...this.counts };
  #reportedAt = performance.now();

  constructor(
    module: string,
    queue: Background,
    folder: () => string | undefined,
    context: Record<string, unknown>,
  ) {
    this.#module = module;
    this.#queue = queue;
    this.#folder = folder;
    this.#context = context;
  }

  /**
   * Notes a call; later runs both sides again on the same input. Both must depend on nothing else. They are timed where both do
   * the same work.
   */
  observe(
    name: string,
    input: string,
    original: () => unknown,
    native: () => unknown,
    { isTimed = true } = {},
  ): void {
    const bytes = Buffer.byteLength(input);
    this.counts.calls++;
    this.counts.bytes += bytes;
    const queued = this.#queue.add(bytes, () => {
      this.#inputSeen(name, input);
      // Whoever runs second finds the input in the caches.
      const nativeFirst = this.counts.compared % 2 === 1;
      const early = nativeFirst ? timed(native) : undefined;
      const expected = timed(original);
      const found = early ?? timed(native);
      if (isTimed && this.counts.compared >= COLD && this.#pairs.length < PAIRS)
        this.#pairs.push([found.ns, expected.ns]);
      this.compare(name, input, expected.outcome, found.outcome);
      if (performance.now() - this.#reportedAt > SUMMARY_MS) this.report();
    });
    if (!queued) this.counts.dropped++;
  }

  /** Holds the two outcomes against each other. */
  compare(name: string, input: string, original: Outcome, native: Outcome): void {
    this.counts.compared++;
    const difference = compareOutcomes(original, native);
    if (!difference) return;
    this.counts.differences++;
    if (this.#samples >= SAMPLES) return;
    this.#samples++;
    this.#append({
      kind: "difference",
      function: name,
      ...difference,
      inputBytes: Buffer.byteLength(input),
      input: mask(input.slice(0, EXCERPT)),
    });
  }

  /** Appends what was counted since the last report. */
  report(): void {
    const { counts } = this;
    counts.dropped = Math.max(counts.dropped, counts.calls - counts.compared);
    const line: Record<string, unknown> = { kind: "summary", inputs: this.#fresh, pairs: this.#pairs };
    for (const key of Object.keys(counts) as (keyof ShadowCounts)[]) {
      line[key] = counts[key] - this.#reported[key];
    }
    if (line.calls === 0 && line.compared === 0) return;
    this.#reportedAt = performance.now();
    if (!this.#append(line)) return;
    [this.#fresh, this.#pairs] = [[], []];
    this.#reported = { ...counts };
  }

  #inputSeen(name: string, input: string): void {
    if (this.#inputs.size >= DISTINCT) return;
    this.#key ??= inputKey(this.#folder());
    const hash = createHmac("sha256", this.#key).update(`${name}\0${input}`).digest("base64url").slice(0, 8);
    if (this.#inputs.has(hash)) return;
    this.#inputs.add(hash);
    this.#fresh.push(hash);
    this.counts.distinct = this.#inputs.size;
  }

  #append(line: Record<string, unknown>): boolean {
    const folder = this.#folder();
    if (!folder) return false;
    try {
      mkdirSync(folder, { recursive: true, mode: 0o700 });
      const file = reportFile(folder, this.#module);
      const size = statSync(file, { throwIfNoEntry: false })?.size ?? 0;
      if (size > FILE_BYTES) renameSync(file, `${file}.1`);
      const record = { time: new Date().toISOString(), ...this.#context, ...line };
      const begin = endsWithin(file) ? "\n" : "";
      appendFileSync(file, `${begin}${JSON.stringify(record)}\n`, { mode: 0o600 });
      return true;
    } catch {
      // A report that cannot be written must not disturb the host; the counts stay in the statistics, and for the next one.
      return false;
    }
  }
}

/** Whether a file ends within a line, which a disk that was full has cut off. */
function endsWithin(file: string): boolean {
  if (!existsSync(file)) return false;
  const open = openSync(file, "r");
  try {
    const last = Buffer.alloc(1);
    const { size } = fstatSync(open);
    return size > 0 && readSync(open, last, 0, 1, size - 1) === 1 && last.toString() !== "\n";
  } finally {
    closeSync(open);
  }
}

/** The file that a module's differences and sums are appended to. */
export function reportFile(folder: string, module: string): string {
  return join(folder, `shadow-${module}.jsonl`);
}

/** What all processes have reported so far. */
export function readTotals(folder: string, module: string): ShadowTotals | undefined {
  const totals = { calls: 0, bytes: 0, distinct: 0, compared: 0, differences: 0, dropped: 0 };
  const inputs = new Set<string>();
  const pairs: ShadowSummary["pairs"] = [];
  let lines = 0;
  for (const file of [`${reportFile(folder, module)}.1`, reportFile(folder, module)]) {
    if (!existsSync(file)) continue;
    for (const text of readFileSync(file, "utf8").split("\n")) {
      try {
        const line: ShadowSummary = JSON.parse(text);
        if (line.kind !== "summary") continue;
        lines++;
        for (const key of Object.keys(totals) as (keyof typeof totals)[])
          totals[key] += Number(line[key]) || 0;
        for (const input of line.inputs ?? []) inputs.add(input);
        pairs.push(...(line.pairs ?? []));
      } catch {
        // A line cut off by the end of a process.
      }
    }
  }
  if (lines === 0) return undefined;
  const distinct = inputs.size;
  if (pairs.length < TIMED) return { ...totals, distinct };
  const [nativeNs, originalNs] = [0, 1].map((side) => median(pairs.map((pair) => pair[side] ?? 0)));
  return { ...totals, distinct, nativeNs, originalNs } as ShadowTotals;
}

const median = (values: number[]): number => values.sort((a, b) => a - b)[Math.floor(values.length / 2)] ?? 0;

/**
 * The key of the hashes by which inputs are told apart, the same for all processes. It stays out of the reports, so that who is
 * shown one can confirm no guess.
 */
function inputKey(folder: string | undefined): Buffer {
  const key = randomBytes(32);
  if (!folder) return key;
  const file = join(folder, "shadow.key");
  try {
    mkdirSync(folder, { recursive: true, mode: 0o700 });
    writeFileSync(file, key, { flag: "wx", mode: 0o600 });
    return key;
  } catch {
    // It is there, or nothing can be written.
  }
  try {
    return readFileSync(file);
  } catch {
    return key;
  }
}

function timed(run: () => unknown): { outcome: Outcome; ns: number } {
  const began = process.hrtime.bigint();
  let outcome: Outcome;
  try {
    outcome = { value: run() };
  } catch (error) {
    outcome = { error };
  }
  return { outcome, ns: Number(process.hrtime.bigint() - began) };
}

interface Difference {
  what: "value" | "native refused" | "native accepted";
  /** Positions of the keys on the way, not their names: a key may be somebody's number. */
  at?: string;
  original?: string;
  native?: string;
}

function compareOutcomes(original: Outcome, native: Outcome): Difference | undefined {
  if ("error" in original && "error" in native) return undefined; // the original's error is what the caller gets
  if ("error" in native) return { what: "native refused" };
  if ("error" in original) return { what: "native accepted", native: describe(native.value) };
  const found = firstDifference(original.value, native.value);
  return found && { what: "value", at: found.at, ...describePair(found.left, found.right) };
}

/** Where two plain values first differ: kind, -0, key order, prototype and all. Nesting costs heap, not stack. */
export function firstDifference(
  left: unknown,
  right: unknown,
): { at: string; left: unknown; right: unknown } | undefined {
  const todo: { left: unknown; right: unknown; at: string }[] = [{ left, right, at: "" }];
  for (let next = todo.pop(); next; next = todo.pop()) {
    const { left, right, at } = next;
    if (Object.is(left, right)) continue;
    if (!isObject(left) || !isObject(right)) return { at: at || "/", left, right };
    if (
      Array.isArray(left) !== Array.isArray(right) ||
      Object.getPrototypeOf(left) !== Object.getPrototypeOf(right)
    ) {
      return { at: at || "/", left, right };
    }
    const keys = Reflect.ownKeys(left);
    const others = Reflect.ownKeys(right);
    if (keys.length !== others.length || keys.some((key, index) => key !== others[index])) {
      return { at: at || "/", left, right };
    }
    for (let index = keys.length - 1; index >= 0; index--) {
      const key = keys[index] as string;
      todo.push({ left: left[key], right: right[key], at: at.length < 200 ? `${at}/${index}` : at });
    }
  }
  return undefined;
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null;
}

function describePair(left: unknown, right: unknown): { original: string; native: string } {
  const pair = { original: describe(left), native: describe(right) };
  if (pair.original !== pair.native) return pair;
  const why =
    typeof left === "string" && typeof right === "string"
      ? `other characters from offset ${commonPrefix(left, right)} on`
      : isObject(left)
        ? "other keys, order of keys or prototype"
        : "another value";
  return { original: pair.original, native: `${pair.native}, ${why}` };
}

function commonPrefix(left: string, right: string): number {
  let length = 0;
  while (length < left.length && left[length] === right[length]) length++;
  return length;
}

function describe(value: unknown): string {
  if (typeof value === "string") return `string of ${value.length}`;
  if (typeof value === "number") return Object.is(value, -0) ? "number -0" : `number ${mask(String(value))}`;
  if (Array.isArray(value)) return `array of ${value.length}`;
  if (isObject(value)) return `object of ${Object.keys(value).length} keys`;
  return typeof value === "function" ? "function" : String(value);
}

/** Text with its syntax and length kept and its content gone: letters become x, digits 9, the rest of the world u. */
export function mask(text: string): string {
  return text.replace(
    /\\[^A-Za-z0-9]|\\[bfnrtv0ux]|\b(?:true|false|null|Infinity|NaN|__proto__)\b|[A-Za-z]|[0-9]|[^\0-\x7f]/g,
    (part) => {
      if (part.length > 1) return /[^\0-\x7f]/.test(part) ? "\\u" : part;
      if (/[A-Za-z]/.test(part)) return "x";
      if (/[0-9]/.test(part)) return "9";
      return /\s|\ufeff/.test(part) ? part : "u";
    },
  );
}
