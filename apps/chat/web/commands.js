// Commands that begin with a slash, as in the terminal.

import { sampling, set } from "./settings.js";

export const HELP = `/new  a new conversation (Alt N)
/again  answer again (Alt R)
/export  this conversation as JSON
/temperature 0.7, /topk 50, /length 300  settings
/system TEXT  a message of the system for this conversation
Enter sends, Shift Enter starts a line, Esc stops, ↑ edits the last message`;

function setNumber(name, low, high, whole, text) {
  const value = Number(text);
  if (!text || !(value >= low && value <= high) || (whole && !Number.isInteger(value))) {
    return `Give ${whole ? "a whole number" : "a number"} from ${low} to ${high}; it is ${sampling()[name]}.`;
  }
  set(name, value);
  return `${name.replace("_", " ")}: ${value}`;
}

/** Run a command. Returns what to say about it, "" for nothing; undefined: it was no command. */
export function run(text, on) {
  const [, name, rest] = /^\/(\w+)\s*([\s\S]*)$/.exec(text) ?? [];
  const known = {
    help: () => HELP,
    new: on.fresh,
    clear: on.fresh,
    again: on.again,
    export: on.exported,
    temperature: () => setNumber("temperature", 0, 2, false, rest),
    topk: () => setNumber("top_k", 0, 200, true, rest),
    length: () => setNumber("max_tokens", 1, 4096, true, rest),
    system: () => on.system(rest.trim()),
  };
  if (name === undefined) return undefined;
  return Object.hasOwn(known, name) ? (known[name]() ?? "") : `There is no command /${name}.\n${HELP}`;
}
