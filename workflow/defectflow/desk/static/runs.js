import { ask, api, duration, el, keys, number, plural, t, toast } from "./desk.js";

const $ = (id) => document.getElementById(id);
let timer = null, seen = "", last = "", wasRunning = false;
let asked = 0; // requests for the state: an answer that a newer one has overtaken is not shown

const WORDS = {
  none: ["", t("nothing has run yet")], running: ["busy", t("running")], done: ["good", t("finished")],
  failed: ["bad", t("stopped by an error")], stopped: ["unsure", t("stopped; nothing is lost")],
  interrupted: ["unsure", t("interrupted; start again to continue")],
};

// --- the run ------------------------------------------------------------------------------------------------------
async function look() {
  clearTimeout(timer);
  const mine = ++asked;
  try {
    const state = await api("/api/runs/state", { quiet: true });
    if (mine !== asked) return;
    show(state);
  } catch (error) {
    if (mine !== asked) return;
    if (error.status === 401) return location.reload();
    $("status").textContent = error.message;
  }
  timer = setTimeout(look, wasRunning ? 1000 : 5000);
}

let first = true;
function show(state) {
  if (first) $("bundle").checked = Boolean(state.targets?.includes("bundle")); // as for the run before, if it is to go on
  first = false;
  const running = state.status === "running";
  const [kind, words] = WORDS[state.status];
  $("status").className = `mark ${kind || "none"}`;
  $("status").textContent = words;
  const spent = state.started ? duration(Math.max(0, (state.ended ?? state.now) - state.started)) : "";
  $("time").textContent = !state.started ? "" : running
    ? [t("for {time}", { time: spent }), state.seconds ? t("about {time} left", { time: duration(state.seconds) }) : ""].filter(Boolean).join(" · ")
    : t("{when}, took {time}", { when: new Date(1000 * (state.ended ?? state.started)).toLocaleString(document.documentElement.lang), time: spent });
  $("plan").hidden = running;
  $("start").textContent = running || state.queue.length ? t("Queue another run") : t("Start");
  $("start").classList.toggle("main", !running);
  queue(state.queue, running);
  $("stop").hidden = !running;
  document.querySelectorAll("#questions input:not([value=own]), #questions select, #groups input, #groups select").forEach((one) => (one.disabled = running));
  $("bar").hidden = !running;
  if (running) {
    if (state.total) $("progress").value = (state.done + (state.inside ?? 0)) / state.total;
    else $("progress").removeAttribute("value");
    document.title = state.total ? `${Math.round(100 * state.done / state.total)} % · ${t("Run")}` : t("Run");
    $("planned").hidden = true;
  }
  stages(state.stages ?? [], running, state);
  lines($("problems"), state.errors ?? []);
  lines($("warned"), running || state.status === "done" ? state.warnings ?? [] : []);
  if (wasRunning && !running) {
    document.title = `${t("Run")} · defectflow`;
    if (state.status === "done") toast(t("The run has finished."), "good");
    if (state.status === "failed") toast(t("An error stopped the run."), "bad");
  }
  if (wasRunning && !running || last !== state.run) results();
  wasRunning = running;
  last = state.run ?? "";
  if ($("log-box").open) log();
}

/** The waiting runs, each with a button to remove it; after a run that was stopped or failed, they wait for the user. */
let queued = "";
function queue(list, running) {
  const box = $("queue");
  box.hidden = !list.length;
  const key = JSON.stringify([list, running]);
  if (key === queued) return; // keep the focus on its button
  queued = key;
  const words = (one) => [one.bundle ? t("with the inspector packed") : t("without a bundle"), one.cores === "all" ? "" : t("cores: {n}", { n: one.cores }),
    t("requested at {time}", { time: new Date(1000 * one.asked).toLocaleTimeString(document.documentElement.lang, { timeStyle: "short" }) })].filter(Boolean).join(" · ");
  box.replaceChildren(
    el("div", { class: "row spread" }, el("b", {}, plural(list.length, "{n} run waits", "{n} runs wait")),
      el("div", { class: "row" }, !running && el("button", { class: "main", id: "next", onclick: () => act("next") }, t("Start the next")), el("button", { onclick: () => act("unqueue") }, t("Empty the queue")))),
    el("ol", { class: "queue" }, ...list.map((one) => el("li", {}, words(one), " ", el("button", { class: "quiet", "aria-label": t("Remove: {run}", { run: words(one) }), onclick: () => act("unqueue", { number: one.number }) }, "✕")))),
    el("span", { class: "muted" }, running ? t("They start one after the other, with the labels and settings of that moment.") : t("They wait because the previous run did not finish.")));
}

