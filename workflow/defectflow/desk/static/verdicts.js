// The page Verdicts.
import { api, el, keys, mark, number, t, toast } from "./desk.js";
import { histogram, shortly } from "./histogram.js";
import { marks, source, view } from "./viewer.js";

const RULES = {
  auto: [t("Recommended"), t("good and bad, or only good ones if bad ones are few")],
  cost: [t("Lowest cost"), t("with the costs on the right")],
  f1_adaptive: [t("Largest F1"), t("missed defects and false alarms matter about equally")],
  youden: [t("Balanced"), t("good and bad count equally, whatever their numbers")],
  max_fpr: [t("At most 5 % false alarms"), t("then as few missed defects as possible")],
  max_fnr: [t("At most 5 % missed"), t("then as few false alarms as possible")],
  tail: [t("5 % false alarms, from good ones"), t("bad photographs are not used")],
  conformal: [t("5 % false alarms, guaranteed"), t("needs more photographs")],
};
const OUTCOMES = [["", t("All")], ["missed", t("Missed")], ["alarm", t("False alarms")], ["review", t("To a person")], ["right", t("Right")], ["none", t("No label")]];
const RANK = { missed: 0, alarm: 0, review: 1, right: 2, none: 2 };
const BATCH = 96;

const id = (name) => document.getElementById(name);
let data, chart;
// Where the threshold that is shown comes from: "run", the evaluation; "rule", a strategy; "hand", it was dragged.
let state = { mode: "run", threshold: null, band: null, strategy: "", options: {} };
let filter = { outcome: "", kind: "", group: "", order: "doubt" };

if (id("histogram")) start();

async function start() {
  data = await api("/api/verdicts");
  id("about").textContent = `${data.run.join(" / ")} · ${t("{good} good and {bad} bad photographs, each scored by a model that has not seen it", { good: number(data.n_good), bad: number(data.n_bad) })}`;
  id("legend-none").hidden = !data.photographs.some((one) => one.label === null);
  if (data.threshold === null || !data.photographs.some((one) => one.score !== null)) {
    id("histogram").replaceChildren(el("p", { class: "muted" }, t("There is no threshold yet: label some photographs, and run again.")));
    return;
  }
  chart = histogram(id("histogram"), data.photographs, moved, (one) => open(one));
  id("banded").addEventListener("change", () => moved({ threshold: state.threshold, band: id("banded").checked ? chart.around(state.threshold) : null }));
  id("costs").addEventListener("input", changed);
  id("costs").addEventListener("submit", (event) => event.preventDefault());
  id("use").addEventListener("click", use);
  filters();
  show({ mode: "run", threshold: data.threshold, band: data.band, strategy: data.strategy, options: data.options });
  pending();
  await rules();
}

/** What the page asks of the run that it shows. A newer one has other scores: then it must be loaded again. */
async function ask(path, values = {}, options = {}) {
  try {
    return await api(`/api/verdicts/${path}?${new URLSearchParams({ ...values, stamp: data.stamp })}`, { ...options, quiet: true });
  } catch (error) {
    toast(error.message, "bad", error.status === 409 ? [t("Load it"), () => location.reload()] : null);
    throw error;
  }
}

function costs() {
  const form = new FormData(id("costs"));
  return { miss: Number(form.get("miss")), false_alarm: Number(form.get("false_alarm")), look: Number(form.get("look")), bad_share: Number(form.get("bad_share")) / 100 };
}

// --- the figures ---------------------------------------------------------------------------------------------------
let asking = false, again = false;

/** Figures for the threshold that is shown; of the requests that come up during another one, only the last is sent. */
async function figures() {
  if (asking) { again = true; return; }
  asking = true;
  try {
    do {
      again = false;
      const asked = { ...costs(), threshold: state.threshold };
      if (state.band) [asked.low, asked.high] = state.band;
      const address = state.mode === "run" ? "evaluated" : "figures";
      const found = state.mode === "rule" && state.found ? state.found : await ask(address, asked).catch((error) => ({ error }));
      if (again) continue;
      if (found.error) id("figures").replaceChildren(el("p", { class: "muted" }, found.error.message)); // not those of another threshold
      else tell(found);
    } while (again);
  } finally {
    asking = false;
  }
}

