// Model and settings: the dialog, the values in it, light and dark.

import { get, post } from "./api.js";
import * as store from "./store.js";

const byId = (id) => document.getElementById(id);
const SLIDERS = ["temperature", "top_k", "max_tokens"];
const THEMES = ["auto", "light", "dark"];

let status = null;
let values = store.settings();

/** What requests carry. */
export function sampling() {
  const defaults = status?.defaults ?? {};
  return Object.fromEntries(SLIDERS.map((name) => [name, values[name] ?? defaults[name]]));
}

/** The model that the page shows: requests ask for it, and are refused where another tab has loaded another. */
export function model() {
  return status?.model;
}

export function isBase() {
  return status?.kind === "base";
}

/** Ask the server what it serves, and show it. on: told of {status}, or null where the server cannot be reached. */
export async function refresh(on) {
  try {
    status = await get("/api/status");
  } catch {
    status = null;
  }
  byId("dot").className = `dot ${status ? "ready" : "lost"}`;
  byId("model-name").textContent = status ? status.model : "no connection";
  byId("model-kind").textContent = isBase() ? "continues text" : "";
  byId("status").textContent = status
    ? `${status.parameters.toLocaleString("en")} parameters on ${status.device}, context of ${status.context} tokens\n` +
      (isBase() ? "A base model: it continues what you write." : `A chat model (${status.template}).`)
    : "The server does not answer.";
  show();
  on(status);
}

export function set(name, value) {
  values[name] = value;
  store.keepSettings(values);
  show();
}

function show() {
  const now = sampling();
  for (const name of SLIDERS) {
    if (now[name] === undefined) continue;
    if (name === "max_tokens" && status) byId(name).max = Math.max(16, Math.min(4096, status.context));
    byId(name).value = now[name];
    byId(`${name}-value`).textContent = name === "top_k" && now[name] === 0 ? "all" : now[name];
  }
}

export function applyTheme(next = false) {
  if (next) {
    values.theme = THEMES[(THEMES.indexOf(values.theme ?? "auto") + 1) % THEMES.length];
    store.keepSettings(values);
  }
  const theme = values.theme ?? "auto";
  if (theme === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  byId("theme").title = `Theme: ${theme}`;
}

async function listModels() {
  const choice = byId("choice");
  const { checkpoints, loaded } = await get("/api/checkpoints");
  const names = checkpoints.includes(loaded) ? checkpoints : [loaded, ...checkpoints];
  choice.replaceChildren(
    ...names.map((name) => {
      const option = document.createElement("option");
      option.value = option.textContent = name;
      option.selected = name === loaded;
      return option;
    }),
  );
  byId("load").disabled = choice.disabled = !status?.may_load;
}

async function loadModel(changed) {
  const load = byId("load");
  load.disabled = true;
  load.textContent = "Loading…";
  let failure = "";
  try {
    await post("/api/load_checkpoint", { checkpoint: byId("choice").value });
  } catch (error) {
    failure = error.message;
  }
  load.textContent = "Load";
  load.disabled = false;
  await refresh(changed);
  if (failure) byId("status").textContent = failure;
}

/** Wire the dialog. on: {changed, system, system value getter}. */
export function wire({ changed, system, setSystem }) {
  byId("model").addEventListener("click", async () => {
    byId("system").value = system();
    byId("settings").showModal();
    await refresh(changed);
    if (status) await listModels().catch(() => {});
  });
  byId("settings").addEventListener("close", () => setSystem(byId("system").value.trim()));
  byId("settings").addEventListener("click", (event) => {
    if (event.target === byId("settings")) byId("settings").close(); // beside the dialog
  });
  byId("load").addEventListener("click", () => loadModel(changed));
  byId("reset").addEventListener("click", () => {
    for (const name of SLIDERS) delete values[name];
    store.keepSettings(values);
    show();
  });
  for (const name of SLIDERS) byId(name).addEventListener("input", (event) => set(name, Number(event.target.value)));
  byId("theme").addEventListener("click", () => applyTheme(true));
  applyTheme();
}