async function act(path, json = {}) {
  asked++;
  try {
    const state = await api(`/api/runs/${path}`, { json });
    wasRunning ||= path === "start"; // its end is told even if it came at once
    show(state);
  } finally {
    look();
  }
}

function stages(list, running, state) {
  const box = $("stages");
  box.hidden = !list.length || (!running && state.status === "done");
  box.replaceChildren(...list.map((stage) => {
    const now = running && stage.running.length > 0;
    const done = stage.done >= stage.total;
    const word = done ? t("done") : now ? t("now") : t("waits");
    return el("li", { class: done ? "done" : now ? "now" : "waits", "aria-current": now ? "step" : null },
      el("span", { class: "shape", "aria-hidden": "true" }, done ? "✓" : now ? "▸" : "·"),
      el("span", {}, t(stage.words)), el("span", { class: "muted" }, stage.total > 1 ? `${stage.done} / ${stage.total}` : word,
        now && state.inside !== null ? ` · ${Math.round(100 * state.inside)} %` : ""),
      el("small", { class: "muted" }, now ? stage.running[0] : ""));
  }));
}

function lines(box, texts) {
  box.hidden = !texts.length;
  box.replaceChildren(...texts.map((text) => el("div", { class: text.startsWith("  ") ? "inner" : null }, text)));
}

async function results() {
  const box = $("results");
  box.hidden = true;
  const found = await api("/api/runs/reports", { quiet: true }).catch(() => []);
  if (!found.length) return;
  box.replaceChildren(
    el("div", { class: "row" }, el("a", { href: "/verdicts" }, t("To the verdicts")), ...found.slice(0, 4).map((one) =>
      el("a", { href: `/api/runs/report/${one.path}`, target: "_blank", rel: "noopener" }, t("Report of {name}", { name: one.name })))));
  box.hidden = false;
}

async function log() {
  const response = await fetch("/api/runs/log");
  if (!response.ok) return;
  const text = await response.text();
  if (text === seen) return;
  seen = text;
  const box = $("log");
  const atEnd = box.scrollHeight - box.scrollTop - box.clientHeight < 40;
  box.textContent = text;
  if (atEnd) box.scrollTop = box.scrollHeight;
}
$("log-box").addEventListener("toggle", () => $("log-box").open && log());

async function plan() {
  if ($("plan").disabled) return;
  const box = $("planned");
  box.hidden = false;
  box.className = "note";
  box.textContent = t("Checking what has changed ...");
  $("plan").disabled = true;
  try {
    const found = await api(`/api/runs/plan?bundle=${$("bundle").checked}`);
    if (found.errors.length) {
      box.className = "note bad";
      return lines(box, found.errors);
    }
    const time = found.seconds ? t(", about {time}", { time: duration(found.seconds) }) : "";
    box.replaceChildren(
      el("b", {}, found.jobs ? t("{n} jobs in {m} stages", { n: number(found.jobs), m: found.stages.length }) + time : t("Nothing to do: the results are up to date.")),
      el("div", {}, found.stages.map((stage) => t(stage.words)).join(" → ")),
      found.stays.length && found.jobs ? el("div", { class: "muted" }, t("Kept as they are: {stages}", { stages: found.stays.map((words) => t(words)).join(", ") })) : "");
  } catch {
    box.hidden = true;
  } finally {
    $("plan").disabled = false;
  }
}

async function start() {
  if ($("start").disabled) return;
  $("start").disabled = true;
  try {
    const cores = $("cores").value;
    await act("start", { bundle: $("bundle").checked, cores: cores === "all" ? "all" : Number(cores) });
  } finally {
    $("start").disabled = false;
  }
}