const round = (value) => number(value >= 100 ? Math.round(value) : Number(value.toPrecision(2)));
const percent = (share) => `${round(100 * share)} %`;

function tell(found) {
  const thousand = found.per_thousand, matrix = found.confusion_matrix;
  const between = (entry, as = round) => t("between {low} and {high}", { low: as(entry.interval[0]), high: as(entry.interval[1]) });
  const tile = (text, count, of, rate, per) => el("div", {},
    el("span", {}, text), el("b", {}, t("{n} of {all}", { n: number(count), all: number(of) })),
    el("small", {}, rate ? `${percent(rate.value)}, ${between(rate, percent)}${per ? ` · ${t("{n} of 1,000 parts", { n: round(per.value) })}` : ""}` : t("no such label")));
  const looked = found.good_reviewed + found.bad_reviewed;
  const parts = [
    thousand.cost
      ? el("div", {}, el("div", { class: "big" }, round(thousand.cost.value)), el("div", { class: "muted" }, `${t("per 1,000 parts")}, ${between(thousand.cost)}`))
      : el("p", { class: "muted" }, t("A cost needs photographs that are labelled good and bad.")),
    el("div", { class: "tiles" },
      tile(t("Missed defects"), found.missed, data.n_bad, found.miss_rate, thousand.missed),
      tile(t("False alarms"), found.false_alarms, data.n_good, found.false_alarm_rate, thousand.false_alarms),
      state.band && thousand.looks && el("div", {}, el("span", {}, t("To a person")), el("b", {}, t("{n} of {all}", { n: number(looked), all: number(data.n_good + data.n_bad) })),
        el("small", {}, `${t("{n} of 1,000 parts", { n: round(thousand.looks.value) })}, ${between(thousand.looks)}`))),
    el("table", { class: "matrix" }, el("caption", { class: "hidden" }, t("Verdicts against labels")),
      el("thead", {}, el("tr", {}, el("td"), el("th", { scope: "col", class: "number" }, t("called good")), el("th", { scope: "col", class: "number" }, t("called bad")))),
      el("tbody", {},
        el("tr", {}, el("th", { scope: "row" }, mark("good")), el("td", {}, number(matrix.true_negative)), el("td", { class: matrix.false_positive ? "wrong" : "" }, number(matrix.false_positive))),
        el("tr", {}, el("th", { scope: "row" }, mark("bad")), el("td", { class: matrix.false_negative ? "wrong" : "" }, number(matrix.false_negative)), el("td", {}, number(matrix.true_positive))))),
  ];
  id("figures").replaceChildren(...parts.filter(Boolean));
}

// --- the threshold --------------------------------------------------------------------------------------------------
function show(next) {
  state = { found: null, ...next };
  chart.set({ threshold: state.threshold, band: state.band });
  id("banded").checked = Boolean(state.band);
  id("honest").textContent = {
    run: t("As evaluated: each photograph is judged by a threshold that was chosen on the others. This is what to expect for new parts."),
    rule: t("Each photograph is judged by a threshold that the rule chose on the others: this is what to expect for new parts."),
    hand: t("Scores are held out, but you choose the threshold by looking at them: expect slightly worse results on new parts."),
  }[state.mode];
  id("use").disabled = !different();
  for (const button of document.querySelectorAll("#strategies button")) button.setAttribute("aria-pressed", String(state.mode === "rule" && button.dataset.rule === state.strategy));
  figures();
  gallery();
}

function moved({ threshold, band }) {
  show({ mode: "hand", threshold, band, strategy: "fixed", options: { value: threshold } });
}

function different() {
  const asked = data.setting;
  if (state.mode === "run") return false;
  return asked.strategy !== state.strategy || JSON.stringify(asked.options) !== JSON.stringify(state.options) || Boolean(asked.review) !== Boolean(state.band) || Boolean(state.band);
}

async function use() {
  const { strategy, options, band } = state;
  id("use").disabled = true;
  try {
    data.setting = await ask("setting", {}, { json: { strategy, options, band } });
  } finally {
    id("use").disabled = false;
  }
  const moved = JSON.stringify([strategy, options, band]) !== JSON.stringify([state.strategy, state.options, state.band]);
  id("use").disabled = !moved || !different();
  pending();
  toast(t("Written to config.yaml. The next run evaluates with it, in seconds."), "good", [t("To the page Run"), () => (location.href = "/runs")]);
}

