import { api, el, keys, mark, number, plural, t, toast } from "./desk.js";
import { DEFECT, draw } from "./draw.js";
import { Grid, fromRows, picture } from "./grid.js";

const $ = (id) => document.getElementById(id);
const WHO = "defectflow-who"; // as on the page Release
const LABELS = { good: t("good"), bad: t("bad"), unsure: t("not sure") };
const who = () => localStorage.getItem(WHO) || "";
let sessions = { sessions: [], of: {} };
let marks = 0; // drawings saved on this page; in the address, so that the browser loads the new one
let items = [], byName = new Map(), lists = {}, filter = "all", busy = Promise.resolve();

const grid = new Grid($("grid"), {
  fill(cell, item) {
    cell.replaceChildren(el("img", { src: picture(item), alt: "", decoding: "async" }),
      el("span", { class: "caption" }, item.differ ? el("span", { class: "mark differ" }) : mark(item.label, ""), item.marked && el("span", { class: "marked", "aria-hidden": "true" }, "▣"), el("span", { class: "name" }, item.kind || item.name.split("/").pop())));
    cell.dataset.label = item.differ ? "unsure" : item.label;
  },
  label: (item) => `${item.name}, ${item.differ ? t("to settle") : LABELS[item.label] ?? t("no label")}${item.kind ? `, ${item.kind}` : ""}${item.marked ? `, ${t("defect marked")}` : ""}`,
  onmove: preview,
  onselect: () => (about(), preview(grid.current)),
  onopen: () => $("kind").focus(),
});

/** Show a picture; until it has come, nothing is shown: the one before would stand beside the name of this one. */
function load_into(image, source) {
  if (image.getAttribute("src") === source) return;
  image.classList.add("coming");
  image.src = source;
}
for (const image of [$("large"), $("over")]) image.addEventListener("load", () => image.classList.remove("coming"));

let before = "";
function preview(item) {
  $("side").classList.toggle("nothing", !item);
  if (!item) return;
  load_into($("large"), picture(item, "large"));
  $("large").alt = item.name;
  const over = item.marked && item.label === "bad" ? `/api/labels/defect?name=${encodeURIComponent(item.name)}&look=true&at=${marks}` : "";
  $("over").hidden = !over;
  if (over) load_into($("over"), over);
  $("name").textContent = item.name;
  $("label").replaceChildren(item.differ ? el("span", { class: "mark differ" }, t("to settle")) : mark(item.label), item.kind ? ` ${item.kind}` : "");
  opinions(item);
  const why = (lists[filter] ?? []).find((row) => row.name === item.name)?.why;
  $("why").textContent = why || "";
  // The answer to an earlier label must not replace what is being typed.
  if (before !== item.name || document.activeElement !== $("kind")) $("kind").value = item.kind;
  before = item.name;
  const own = item.differ ? item.said.find(([person]) => person === who())?.[1] ?? "" : item.label;
  document.querySelectorAll("[data-label]").forEach((button) => button.tagName === "BUTTON" && button.setAttribute("aria-pressed", String(button.dataset.label === own)));
  const next = grid.items[grid.at + 1];
  if (next) new Image().src = picture(next, "large");
}

const named = (person) => person || t("without a name");
const words = ([, label, kind]) => [LABELS[label] ?? t("no label"), kind].filter(Boolean).join(" ");

/** Each person's label of the photograph that is shown, and if they differ, buttons that settle it. */
function opinions(item) {
  $("said").replaceChildren(...(item.said.length ? [el("span", { class: "muted" }, item.said.map((one) => `${named(one[0])}: ${words(one)}`).join(" · "))] : []));
  $("settle").hidden = !item.differ;
  if (!item.differ) return;
  const choices = [...new Map(item.said.map((one) => [words(one), one])).values()];
  $("choices").replaceChildren(...choices.map((one) => el("button", { onclick: () => settle(one[1], one[2]) }, mark(one[1], words(one)))));
}

/** Settle the label of the chosen photographs, whatever the others have said; it needs a name. */
function settle(label, kind = "") {
  const names = grid.chosen().filter((name) => byName.get(name).differ);
  if (!names.length) return toast(t("Nothing to settle here"));
  if (!who()) return $("who").focus(), toast(t("Say who settles it: your name, at the top."), "bad");
  busy = busy.then(async () => {
    apply((await api("/api/labels/put", { json: { names, label, kind, who: who(), settles: true } })).rows);
    show();
    toast(plural(names.length, "{n} photograph settled", "{n} photographs settled"), "good", [t("Undo"), undo]);
  }).catch(() => {});
}

function about() {
  const n = grid.selected.size;
  $("about").textContent = n > 1 ? t("{n} selected: a label goes to all of them", { n: number(n) }) : "";
}

