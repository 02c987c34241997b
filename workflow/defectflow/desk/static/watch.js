// The page Watch.
import { api, ask, el, keys, mark, number, plural, t, toast } from "./desk.js";

const id = (name) => document.getElementById(name);
const NAMES = { exposure: t("Light"), sharpness: t("Sharpness"), area: t("Size of the part"), x: t("Position, horizontal"), y: t("Position, vertical"), grain: t("Grain"), raw_score: t("Scores of good ones") };
const HINTS = { folder: "/mnt/line-3/incoming", camera: t("0, rtsp://camera/stream, or the path of a video file") };
const QUICK = 700, SLOW = 4000, MOST = 300, DRIFT = 25; // ms between requests; pictures kept; new verdicts between two charts
let kind = "folder", rows = [], since = 0, chosen = null, state, sinceDrift = 0, session = "";
let onView = null, replaced = { row: null, at: 0 }; // the verdict in full view, and the one that it has just replaced
const TOO_SOON = 600; // ms in which a press was meant for the one before

const shown = (layer, row, side) => `/api/watch/picture/${layer}?number=${row.number}&side=${side}`;
const score = (row) => (row.score === null ? "" : number(Math.floor(100 * row.score + 1e-8) / 100, 2)); // 0.50 or more is bad
const word = (row) => (row.verdict === "error" ? el("span", { class: "mark unsure" }, t("not judged")) : mark(row.verdict));
const at = (row) => new Intl.DateTimeFormat(document.documentElement.lang, { timeStyle: "medium" }).format(new Date(1000 * row.time));

if (id("source")) {
  pick("folder");
  look();
  drift();
  told();
}

async function look() {
  try {
    take(await api(`/api/watch/state?since=${since}`, { quiet: true }));
  } catch {
    // The next request shows whether the desk answers again.
  }
  setTimeout(look, document.hidden || !state?.watching ? SLOW : QUICK);
}

function take(found) {
  const was = state?.watching;
  if (session && session !== found.session) (rows = []), (chosen = null), (since = 0), id("list").replaceChildren(); // the desk was started again, and counts from 1
  session = found.session;
  state = found;
  id("about").textContent = state.watching
    ? t("Version {version} judges {source}", { version: state.version, source: state.watching.source })
    : t("Version {version} is in use", { version: state.version });
  id("start").hidden = Boolean(state.watching) || kind === "single";
  id("stop").hidden = !state.watching;
  for (const name of ["place", "every"]) id(name).disabled = Boolean(state.watching);
  id("problem").hidden = !state.problem;
  id("problem").textContent = state.problem;
  if (was && !state.watching && !state.problem) toast(t("Stopped watching."));
  const counts = state.counts;
  id("counts").replaceChildren(...["good", "bad", "review"].filter((name) => counts[name]).map((name) => mark(name, `${number(counts[name])} ${{ good: t("good"), bad: t("bad"), review: t("to a person") }[name]}`)),
    counts.error ? el("span", { class: "mark unsure" }, t("{n} not judged", { n: number(counts.error) })) : "", state.passed_over ? el("span", { class: "muted" }, t("{n} files skipped", { n: number(state.passed_over) })) : "");
  const fresh = found.verdicts.filter((row) => row.number > since); // two requests may bring the same ones
  if (fresh.length) {
    since = fresh[0].number;
    rows = [...fresh, ...rows].slice(0, MOST);
    list(fresh);
    if (!chosen) (replaced = { row: onView, at: performance.now() }), now(rows[0]);
    sinceDrift += fresh.length;
    if (sinceDrift >= DRIFT) drift();
  } else if (!rows.length) {
    id("now").replaceChildren(el("p", { class: "muted" }, t("Choose what to watch, and start. Verdicts appear here.")));
    id("list").replaceChildren();
  }
}

function list(fresh) {
  const made = fresh.map((row) => {
    const button = el("button", { "aria-pressed": "false", class: row.feedback ? "told" : "", title: row.name, onclick: () => now(row, true) },
      el("img", { src: shown("photograph", row, 200), alt: "", loading: "lazy", decoding: "async" }),
      el("span", { class: "said" }, word(row), el("span", { class: "mono" }, score(row))));
    button.dataset.number = row.number;
    return button;
  });
  id("list").prepend(...made);
  while (id("list").children.length > MOST) id("list").lastChild.remove();
}

