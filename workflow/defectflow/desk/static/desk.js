// What all pages share: requests, words, toasts, questions, and keys with their sheet on `?`.

const words = JSON.parse(document.getElementById("words").textContent);
const csrf = document.querySelector('meta[name="csrf"]').content;

/** A text in the chosen language, with {names} filled in. */
export function t(english, values = {}) {
  const text = words[english] || english;
  return text.replace(/\{(\w+)\}/g, (whole, name) => (name in values ? values[name] : whole));
}

/** An element: el("button", { class: "main", onclick: f }, "Run"). Texts never become markup. */
export function el(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === false || value === null || value === undefined) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value === true) made.setAttribute(name, "");
    else made.setAttribute(name, value);
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}

/** The verdict or label as shape, word and colour: good, bad, unsure, review or "". */
export function mark(kind, word) {
  const names = { good: t("good"), bad: t("bad"), unsure: t("not sure"), review: t("look at it"), "": t("no label") };
  return el("span", { class: `mark ${kind || "none"}` }, word ?? names[kind] ?? kind);
}

/**
 * A request to the API; JSON in and out. An error becomes a toast and is thrown, with `quiet` it is only thrown.
 * api("/api/labels", { json: {...} }) sends a POST; { method, body, signal, quiet } as for fetch.
 */
export async function api(path, { json, body, method, signal, quiet = false } = {}) {
  const headers = { Accept: "application/json" };
  method ??= json !== undefined || body !== undefined ? "POST" : "GET";
  if (method !== "GET") headers["X-Desk-CSRF"] = csrf;
  if (json !== undefined) headers["Content-Type"] = "application/json";
  let response, answer;
  try {
    response = await fetch(path, { method, headers, signal, body: json !== undefined ? JSON.stringify(json) : body });
    answer = response.status === 204 ? null : await response.json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    return fail(new Error(t("The desk does not answer. Is it still running in its terminal?")), quiet);
  }
  if (!response.ok) return fail(Object.assign(new Error(answer?.error || response.statusText), { status: response.status }), quiet);
  return answer;
}

function fail(error, quiet) {
  if (!quiet) toast(error.message, "bad");
  throw error;
}

export { csrf };

/** A message that goes away; an error stays until it is closed. `action`: [word, function], e.g. to undo. */
export function toast(text, kind = "", action = null) {
  const shown = el("div", { class: `toast ${kind}`, role: kind === "bad" ? "alert" : "status" }, el("span", {}, text));
  const close = () => shown.remove();
  if (action) shown.append(el("button", { onclick: () => (close(), action[1]()) }, action[0]));
  shown.append(el("button", { class: "quiet", "aria-label": t("Close"), onclick: close }, "✕"));
  const box = document.getElementById("toasts"), place = [...document.querySelectorAll("dialog[open]")].at(-1) ?? document.body;
  if (box.parentElement !== place) place.append(box); // below an open dialog it could be neither seen nor closed
  if (place !== document.body) place.addEventListener("close", () => document.body.append(box), { once: true });
  for (const one of box.children) if (one.firstChild.textContent === text) one.remove();
  box.append(shown);
  while (box.children.length > 4) box.firstChild.remove();
  if (kind !== "bad") setTimeout(close, action ? 9000 : 5000);
  return close;
}

/** A question: "yes" if confirmed, "other" for the alternative, if there is one; "" if cancelled. */
export function ask(text, confirm, danger = false, other = "") {
  return new Promise((resolve) => {
    const dialog = el("dialog", { "aria-label": text },
      el("p", {}, text),
      el("form", { method: "dialog", class: "row", style: null },
        el("button", { value: "", class: "quiet" }, t("Cancel")),
        other && el("button", { value: "other", class: danger ? "danger" : "" }, other),
        el("button", { value: "yes", class: danger ? "danger" : "main" }, confirm)));
    dialog.addEventListener("close", () => (resolve(dialog.returnValue), dialog.remove()));
    document.body.append(dialog);
    dialog.showModal();
  });
}