function counts() {
  const of = (label) => items.filter((item) => item.label === label).length;
  $("count").replaceChildren(mark("good", `${number(of("good"))} ${t("good")}`), " ", mark("bad", `${number(of("bad"))} ${t("bad")}`), " ",
    mark("unsure", `${number(of("unsure"))} ${t("not sure")}`), " ", mark("", `${number(of(""))} ${t("no label")}`));
  const differ = items.filter((item) => item.differ).length;
  const button = document.querySelector('[data-filter="settle"]');
  button.hidden = !differ && filter !== "settle";
  button.textContent = `${t("To settle")} ${number(differ)}`;
  const kinds = [...new Set(items.map((item) => item.kind).filter(Boolean))].sort();
  $("kinds").replaceChildren(...kinds.map((kind) => el("option", { value: kind })));
  const chosen = $("kind-filter").value;
  $("kind-filter").hidden = !kinds.length;
  $("kind-filter").replaceChildren(el("option", { value: "" }, t("all kinds")), ...kinds.map((kind) => el("option", { value: kind, selected: kind === chosen }, kind)));
}

function matching() {
  const session = $("session").value, of = sessions.of, folder = $("folder").value, search = $("search").value.toLowerCase(), kind = $("kind-filter").value;
  const listed = filter in lists ? lists[filter].map((row) => byName.get(row.name)).filter(Boolean) : null;
  const found = (listed ?? items).filter((item) => (!session || of[item.name]?.[0] === Number(session)) &&
    (listed || filter === "all" || (filter === "none" ? !item.label : filter === "settle" ? item.differ : item.label === filter)) &&
    (!folder || item.name.startsWith(folder)) && (!kind || item.kind === kind) && (!search || item.name.toLowerCase().includes(search)));
  return session ? found.sort((one, other) => of[one.name][1] - of[other.name][1]) : found;
}

/** Sessions by time; the server reads them in the background, so ask again until all are there. */
async function times() {
  sessions = await api("/api/labels/sessions", { quiet: true });
  const day = new Intl.DateTimeFormat(document.documentElement.lang, { dateStyle: "medium" });
  const clock = new Intl.DateTimeFormat(document.documentElement.lang, { timeStyle: "short" });
  const span = ({ first, last }) => {
    const [from, to] = [new Date(first), new Date(last)];
    return `${day.format(from)}, ${clock.format(from)} – ${first.slice(0, 10) === last.slice(0, 10) ? "" : `${day.format(to)}, `}${clock.format(to)}`;
  };
  const chosen = $("session").value;
  $("session").hidden = sessions.sessions.length < 2;
  $("session").replaceChildren(el("option", { value: "" }, t("all times")), ...sessions.sessions.map((one, index) =>
    el("option", { value: index, selected: String(index) === chosen }, `${span(one)} · ${number(one.count)}${one.exif ? "" : ` · ${t("file time")}`}`)));
  if (sessions.missing) setTimeout(() => times().catch(() => {}), 1000);
}

function show() {
  const found = matching();
  grid.show(found);
  const texts = {
    settle: [t("Nothing to settle"), t("Photographs that people label differently are listed here; they have no label until that is settled.")],
    next: [t("Nothing to label next"), t("A run lists here the photographs that are most useful to label.")],
    check: [t("No labels to check"), t("A run lists here labels that are probably wrong.")],
    candidates: [t("Nothing stands out"), t("If no photograph has a label, a run lists here those that differ strongly from all others.")],
  };
  $("work").hidden = !found.length;
  $("empty").hidden = found.length > 0;
  if (!found.length) {
    const [title, text] = !items.length ? [t("No photographs yet"), t("Labels need photographs.")] : texts[filter] ?? [t("None of these"), t("No photograph fits these filters.")];
    $("empty-title").textContent = title;
    $("empty-text").textContent = text;
    const [href, words] = !items.length ? ["/photographs", t("Add photographs")] : filter in lists ? ["/runs", t("Run")] : ["", ""];
    $("empty-go").replaceChildren(href ? el("a", { class: "button main", href }, words) : "");
  } else grid.draw(true);
}

async function load(quiet = false) {
  const found = await api("/api/labels/list", { quiet }), fresh = fromRows(found.photographs);
  if (quiet && JSON.stringify([fresh, found.lists]) === JSON.stringify([items, lists])) return;
  items = fresh;
  byName = new Map(items.map((item) => [item.name, item]));
  lists = found.lists;
  for (const [name, rows] of Object.entries(lists)) {
    const button = document.querySelector(`[data-filter="${name}"]`);
    const n = rows.filter((row) => byName.has(row.name)).length;
    button.hidden = !n && filter !== name;
    button.replaceChildren(button.firstChild.textContent.replace(/ \d+$/, ""), n ? ` ${n}` : "");
  }
  const folders = [...new Set(items.flatMap((item) => item.name.includes("/") ? [item.name.slice(0, item.name.lastIndexOf("/") + 1)] : []))].sort();
  $("folder").hidden = !folders.length;
  const folder = $("folder").value;
  $("folder").replaceChildren(el("option", { value: "" }, t("all folders")), ...folders.map((one) => el("option", { value: one, selected: one === folder }, one)));
  counts();
  show();
  if (!quiet) $("grid").focus({ preventScroll: true });
}