/** Show one verdict in full; `stay`: keep it when new ones arrive. */
function now(row, stay = false) {
  const within = stay && id("now").contains(document.activeElement);
  onView = row;
  chosen = stay ? row : null;
  for (const button of id("list").children) button.setAttribute("aria-pressed", String(stay && Number(button.dataset.number) === row.number));
  const opposite = row.verdict === "bad" ? "good" : "bad";
  const say = (said, text, main = false) => el("button", { class: main ? "main" : "", onclick: () => press(row, said) }, text);
  const buttons = row.verdict === "error" ? [] : row.feedback
    ? [el("span", {}, t("You said:"), " ", mark(row.feedback)), say("", t("Undo this"))]
    : row.verdict === "review" ? [say("good", t("It is good")), say("bad", t("It is bad"))] : [say(opposite, opposite === "good" ? t("Wrong: it is good") : t("Wrong: it is bad"))];
  id("now").replaceChildren(
    el("img", { src: shown(row.verdict === "error" ? "photograph" : "overlay", row, 1000), alt: row.name }),
    el("div", { class: "verdict" }, word(row), el("span", { class: "mono" }, score(row)), el("span", { class: "muted" }, `${row.name} · ${at(row)}`)),
    row.said ? el("p", { class: "muted" }, row.said) : "",
    el("div", { class: "row" }, ...buttons, stay ? el("button", { class: "quiet", onclick: () => rows.length && now(rows[0]) }, t("Follow the latest")) : ""));
  if (within) id("now").querySelector(".row button")?.focus({ preventScroll: true });
}

function press(row, said) {
  if (chosen || !replaced.row || performance.now() - replaced.at > TOO_SOON) return feedback(row, said);
  now(replaced.row, true);
  toast(t("A new verdict came as you pressed. This is the one before: press again if you meant it."));
}

async function feedback(row, said) {
  const answer = await api("/api/watch/feedback", { json: { number: row.number, session, said, who: localStorage.getItem("defectflow-who") || "" } });
  row.feedback = said;
  const own = rows.find((one) => one.number === row.number);
  if (own) own.feedback = said;
  id("list").querySelector(`[data-number="${row.number}"]`)?.classList.toggle("told", Boolean(said));
  now(row, true);
  state.feedback = answer.feedback;
  told();
}

async function told() {
  const all = await api("/api/watch/feedback", { quiet: true }).catch(() => []);
  const good = all.filter((row) => row.said === "good").length;
  id("feedback").replaceChildren(...(all.length
    ? [el("p", {}, `${plural(all.length, "{n} verdict was wrong", "{n} verdicts were wrong")}: ${plural(good, "{n} false alarm", "{n} false alarms")}, ${t("{n} missed", { n: number(all.length - good) })}.`),
      el("p", { class: "muted" }, t("They are saved in feedback.csv. Teaching changes the bundle of the last run, not the one in use: check the result, then release it.")),
      el("div", { class: "row" }, el("button", { class: "main", onclick: teach }, t("Teach the bundle")), el("a", { class: "button", href: "/release" }, t("To the releases"))),
      el("div", { id: "lesson" })]
    : [el("p", { class: "muted" }, t("If a verdict is wrong, mark it below its picture. Corrections are collected here to teach the bundle."))]));
}

async function teach() {
  const button = document.querySelector("#feedback button.main");
  button.disabled = true;
  button.textContent = t("Teaching …");
  try {
    const found = await api("/api/watch/teach", { method: "POST", json: {} });
    id("lesson").replaceChildren(el("pre", { class: "log" }, found.lines.join("\n")));
    toast(t("The bundle of the last run has been taught. Release it to put it into use."), "good");
  } finally {
    button.disabled = false;
    button.textContent = t("Teach the bundle");
  }
}