async function stop() {
  const waits = JSON.parse(queued || "[[]]")[0].length, run = last;
  const answer = await ask(t("Stop the run? Finished stages are kept; the next run continues from there."), t("Stop"), true, waits ? t("Stop, and start the next") : "");
  if (!answer) return;
  $("stop").disabled = true;
  $("status").textContent = t("stopping ...");
  try {
    await api("/api/runs/stop", { json: { go_on: answer === "other", run } });
  } finally {
    look();
    $("stop").disabled = false;
  }
}

$("plan").addEventListener("click", plan);
$("bundle").addEventListener("change", () => ($("planned").hidden = true));
$("start").addEventListener("click", start);
$("stop").addEventListener("click", stop);
keys({
  p: [t("What would be done?"), plan],
  s: [t("Start the run, or queue it"), start],
  n: [t("Start the next"), () => $("next")?.click()],
  x: [t("Stop the run"), () => !$("stop").hidden && stop()],
  l: [t("Full output"), () => ($("log-box").open = !$("log-box").open)],
});

// --- settings -----------------------------------------------------------------------------------------------------
/** Show the settings; the field in which one types stays as it is, unless it is the one that was `saved`. */
function settings(found, saved = "") {
  for (const [question, { option, share }] of Object.entries(found.answers)) {
    const box = document.querySelector(`[data-question="${question}"]`);
    box.querySelector("[data-own]").hidden = option !== "own";
    box.querySelector(`input[value="${option}"]`).checked = true;
    const select = box.querySelector(`select[data-option="${option}"]`);
    if (select && share) {
      if (![...select.options].some((one) => Number(one.value) === share))
        select.append(el("option", { value: share }, `${Number((100 * share).toPrecision(3))} %`));
      select.value = String(share);
    }
  }
  const focused = document.activeElement, place = $("groups").contains(focused) ? focused.id : "";
  const typed = place && place !== saved && focused.tagName === "INPUT" && focused.value !== focused.defaultValue ? focused.value : null;
  $("groups").replaceChildren(...found.groups.map((group) => el("section", { class: "stack" }, el("h2", {}, t(group.title, { name: group.name })),
    el("table", {}, el("tbody", {}, ...group.fields.map(field))))));
  const again = place && $(place);
  if (!again) return;
  again.focus({ preventScroll: true });
  if (typed === null) return again.select?.();
  again.value = typed; // of the next field, as the answer on the one before came; set so, it would not count as a change
  again.addEventListener("blur", () => again.value === typed && again.value !== again.defaultValue && again.dispatchEvent(new Event("change")), { once: true });
}

function field(one) {
  const id = `set-${one.path}`;
  const choices = one.choices.length ? [...new Set([...one.choices, one.value])] : [];
  const input = choices.length
    ? el("select", { id }, ...choices.map((choice) => el("option", { value: choice, selected: choice === one.value }, choice)))
    : el("input", { id, value: one.changed ? one.value : "", placeholder: one.default === "null" ? "" : one.default, autocomplete: "off", spellcheck: "false" });
  input.addEventListener("change", () => save("/api/runs/setting", { path: one.path, text: input.value }));
  return el("tr", { class: one.changed ? "changed" : null },
    el("th", { scope: "row" }, el("label", { for: id, class: "mono" }, one.key)),
    el("td", {}, input),
    el("td", {}, one.help, " ", el("span", { class: "muted" }, [one.limits || (choices.length ? "" : one.type), one.changed ? t("changed; the default is {value}", { value: one.default }) : ""].filter(Boolean).join(" · "))));
}

async function save(path, json) {
  $("planned").hidden = true; // it was the plan of other settings
  try {
    settings(await api(path, { json }), `set-${json.path}`);
  } catch {
    settings(await api("/api/runs/settings"), `set-${json.path}`);
  }
}

document.querySelectorAll("#questions input").forEach((input) => input.addEventListener("change", () => {
  const share = document.querySelector(`[data-question="${input.name}"] select[data-option="${input.value}"]`);
  save("/api/runs/answer", { question: input.name, option: input.value, share: share ? Number(share.value) : null });
}));
document.querySelectorAll("#questions select.share").forEach((select) => select.addEventListener("change", () => {
  const question = select.closest("[data-question]").dataset.question;
  save("/api/runs/answer", { question, option: select.dataset.option, share: Number(select.value) });
}));

settings(await api("/api/runs/settings"));
look();