/** Coming back to the window: others may have labelled meanwhile, here or in another one. */
function again() {
  if (!document.hidden && !document.querySelector("dialog[open]")) busy = busy.then(() => load(true)).catch(() => {});
}
document.addEventListener("visibilitychange", again);
addEventListener("focus", again);

function apply(rows) {
  const found = fromRows(rows);
  for (const item of found) Object.assign(byName.get(item.name) ?? {}, item);
  grid.refresh(new Set(found.map((item) => item.name)));
  counts();
  return found;
}

/** Label the chosen photographs; after a single one, move on to the next. Requests keep their order. */
function put(change) {
  const names = grid.chosen();
  if (!names.length) return;
  const single = !grid.selected.size;
  const place = grid.at;
  busy = busy.then(async () => {
    const found = await api("/api/labels/put", { json: { names, ...change, who: who() } });
    const differ = apply(found.rows).filter((item) => item.differ);
    if (differ.length) toast(differ.length > 1 ? t("{n} photographs are labelled differently by others: see To settle", { n: number(differ.length) })
      : t("{who} says otherwise: see To settle", { who: differ[0].said.filter(([person]) => person !== who()).map(([person]) => named(person)).join(", ") }));
    if (names.length > 1) toast(plural(found.changed, "{n} photograph labelled", "{n} photographs labelled"), "good", [t("Undo"), undo]);
  }).catch(() => {});
  if (single && change.label !== undefined) grid.go(place + 1);
  busy.then(() => preview(grid.current));
}

function undo() {
  busy = busy.then(async () => {
    const found = await api(`/api/labels/undo?who=${encodeURIComponent(who())}`, { method: "POST" });
    const names = apply(found.rows).map((item) => item.name);
    if (!names.length) return toast(t("Nothing to undo"));
    const index = grid.items.findIndex((item) => item.name === names[0]);
    if (index >= 0 && names.length === 1) grid.go(index);
    preview(grid.current);
    toast(plural(names.length, "Undone for {n} photograph", "Undone for {n} photographs"));
  }).catch(() => {});
}

/** Draw where the defect is on the photograph that is shown. */
function markDefect() {
  const item = grid.current;
  if (!item) return;
  draw(item.name, null, (answer) => {
    marks++;
    const [row] = apply([answer.row]);
    preview(grid.current);
    toast(row.marked ? t("Marked and labelled bad.") : t("The mark is removed."), "good");
    $("grid").focus({ preventScroll: true });
  }, DEFECT);
}

function choose(name) {
  filter = name;
  document.querySelectorAll("[data-filter]").forEach((button) => button.setAttribute("aria-pressed", String(button.dataset.filter === name)));
  grid.select([]);
  show();
}

document.querySelectorAll("[data-filter]").forEach((button) => button.addEventListener("click", () => choose(button.dataset.filter)));
document.querySelectorAll("button[data-label]").forEach((button) => button.addEventListener("click", () => put({ label: button.dataset.label })));
for (const id of ["folder", "session", "kind-filter", "search"]) $(id).addEventListener("input", show);
$("size").addEventListener("input", (event) => {
  grid.cell = Number(event.target.value);
  grid.draw(true);
});
$("undo").addEventListener("click", undo);
$("who").value = who();
$("who").addEventListener("input", () => localStorage.setItem(WHO, $("who").value.trim()));
$("who").addEventListener("keydown", (event) => /^(Enter|Escape)$/.test(event.key) && $("grid").focus({ preventScroll: true }));
$("mark").addEventListener("click", markDefect);
$("kind-form").addEventListener("submit", (event) => {
  event.preventDefault();
  put({ kind: $("kind").value });
  $("grid").focus({ preventScroll: true });
});
$("kind").addEventListener("keydown", (event) => event.key === "Escape" && $("grid").focus({ preventScroll: true }));

const label = (name) => () => put({ label: name });
keys({
  g: [t("Good"), label("good")], b: [t("Bad"), label("bad")], u: [t("Not sure"), label("unsure")], 0: [t("No label"), label("")],
  k: [t("Kind of defect"), () => ($("kind").focus(), $("kind").select())],
  d: [t("Mark the defect"), markDefect],
  "Shift+G": [t("Settle as good"), () => settle("good")], "Shift+B": [t("Settle as bad"), () => settle("bad")],
  z: [t("Undo"), undo], "Ctrl+z": [t("Undo"), undo],
  n: [t("Your name"), () => $("who").focus()],
  1: [t("Show all"), () => choose("all")], 2: [t("Show those without a label"), () => choose("none")], 3: [t("Show what to label next"), () => choose("next")], 4: [t("Show what is to be settled"), () => choose("settle")],
  "/": [t("Go to the pictures (arrows move, Shift and Space select)"), () => $("grid").focus({ preventScroll: true })],
});
await load();
times().catch(() => {});
