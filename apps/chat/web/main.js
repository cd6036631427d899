// The page: one conversation, its answers as they come, and what keys and buttons do to it.

import { answer } from "./api.js";
import * as commands from "./commands.js";
import * as settings from "./settings.js";
import * as store from "./store.js";
import { drawList, editor, messageItem } from "./view.js";

const byId = (id) => document.getElementById(id);
const [thread, list, input, banner] = ["thread", "messages", "input", "banner"].map(byId);

let conversation = store.active();
let items = [];
let running = null; // the AbortController of the answer under way
let sticky = true; // the end of the conversation is in sight, and stays there

// Drawing

function draw() {
  const messages = conversation.messages;
  items = messages.map((message, number) => messageItem(message, number, { edit, again, copy }));
  items.forEach((item, number) => item.update({ last: number === messages.length - 1 }));
  list.replaceChildren(...items);
  byId("empty").hidden = messages.length > 0;
  drawSide();
  follow(true);
}

function drawSide() {
  drawList(byId("list"), store.all(), conversation.id, { open: openConversation, drop: dropConversation });
}

function follow(always = false) {
  if (always || sticky) thread.scrollTop = thread.scrollHeight;
}

function say(text, plain = false) {
  banner.textContent = text;
  banner.hidden = !text;
  banner.classList.toggle("plain", plain);
}

function setRunning(controller) {
  running = controller;
  byId("stop").hidden = !controller;
  byId("send").hidden = Boolean(controller);
  document.body.dataset.state = controller ? "answering" : "idle";
  thread.setAttribute("aria-busy", Boolean(controller)); // read out when it is whole
}

function fit() {
  input.style.height = "auto";
  input.style.height = `${Math.min(200, input.scrollHeight)}px`;
}

function keep(which = conversation) {
  if (which.dropped) return;
  try {
    store.keep(which);
  } catch (error) {
    say(error.message);
  }
}

// Asking and answering

/** Ask after the first `number` messages, and forget those that came then. */
async function ask(text, number = conversation.messages.length) {
  const before = conversation.messages;
  conversation.messages = [...before.slice(0, number), { role: "user", content: text }];
  keep();
  draw();
  await getAnswer(before, text);
}

/** Answer the last message, which is the user's. before: what there was, should no answer come; typed: the new question. */
async function getAnswer(before, typed = "") {
  const mine = conversation;
  const system = mine.system ? [{ role: "system", content: mine.system }] : [];
  const sent = mine.messages.map(({ role, content }) => ({ role, content }));
  const message = { role: "assistant", content: "", calculations: [], tokens: 0 };
  const controller = new AbortController();
  mine.messages.push(message);
  setRunning(controller);
  draw();
  const item = items.at(-1);
  const shown = () => mine === conversation && item.isConnected;
  let position = 0;
  let first = 0;
  let kept = performance.now();
  let scheduled = false;
  const redraw = () => {
    if (scheduled) return;
    scheduled = true; // once per frame, however fast the tokens come
    requestAnimationFrame(() => {
      scheduled = false;
      if (running !== controller || !shown()) return;
      item.update({ growing: true, position });
      follow();
    });
  };
  item.update({ growing: true });
  try {
    const request = { messages: [...system, ...sent], model: settings.model(), ...settings.sampling() };
    for await (const part of answer(request, controller.signal)) {
      position = part.position ?? 0;
      if (part.notice) message.notice = part.notice;
      if (part.tokens) {
        first ||= performance.now();
        message.tokens += part.tokens;
      }
      message.content += part.text ?? "";
      message.calculations.push(...(part.calculations ?? []));
      if (part.finish) message.end = part.detail;
      if (performance.now() - kept > 1000) {
        kept = performance.now();
        if (shown()) keep();
      }
      redraw();
    }
  } catch (error) {
    if (controller.signal.aborted) message.end = "stopped";
    else failed(mine, message, error, before, typed);
  }
  const seconds = (performance.now() - first) / 1000;
  if (first && message.tokens > 1 && seconds > 0) message.speed = (message.tokens - 1) / seconds;
  if (message.end === "stopped" && !message.content) mine.messages = typed ? mine.messages.slice(0, -1) : before;
  if (running === controller) setRunning(null);
  keep(mine);
  if (mine === conversation) draw();
}

