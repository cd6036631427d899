// Conversations and settings in this browser's storage. One key per conversation, so that two tabs do not undo each other.

const PREFIX = "chat.conversation.";
const ACTIVE = "chat.active";
const SETTINGS = "chat.settings";

/** What storage could not do, in words; the page shows it. */
export class StorageFull extends Error {}

function write(key, value) {
  try {
    localStorage.setItem(key, JSON.stringify(value));
  } catch {
    throw new StorageFull("This browser's storage is full or switched off: the conversation is not kept. Delete old ones.");
  }
}

function read(key) {
  try {
    return JSON.parse(localStorage.getItem(key));
  } catch {
    return null; // not ours, or damaged
  }
}

export function fresh() {
  return { id: crypto.randomUUID?.() ?? String(Date.now()) + Math.random(), title: "", changed: Date.now(), system: "", messages: [] };
}

/** All conversations, the last changed first. */
export function all() {
  return Object.keys(localStorage)
    .filter((key) => key.startsWith(PREFIX))
    .map(read)
    .filter((one) => one && typeof one.id === "string" && Array.isArray(one.messages))
    .sort((a, b) => b.changed - a.changed);
}

/** Keep a conversation; one without messages is forgotten. */
export function keep(conversation) {
  if (!conversation.messages.length) return drop(conversation.id);
  conversation.changed = Date.now();
  const first = conversation.messages.find((message) => message.role === "user");
  conversation.title = (first?.content ?? "").slice(0, 80);
  write(PREFIX + conversation.id, conversation);
}

/** Remember which one this tab shows. */
export function show(id) {
  sessionStorage.setItem(ACTIVE, id);
}

export function drop(id) {
  localStorage.removeItem(PREFIX + id);
}

/** The conversation that this tab showed last, or the newest, or a new one. */
export function active() {
  const id = sessionStorage.getItem(ACTIVE);
  const known = all();
  return known.find((one) => one.id === id) ?? (id === null ? known[0] : undefined) ?? fresh();
}

export function settings() {
  return read(SETTINGS) ?? {};
}

/** They hold for this page also where they cannot be kept. */
export function keepSettings(values) {
  try {
    write(SETTINGS, values);
  } catch (error) {
    if (!(error instanceof StorageFull)) throw error;
  }
}

export function isOurs(key) {
  return key === null || key.startsWith(PREFIX);
}