/** Whether config.yaml has another threshold than the one that the run was evaluated with. */
function pending() {
  const { strategy, options, review } = data.setting;
  const same = (a, b) => JSON.stringify(a ?? null) === JSON.stringify(b ?? null);
  const settled = strategy === "auto" ? true : strategy === data.strategy && same(sorted(options), sorted(data.options));
  const open = !settled || !same(review && sorted(review), data.review && sorted(data.review));
  id("pending").hidden = !open;
  if (open) id("pending").replaceChildren(
    `${t("config.yaml has a different threshold from the one that this run was evaluated with:")} ${[strategy, ...Object.entries(options).map(([name, value]) => `${name} ${value}`)].join(", ")}. `,
    el("a", { href: "/runs" }, t("Run again: it takes seconds")));
}

const sorted = (object) => Object.fromEntries(Object.entries(object).sort());

let timer;
function changed() {
  if (!id("costs").checkValidity()) return;
  if (state.mode === "rule") state.found = null;
  if (state.mode !== "rule") figures();
  clearTimeout(timer);
  timer = setTimeout(async () => {
    await api("/api/verdicts/costs", { method: "PUT", json: costs() });
    await rules();
  }, 350);
}

let asked = 0;
async function rules() {
  const mine = ++asked;
  const found = await ask("strategies", costs());
  if (mine !== asked) return; // other costs have been entered meanwhile
  const rows = found.map((rule) => {
    const [text, help] = RULES[rule.strategy] ?? [rule.strategy, ""];
    const pick = () => show({ mode: "rule", threshold: rule.threshold, band: rule.band, strategy: rule.strategy, options: rule.options, found: rule });
    const button = el("button", { class: "quiet", "aria-pressed": "false", disabled: Boolean(rule.problem), title: help, onclick: pick }, text);
    button.dataset.rule = rule.strategy;
    if (rule.problem) return el("tr", {}, el("td", {}, button), el("td", { class: "problem", colspan: 4 }, rule.problem));
    const cost = rule.per_thousand.cost;
    if (state.mode === "rule" && state.strategy === rule.strategy) queueMicrotask(pick);
    return el("tr", {}, el("td", {}, button), el("td", { class: "number" }, shortly(rule.threshold, chart.span)),
      el("td", { class: "number" }, number(rule.missed)), el("td", { class: "number" }, number(rule.false_alarms)),
      el("td", { class: "number" }, cost ? round(cost.value) : "–"));
  });
  id("strategies").replaceChildren(el("table", { class: "strategies" },
    el("thead", {}, el("tr", {}, ...[t("Rule"), t("Threshold"), t("Missed"), t("False alarms"), t("Cost per 1,000")].map((text, index) => el("th", { scope: "col", class: index ? "number" : "" }, text)))),
    el("tbody", {}, ...rows)));
  for (const button of document.querySelectorAll("#strategies button")) button.setAttribute("aria-pressed", String(state.mode === "rule" && button.dataset.rule === state.strategy));
}

// --- the gallery -----------------------------------------------------------------------------------------------------
function verdict(one) {
  if (one.score === null) return "";
  if (state.mode === "run") return one.review ? "review" : one.called === 1 ? "bad" : "good";
  if (state.band && one.score >= state.band[0] && one.score < state.band[1]) return "review";
  return one.score >= state.threshold ? "bad" : "good";
}

function outcome(one) {
  const called = verdict(one);
  if (called === "review") return "review";
  if (one.label === null || called === "") return "none";
  return called === "bad" ? (one.label === 1 ? "right" : "alarm") : one.label === 1 ? "missed" : "right";
}

const label = (one) => (one.label === 1 ? "bad" : one.label === 0 ? "good" : "");