// --- keys ---------------------------------------------------------------------------------------------------------
const bound = new Map();

/** Keys of a page: keys({ g: ["Good", () => ...], "Shift+A": [...] }). They are ignored while the user types in a field. */
export function keys(table) {
  for (const [key, [text, act]] of Object.entries(table)) bound.set(key, { text, act });
}

function named(event) {
  const key = event.key === " " ? "Space" : event.key.length === 1 && !event.shiftKey ? event.key.toLowerCase() : event.key;
  const shift = event.shiftKey && (key.length > 1 || /[a-z]/i.test(key)) ? "Shift+" : "";
  return `${event.ctrlKey || event.metaKey ? "Ctrl+" : ""}${shift}${key.length === 1 && shift ? key.toUpperCase() : key}`;
}

document.addEventListener("keydown", (event) => {
  if (event.altKey || document.querySelector("dialog[open]")) return;
  const target = event.target;
  if (target.isContentEditable || /^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName) && !/^(checkbox|radio|range|file)$/.test(target.type)) return;
  const name = named(event);
  if (/^(Enter|Space)$/.test(name) && (/^(BUTTON|A|SUMMARY)$/.test(target.tagName) || target.type === "file")) return;
  const found = bound.get(name);
  if (!found) return;
  event.preventDefault();
  if (event.repeat && !/^Arrow/.test(event.key)) return; // a key that is held acts once
  found.act(event);
});

function sheet() {
  const list = el("dl", { class: "keys" });
  for (const [key, { text }] of bound)
    list.append(el("dt", {}, ...key.split("+").map((part) => el("kbd", {}, { ArrowLeft: "←", ArrowRight: "→", ArrowUp: "↑", ArrowDown: "↓" }[part] ?? part))), el("dd", {}, text));
  const dialog = el("dialog", { "aria-label": t("Keys") }, el("h2", {}, t("Keys")), list,
    el("form", { method: "dialog", class: "row" }, el("button", { autofocus: true }, t("Close"))));
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
}

keys({ "?": [t("Show the keys"), sheet] });
document.getElementById("show-keys").addEventListener("click", sheet);
const links = [...document.querySelectorAll(".rail li a")];
const turn = (steps) => () => links[links.findIndex((link) => link.hasAttribute("aria-current")) + steps]?.click();
keys({ ".": [t("Next page"), turn(1)], ",": [t("Previous page"), turn(-1)] });

// --- language and colours ---------------------------------------------------------------------------------------
const theme = document.getElementById("theme");
function colour() {
  const chosen = localStorage.getItem("defectflow-theme") || "";
  document.documentElement.dataset.theme = chosen;
  theme.value = chosen;
}
theme.addEventListener("change", () => (localStorage.setItem("defectflow-theme", theme.value), colour()));
colour();
document.getElementById("language").addEventListener("change", async (event) => {
  await api(`/api/language/${event.target.value}`, { method: "POST" });
  location.reload();
});

/** A number with the separators of the language, with `digits` after the decimal point or else as many as it has. */
export const number = (value, digits) =>
  new Intl.NumberFormat(document.documentElement.lang, { minimumFractionDigits: digits ?? 0, maximumFractionDigits: digits ?? 12 }).format(value);

/** One or many: plural(n, "{n} photograph", "{n} photographs"). Both texts are translated. */
export const plural = (n, one, many, values = {}) => t(n === 1 ? one : many, { n: number(n), ...values });

/** Seconds in words: 40 s, 3 min, 1 h 20 min. */
export function duration(seconds) {
  if (seconds < 90) return t("{n} s", { n: Math.round(seconds) });
  const minutes = Math.round(seconds / 60);
  return minutes < 90 ? t("{n} min", { n: minutes }) : t("{h} h {n} min", { h: Math.floor(minutes / 60), n: minutes % 60 });
}
