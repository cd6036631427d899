// What the page asks of the server.

/** An error that the server explained. */
export class Problem extends Error {}

async function explained(response) {
  if (response.ok) return response;
  let message = `${response.status} ${response.statusText}`;
  try {
    message = (await response.json()).error.message;
  } catch {
    // not ours: a proxy's page, perhaps
  }
  throw new Problem(message);
}

export async function get(path) {
  return (await explained(await fetch(path))).json();
}

export async function post(path, body) {
  const options = { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) };
  return (await explained(await fetch(path, options))).json();
}

/**
 * Ask for an answer and yield its parts as they come: {position}, {notice}, {text, tokens, calculations}, {finish, detail}.
 * Throws a Problem for what the server refuses, also in the middle.
 */
export async function* answer(request, signal) {
  const body = { ...request, stream: true, evict: true, stream_options: { include_position: true } };
  const options = { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body), signal };
  const response = await explained(await fetch("/v1/chat/completions", options));
  for await (const event of events(response.body)) {
    if (event.comment !== undefined) {
      const position = /^position (\d+)$/.exec(event.comment);
      if (position) yield { position: Number(position[1]) };
      continue;
    }
    if (event.data === "[DONE]") return;
    const chunk = JSON.parse(event.data);
    if (chunk.error) throw new Problem(chunk.error.message);
    if (chunk.notice) yield { notice: chunk.notice };
    for (const choice of chunk.choices) {
      const { content = "", calculations = [] } = choice.delta;
      if (content || choice.tokens || calculations.length) yield { text: content, tokens: choice.tokens ?? 0, calculations };
      if (choice.finish_reason) yield { finish: choice.finish_reason, detail: choice.detail };
    }
  }
  throw new Problem("The connection ended in the middle of the answer.");
}

/** Server-sent events of a byte stream. What a network chunk cuts in two, a line or a character, is put together again. */
async function* events(stream) {
  const decoder = new TextDecoder();
  const reader = stream.getReader();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      rest += decoder.decode(value, { stream: !done });
      const blocks = rest.split("\n\n");
      rest = blocks.pop();
      for (const block of blocks) {
        if (block.startsWith(":")) yield { comment: block.slice(1).trim() };
        else yield { data: block.split("\n").map((line) => line.replace(/^data: ?/, "")).join("\n") };
      }
      if (done) return;
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}