function filters() {
  id("outcomes").replaceChildren(...OUTCOMES.map(([name, text]) => {
    const button = el("button", { "aria-pressed": String(!name), onclick: () => ((filter.outcome = name), gallery()) }, text);
    button.dataset.outcome = name;
    return button;
  }));
  const choices = (name, all) => {
    const found = [...new Set(data.photographs.map((one) => one[name]).filter(Boolean))].sort();
    id(name).replaceChildren(el("option", { value: "" }, all), ...found.map((value) => el("option", { value }, value)));
    id(name).hidden = found.length < 2;
    id(name).addEventListener("change", () => ((filter[name] = id(name).value), gallery()));
  };
  choices("kind", t("All kinds"));
  choices("group", t("All sessions"));
  id("order").addEventListener("change", () => ((filter.order = id("order").value), gallery()));
}

let rows = [], shown = 0, waiting = false;
const watch = "IntersectionObserver" in window && new IntersectionObserver((seen) => seen.some((one) => one.isIntersecting) && more(), { rootMargin: "600px" });

/** Sort and filter; at most once per frame while a handle is dragged. */
function gallery() {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => {
    waiting = false;
    const counts = {};
    for (const one of data.photographs) counts[outcome(one)] = (counts[outcome(one)] || 0) + 1;
    for (const button of id("outcomes").children) {
      const name = button.dataset.outcome;
      button.setAttribute("aria-pressed", String(name === filter.outcome));
      button.textContent = `${OUTCOMES.find(([own]) => own === name)[1]} ${number(name ? counts[name] || 0 : data.photographs.length)}`;
      button.hidden = Boolean(name) && name !== filter.outcome && !counts[name];
    }
    rows = data.photographs.filter((one) => (!filter.outcome || outcome(one) === filter.outcome) && (!filter.kind || one.kind === filter.kind) && (!filter.group || one.group === filter.group));
    const score = (one) => one.score ?? -Infinity, far = (one) => Math.abs(score(one) - state.threshold);
    rows.sort({
      doubt: (a, b) => RANK[outcome(a)] - RANK[outcome(b)] || far(a) - far(b),
      high: (a, b) => score(b) - score(a), low: (a, b) => score(a) - score(b), name: (a, b) => a.name.localeCompare(b.name),
    }[filter.order]);
    id("shown").textContent = number(rows.length);
    shown = 0;
    id("gallery").replaceChildren();
    more();
  });
}

function more() {
  const part = rows.slice(shown, shown + BATCH);
  id("gallery").querySelector(".more")?.remove();
  id("gallery").append(...part.map((one) => {
    const ended = outcome(one), called = verdict(one);
    return el("button", { class: `tile ${ended === "missed" || ended === "alarm" ? "wrong" : ended === "review" ? "review" : ""}`, onclick: () => open(one) },
      el("span", { class: "frame" }, el("img", { src: source(data.stamp, one.id, "photograph", 240), alt: "", loading: "lazy", decoding: "async" })),
      el("span", { class: "said" }, mark(ended === "missed" ? "bad" : called, ended === "missed" ? t("missed") : ended === "alarm" ? t("false alarm") : undefined), el("span", { class: "mono" }, one.score === null ? "–" : shortly(one.score, chart.span))),
      el("span", { class: "name", title: one.name }, [one.kind, one.name.split("/").pop()].filter(Boolean).join(" · ")));
  }));
  shown += part.length;
  if (shown < rows.length) {
    const last = el("span", { class: "more" });
    id("gallery").append(last);
    if (watch) watch.observe(last);
  }
  if (!rows.length) id("gallery").append(el("p", { class: "muted" }, t("None.")));
}

function open(one) {
  const list = rows.includes(one) ? rows : [one];
  view(list, list.indexOf(one), (row) => [...marks(label(row), verdict(row)), el("span", { class: "mono" }, row.score === null ? "" : shortly(row.score, chart.span)), row.kind && el("span", { class: "muted" }, row.kind)].filter(Boolean), data.stamp);
}

keys({
  t: [t("To the threshold: then ← → move it"), () => document.querySelector('[data-handle="threshold"]')?.focus()],
  r: [t("Review band on and off"), () => id("banded")?.click()],
  w: [t("Only missed defects"), () => ((filter.outcome = "missed"), gallery())],
  f: [t("Only false alarms"), () => ((filter.outcome = "alarm"), gallery())],
  a: [t("All photographs"), () => ((filter.outcome = ""), gallery())],
  Enter: [t("Open the first photograph"), () => rows.length && open(rows[0])],
});