/** An answer that could not be had: all is as before, and the question goes back to where it was typed. */
function failed(mine, message, error, before, typed) {
  const told = error instanceof TypeError ? "The server cannot be reached. Is it running?" : error.message;
  if (message.content) {
    message.end = "failed";
  } else {
    mine.messages = before;
    if (mine === conversation && !input.value) input.value = typed;
    fit();
  }
  say(told);
  settings.refresh(describe);
}

function stop() {
  running?.abort();
}

/** Answer message `number` again, and forget what came after it. */
function again(number) {
  if (running) return;
  const messages = conversation.messages;
  const at = number ?? (messages.at(-1)?.role === "assistant" ? messages.length - 1 : messages.length);
  if (!messages.length || messages[at - 1]?.role !== "user") return;
  conversation.messages = messages.slice(0, at);
  getAnswer(messages);
}

function edit(number) {
  if (running) return;
  const message = conversation.messages[number];
  editor(items[number], message, (text) => ask(text, number), draw);
}

async function copy(number, button) {
  try {
    await navigator.clipboard.writeText(conversation.messages[number].content);
    button.textContent = "Copied";
  } catch {
    button.textContent = "Not allowed";
  }
  setTimeout(() => (button.textContent = "Copy"), 1200);
}

// Conversations

function show(next) {
  stop();
  conversation = next;
  store.show(next.id);
  document.body.classList.remove("side");
  say("");
  draw();
  input.focus();
}

function fresh() {
  show(store.fresh());
}

function openConversation(id) {
  const found = store.all().find((one) => one.id === id);
  if (found) show(found);
}

function dropConversation(id) {
  store.drop(id);
  if (id !== conversation.id) return drawSide();
  conversation.dropped = true; // an answer under way must not bring it back
  fresh();
}

function exported() {
  const content = { exported: new Date().toISOString(), model: byId("model-name").textContent, ...conversation };
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([JSON.stringify(content, null, 1)], { type: "application/json" }));
  link.download = `conversation-${new Date().toISOString().slice(0, 10)}.json`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

function setSystem(text) {
  if (text === conversation.system) return "";
  conversation.system = text;
  keep();
  return text ? "The system's message is set for new answers." : "There is no system's message now.";
}

function describe(status) {
  const base = settings.isBase();
  byId("greeting").textContent = base ? "Begin a text." : "Say something.";
  byId("about").textContent = status
    ? `${status.model}, ${status.parameters.toLocaleString("en")} parameters, ${base ? "continues what you write" : "answers what you ask"}.`
    : "The server does not answer.";
  input.placeholder = base ? "The beginning of a text" : "Message";
}

// Keys and buttons

function send() {
  const text = input.value;
  if (!text.trim() || running) return;
  const said = commands.run(text.trim(), { fresh, again, exported, system: setSystem });
  input.value = "";
  fit();
  if (said !== undefined) return say(said, true);
  say("");
  sticky = true;
  ask(text);
}

byId("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  send();
});
input.addEventListener("input", fit);
input.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    send();
  } else if (event.key === "ArrowUp" && !input.value) {
    const last = conversation.messages.findLastIndex((message) => message.role === "user");
    if (last >= 0) edit(last);
  }
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && running) stop();
  if (!event.altKey || event.ctrlKey || event.metaKey) return;
  const action = { KeyN: fresh, KeyR: () => again() }[event.code];
  if (action) {
    event.preventDefault();
    action();
  }
});
thread.addEventListener("scroll", () => {
  sticky = thread.scrollHeight - thread.scrollTop - thread.clientHeight < 60;
  byId("latest").hidden = sticky;
});
byId("latest").addEventListener("click", () => follow(true));
byId("stop").addEventListener("click", stop);
byId("new").addEventListener("click", fresh);
byId("export").addEventListener("click", exported);
byId("side-open").addEventListener("click", () => document.body.classList.add("side"));
byId("side-close").addEventListener("click", () => document.body.classList.remove("side"));
byId("shade").addEventListener("click", () => document.body.classList.remove("side"));
window.addEventListener("storage", (event) => {
  if (!store.isOurs(event.key)) return;
  const theirs = store.all().find((one) => one.id === conversation.id); // the same one goes on in another tab
  if (!theirs || theirs.changed <= conversation.changed || running || list.querySelector(".edit")) return drawSide();
  conversation = theirs;
  draw();
});
window.addEventListener("pagehide", () => running && keep());

settings.wire({ changed: describe, system: () => conversation.system ?? "", setSystem });
settings.refresh(describe);
setRunning(null);
store.show(conversation.id);
draw();
