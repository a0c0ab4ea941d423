// What the model says. A script is a function of the turn alone, so the same request always gets the same answer.

/**
 * The default: asks for the file that the user names, with whichever tool can read it, then answers with what came back.
 * Without tools, or without a file name, it answers at once.
 */
export function readThenAnswer() {
  return (turn) => {
    const [result] = turn.toolResults;
    if (result)
      return { text: `${result.isError ? "The tool failed" : "The file says"}: ${result.text.trim()}` };
    const file = /\b[\w-]+\.(?:txt|md)\b/.exec(turn.user)?.[0];
    if (file && turn.tools.includes("read"))
      return { text: `I will read ${file}.`, toolCalls: [{ name: "read", arguments: { path: file } }] };
    if (file && turn.tools.includes("exec"))
      return { toolCalls: [{ name: "exec", arguments: { command: `cat ${file}` } }] };
    return { text: `You said: ${turn.user.trim()}` };
  };
}

/** As the default, after a command that looks at the same file: one turn that uses a shell and a file tool. */
export function execThenRead() {
  const read = readThenAnswer();
  return (turn) => {
    const [result] = turn.toolResults;
    const file = /\b[\w-]+\.(?:txt|md)\b/.exec(result?.text ?? turn.user)?.[0];
    if (!result && file && turn.tools.includes("exec"))
      return { toolCalls: [{ name: "exec", arguments: { command: `wc -c ${file}` } }] };
    if (result?.name === "exec" && file) return { toolCalls: [{ name: "read", arguments: { path: file } }] };
    return read(turn);
  };
}

/** Replies given one after the other, whatever is asked; running out is an error. */
export function inOrder(...replies) {
  let next = 0;
  return (turn) => {
    const reply = replies[next++];
    if (!reply) throw new Error(`the script has ${replies.length} replies and was asked for one more`);
    return typeof reply === "function" ? reply(turn) : reply;
  };
}

/** A text in the pieces in which it is streamed: words with the space before them. */
export function pieces(text) {
  return text.match(/\s*\S+\s*$|\s*\S+/g) ?? (text ? [text] : []);
}

/** Tokens, roughly: the APIs count otherwise, but never zero and never less for more text. */
export function tokens(value) {
  return Math.ceil((typeof value === "string" ? value : JSON.stringify(value)).length / 4);
}
