// Events as text: tables, lines, colours where a terminal wants them.
import { type Paint, plain } from "../status.js";
import type { StoredEvent } from "./store.js";

/** Something to write to, such as `process.stdout`. */
export interface Output {
  write(text: string): unknown;
  isTTY?: boolean;
  columns?: number;
}
type Environment = Readonly<Record<string, string | undefined>>;

/** An event in a few words. */
export function summary(event: StoredEvent): string {
  const data = (event.data ?? {}) as Record<string, unknown>;
  const entry = (data.entry ?? {}) as { message?: { content?: unknown }; type?: string };
  const inner = (data.data ?? {}) as Record<string, unknown>;
  switch (event.kind) {
    case "tool_called":
      return clean(`${data.name} ${JSON.stringify(data.arguments ?? {})}`);
    case "tool_finished":
      return clean(
        [data.name, data.error ?? "done", data.durationMs && `${data.durationMs} ms`]
          .filter(Boolean)
          .join(" "),
      );
    case "events_lost":
      return clean(
        [
          data.reasons,
          data.runs && `runs ${JSON.stringify(data.runs)}`,
          data.kinds && JSON.stringify(data.kinds),
        ]
          .filter(Boolean)
          .join("; "),
      );
    case "session_started":
    case "session_ended":
      return clean([data.sessionId, data.reason].filter(Boolean).join(" "));
    default: {
      const text = textOf(entry.message?.content) ?? textOf(data.content) ?? textOf(data.text);
      if (text !== undefined) return clean(text);
      if (event.kind.startsWith("agent_")) {
        const { phase, name, title, status, error, ...other } = inner;
        const words = [phase, title ?? name, status, error].filter((word) => typeof word === "string");
        return clean(words.length > 0 ? words.join(" ") : JSON.stringify(other));
      }
      const { sessionId: _sessionId, ...rest } = data;
      return clean(JSON.stringify(data.entry ?? rest));
    }
  }
}

function textOf(content: unknown): string | undefined {
  if (typeof content === "string") return content;
  if (!Array.isArray(content)) return undefined;
  const texts = content.flatMap((block) => (typeof block?.text === "string" ? [block.text] : []));
  return texts.length > 0 ? texts.join(" ") : undefined;
}

/** Text of others on one line, with nothing in it that a terminal would obey. */
export function clean(text: string): string {
  return text
    .replace(/\s+/g, " ")
    .replace(/[\p{Cc}\p{Zl}\p{Zp}\u200e\u200f\u202a-\u202e\u2066-\u2069]/gu, "�")
    .trim();
}

export function printTable(
  output: Output,
  paint: Paint,
  heads: string[],
  rows: string[][],
  right: Set<number>,
): void {
  const last = heads.length - 1;
  const widths = heads.map((head, column) =>
    Math.max(head.length, ...rows.map((row) => row[column]?.length ?? 0)),
  );
  const line = (cells: string[]) =>
    cells.map((cell, column) => {
      if (column === last) return cell;
      const width = widths[column] ?? 0;
      return right.has(column) ? cell.padStart(width) : cell.padEnd(width);
    });
  output.write(`${paint("quiet", line(heads).join("  ").trimEnd())}\n`);
  for (const row of rows) {
    output.write(`${shorten(line(row).join("  ").trimEnd(), roomOf(output))}\n`);
  }
}

/** How many characters a line has; into a pipe, no more than can be of use. */
export function roomOf(output: Output): number {
  return output.columns ?? (output.isTTY ? 80 : 400);
}

export function shorten(text: string, room: number): string {
  const characters = Array.from(text);
  return characters.length <= room ? text : `${characters.slice(0, Math.max(room - 1, 0)).join("")}…`;
}

/** A line on the terminal that is written over; nothing where there is no terminal. */
export class Progress {
  #shown = false;
  readonly #output: Output;
  readonly #mayMove: boolean;
  constructor(output: Output, env: Environment) {
    this.#output = output;
    this.#mayMove = output.isTTY === true && env.TERM !== "dumb";
  }
  show(text: string): void {
    if (!this.#mayMove) return;
    this.#shown = true;
    this.#output.write(`\r\x1b[K${text}`);
  }
  end(): void {
    if (this.#shown) this.#output.write("\r\x1b[K");
  }
}

/** Colours, where there is a terminal that wants them. */
export function painter(output: Output, env: Environment): Paint {
  if (!output.isTTY || env.NO_COLOR || env.TERM === "dumb") return plain;
  const codes = { good: 32, bad: 31, note: 36, quiet: 2 };
  return (tone, text) => `\x1b[${codes[tone]}m${text}\x1b[0m`;
}

export function count(value: number | undefined): string {
  return value === undefined ? "" : value.toLocaleString("en-US");
}

export function plural(value: number, name: string): string {
  return `${count(value)} ${name}${value === 1 ? "" : "s"}`;
}

/** In the time zone of who reads it. */
export function time(ms: number): string {
  const date = new Date(ms);
  if (Number.isNaN(date.getTime())) return String(ms);
  const two = (value: number) => String(value).padStart(2, "0");
  return (
    `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())} ` +
    `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`
  );
}