// --- drift ------------------------------------------------------------------------------------------------------------
const NS = "http://www.w3.org/2000/svg";
function svg(tag, attributes, ...children) {
  const made = document.createElementNS(NS, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

async function drift() {
  sinceDrift = 0;
  id("again").disabled = true;
  let found;
  try {
    found = await api("/api/watch/drift", { quiet: true });
  } catch (error) {
    return id("drift").replaceChildren(el("p", { class: "muted" }, error.message));
  } finally {
    id("again").disabled = false;
  }
  if (!found.charts.length) return id("drift").replaceChildren(el("p", { class: "muted" }, t("Nothing has been judged yet. Light, focus and position of the part are compared here with the good photographs of the run.")));
  const verdict = found.told.length ? el("ul", { class: "told-list" }, ...found.told.map((text) => el("li", {}, el("b", { class: "mark bad" }, text))))
    : el("p", {}, mark("good", t("No drift")), found.few ? el("span", { class: "muted" }, ` ${t("so far: a small change shows after about 50 photographs")}`) : "");
  id("drift").replaceChildren(verdict, el("p", { class: "muted" }, found.line), el("div", { class: "charts" }, ...found.charts.map(chart)));
}

function chart(one) {
  const width = 240, height = 74, reach = 1.15 * Math.max(one.limit, ...one.path.map(Math.abs)), count = one.path.length;
  const x = (index) => (count < 2 ? width / 2 : (index / (count - 1)) * width), y = (value) => height / 2 - (value / reach) * (height / 2);
  const line = (from, to) => one.path.slice(from, to + 1).map((value, index) => `${index ? "L" : "M"}${x(from + index).toFixed(1)} ${y(value).toFixed(1)}`).join("");
  const out = one.alarms.length > 0;
  const drawn = svg("svg", { viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", role: "img", "aria-label": `${NAMES[one.key] ?? one.name}: ${out ? t("changed") : t("as in the run")}` },
    svg("rect", { class: "inside", x: 0, width, y: y(one.limit), height: y(-one.limit) - y(one.limit) }), svg("line", { class: "zero", x1: 0, x2: width, y1: height / 2, y2: height / 2 }),
    svg("line", { class: "limit", x1: 0, x2: width, y1: y(one.limit), y2: y(one.limit) }), svg("line", { class: "limit", x1: 0, x2: width, y1: y(-one.limit), y2: y(-one.limit) }),
    svg("path", { class: "path", d: line(0, count - 1), "vector-effect": "non-scaling-stroke" }),
    ...one.alarms.map(([first, last]) => svg("path", { class: "out", d: line(Math.floor(first * (count - 1)), Math.ceil(last * (count - 1))), "vector-effect": "non-scaling-stroke" })));
  return el("figure", {}, el("figcaption", {}, NAMES[one.key] ?? one.name, out ? mark("bad", t("changed")) : mark("good", t("as in the run"))), drawn);
}

// --- what to watch ------------------------------------------------------------------------------------------------------
function pick(name) {
  kind = name;
  for (const button of id("kind").children) button.setAttribute("aria-pressed", String(button.dataset.kind === name));
  id("place").hidden = name === "single";
  id("place").placeholder = HINTS[name] ?? "";
  id("place-label").textContent = name === "camera" ? t("Camera") : t("Folder");
  id("every-label").hidden = name !== "camera";
  id("files-label").hidden = name !== "single";
  id("start").hidden = Boolean(state?.watching) || name === "single";
}

async function judge(files) {
  for (const file of files) {
    try {
      await api(`/api/watch/judge?name=${encodeURIComponent(file.name.slice(-200))}`, { body: file });
    } catch {
      continue; // api has reported the error; the others are still judged
    }
    chosen = null;
    take(await api(`/api/watch/state?since=${since}`));
    now(rows[0]);
  }
}

if (id("source")) {
  id("kind").addEventListener("click", (event) => event.target.dataset.kind && pick(event.target.dataset.kind));
  id("source").addEventListener("submit", async (event) => {
    event.preventDefault();
    if (kind === "single") return;
    await api("/api/watch/start", { json: { kind, source: id("place").value, every: Number(id("every").value) } });
    chosen = null;
    take(await api(`/api/watch/state?since=${since}`));
  });
  id("stop").addEventListener("click", async () => {
    if (await ask(t("Stop watching?"), t("Stop"))) take(await api("/api/watch/stop", { method: "POST" }).then(() => api(`/api/watch/state?since=${since}`)));
  });
  id("files").addEventListener("change", () => judge([...id("files").files]).then(() => (id("files").value = "")));
  id("again").addEventListener("click", drift);
  document.addEventListener("dragover", (event) => (event.preventDefault(), document.body.classList.add("drops")));
  document.addEventListener("dragleave", (event) => event.relatedTarget || document.body.classList.remove("drops"));
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    document.body.classList.remove("drops");
    pick("single");
    judge([...event.dataTransfer.files]);
  });
  const step = (by) => {
    const place = chosen ? rows.findIndex((row) => row.number === chosen.number) + by : 0;
    if (rows[place]) now(rows[place], true);
  };
  keys({
    ArrowRight: [t("An older one"), () => step(1)],
    ArrowLeft: [t("A newer one"), () => step(-1)],
    w: [t("This verdict is wrong"), () => id("now").querySelector(".row button:not(.quiet)")?.click()],
    l: [t("Follow the latest"), () => rows.length && now(rows[0])],
    s: [t("To the choice of what to watch"), () => id("place").focus()],
  });
}
