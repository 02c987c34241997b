// The page Release.
import { api, el, keys, mark, number, t, toast } from "./desk.js";

const id = (name) => document.getElementById(name);
const WHO = "defectflow-who";
let data;

const when = (seconds) => new Intl.DateTimeFormat(document.documentElement.lang, { dateStyle: "medium", timeStyle: "short" }).format(new Date(typeof seconds === "number" ? 1000 * seconds : seconds));
const percent = (share) => (share === null || share === undefined ? "–" : `${number(Math.round(1000 * share) / 10)} %`);
const digits = (value) => (value === null || value === undefined ? "–" : number(Number(value.toPrecision(5))));

function show(found) {
  data = found;
  const ready = data.candidate, open = ready && !ready.outdated && !ready.released;
  id("about").textContent = data.current ? t("Version {version} is in use", { version: data.current }) : t("Nothing is released yet");
  id("candidate").replaceChildren(candidate(ready));
  id("approve").hidden = !open;
  if (open && !id("version").value) id("version").value = data.suggested;
  if (!id("who").value) id("who").value = localStorage.getItem(WHO) || "";
  choices(open);
  releases();
  audit();
}

function facts(about) {
  return el("dl", { class: "facts" }, ...[
    [t("Run"), about.run], [t("Made"), when(about.time)], [t("Threshold"), digits(about.threshold)],
    [t("Defects found"), about.n_bad ? `${percent(about.recall)} ${t("of {n}", { n: number(about.n_bad) })}` : t("no photograph is labelled bad")],
    [t("False alarms"), about.n_good ? `${percent(about.false_positive_rate)} ${t("of {n}", { n: number(about.n_good) })}` : "–"],
    [t("Taught"), about.taught ? t("version {n}", { n: about.taught }) : null],
  ].filter(([, value]) => value !== null).flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, String(value))]));
}

function candidate(ready) {
  if (!data.run) return el("div", {}, el("p", { class: "muted" }, t("After a run, its bundle is released here.")), el("p", {}, el("a", { class: "button main", href: "/runs" }, t("Start a run"))));
  if (!ready) return el("div", { class: "stack" }, el("p", { class: "muted" }, t("The last run has no bundle yet: it packs the inspector into one folder, in about a minute.")), el("p", {}, el("a", { class: "button main", href: "/runs" }, t("Run with the bundle"))));
  const links = el("div", { class: "row" }, ...reports(""));
  const note = ready.outdated ? el("p", { class: "note unsure" }, t("The run was evaluated again after this bundle was made."), " ", el("a", { href: "/runs" }, t("Make it again")))
    : ready.released ? el("p", { class: "note good" }, t("Released as version {version}.", { version: ready.released })) : null;
  return el("div", { class: "stack" }, facts({ ...ready.figures, run: ready.run, time: ready.time, taught: ready.taught }), note, links);
}

function reports(version) {
  const query = version ? `?version=${encodeURIComponent(version)}` : "";
  return [
    el("a", { class: "button", href: `/api/release/report.html${query}`, target: "_blank", rel: "noopener" }, t("Report")),
    data.pdf ? el("a", { class: "button", href: `/api/release/report.pdf${query}`, download: true, onclick: () => toast(t("Making the PDF takes some seconds.")) }, "PDF")
      : version ? null : el("span", { class: "muted" }, t("For a PDF, install Chromium on the machine of the desk, or print the report from your browser.")),
  ].filter(Boolean);
}

function choices(open) {
  const names = data.releases.map((one) => one.version);
  const kept = [id("old").value, id("new").value];
  id("old").replaceChildren(...names.map((name) => el("option", { value: name }, name)));
  id("new").replaceChildren(...(open ? [el("option", { value: "" }, t("the last run"))] : []), ...names.map((name) => el("option", { value: name }, name)));
  const before = open ? data.current ?? names[0] : names.find((name) => name !== names[0]);
  id("old").value = names.includes(kept[0]) && !open ? kept[0] : before ?? "";
  id("new").value = open ? "" : names[0] ?? "";
  id("changes").hidden = !names.length || (!open && names.length < 2);
  if (!id("changes").hidden) difference();
}

async function difference() {
  const old = id("old").value, next = id("new").value;
  if (!old || old === next) return id("difference").replaceChildren(el("p", { class: "muted" }, t("Choose two different releases.")));
  const found = await api(`/api/release/compare?${new URLSearchParams({ old, new: next })}`);
  if (old !== id("old").value || next !== id("new").value) return; // two others have been chosen meanwhile
  const rows = found.changed.map((row) => el("tr", {}, el("td", {}, row.filename), el("td", {}, mark(row.label), row.kind ? ` ${row.kind}` : ""),
    el("td", {}, mark(row.before)), el("td", {}, mark(row.after)),
    el("td", {}, row.effect > 0 ? el("span", { class: "mark good" }, t("better")) : row.effect < 0 ? el("span", { class: "mark bad" }, t("worse")) : "")));
  const left = found.only_old + found.only_new;
  id("difference").replaceChildren(
    el("div", { class: "tally" }, el("span", {}, el("b", {}, number(found.changed.length)), ` ${t("of {n} verdicts change", { n: number(found.both) })}`),
      el("span", {}, el("b", {}, number(found.better)), ` ${t("become right")}`), el("span", {}, el("b", {}, number(found.worse)), ` ${t("become wrong")}`)),
    el("p", { class: "muted" }, t("Verdicts of the two runs on the same photographs, each held out."), left ? ` ${t("{n} photographs are in only one of the two.", { n: number(left) })}` : ""),
    rows.length ? el("div", { class: "scroll" }, el("table", {}, el("thead", {}, el("tr", {}, ...[t("Photograph"), t("Label"), t("Before"), t("After"), ""].map((text) => el("th", { scope: "col" }, text)))), el("tbody", {}, ...rows))) : "");
}

function releases() {
  if (!data.releases.length) return id("releases").replaceChildren(el("p", { class: "muted" }, t("None yet. A release keeps its bundle, report and verdicts; later runs do not change them.")));
  const rows = data.releases.map((one) => {
    const used = one.version === data.current;
    return el("tr", { class: used ? "in-use" : "" }, el("td", {}, el("b", {}, one.version), used && el("span", { class: "badge" }, t("in use"))), el("td", {}, when(one.time)), el("td", {}, one.who),
      el("td", { class: "number" }, digits(one.threshold)), el("td", { class: "number" }, percent(one.recall)), el("td", { class: "number" }, percent(one.false_positive_rate)), el("td", { class: "about" }, one.note),
      el("td", {}, el("div", { class: "row" }, !used && el("button", { onclick: () => use(one) }, t("Use it")), ...reports(one.version), el("a", { class: "button", href: `/api/release/bundle.zip?version=${encodeURIComponent(one.version)}`, download: true }, t("Bundle")))));
  });
  id("releases").replaceChildren(el("table", {}, el("thead", {}, el("tr", {}, ...[t("Version"), t("Released"), t("Approved by"), t("Threshold"), t("Defects found"), t("False alarms"), t("What is new"), ""].map((text, index) => el("th", { scope: "col", class: index > 2 && index < 6 ? "number" : "" }, text)))), el("tbody", {}, ...rows)));
}

function audit() {
  const rows = data.audit.map((one) => el("tr", {}, el("td", { class: "number" }, String(one.number)), el("td", {}, when(one.time)), el("td", {}, one.who), el("td", {}, one.action === "released" ? t("released") : t("put in use")),
    el("td", {}, el("b", {}, one.version)), el("td", { class: "about" }, one.note), el("td", { class: "mono hash", title: one.bundle_sha256 }, one.bundle_sha256.slice(0, 12))));
  id("audit").replaceChildren(
    data.audit_wrong ? el("p", { class: "note bad" }, data.audit_wrong) : "",
    rows.length ? el("table", {}, el("thead", {}, el("tr", {}, ...["#", t("Time"), t("Who"), t("What"), t("Version"), t("Note"), t("Bundle")].map((text, index) => el("th", { scope: "col", class: index ? "" : "number" }, text)))), el("tbody", {}, ...rows))
      : el("p", { class: "muted" }, t("Every release and every change of the version in use is recorded here permanently.")));
}

id("approve").addEventListener("submit", async (event) => {
  event.preventDefault();
  localStorage.setItem(WHO, id("who").value);
  const version = id("version").value, button = id("approve").querySelector("button");
  button.disabled = true;
  try {
    show(await api("/api/release", { json: { version, note: id("note").value, who: id("who").value, sha256: data.candidate.sha256 } }));
  } finally {
    button.disabled = false;
  }
  id("version").value = id("note").value = "";
  toast(t("Version {version} is released and in use.", { version }), "good");
});

/** Put another release into use: asks for the name and the reason. */
function use(one) {
  const who = el("input", { id: "use-who", required: true, maxlength: 100, value: localStorage.getItem(WHO) || "" }), why = el("textarea", { id: "use-note", rows: 2, maxlength: 2000 });
  const form = el("form", { method: "dialog", class: "stack" }, el("label", { for: "use-who" }, t("Approved by")), who, el("label", { for: "use-note" }, t("Why")), why,
    el("div", { class: "row" }, el("button", { type: "button", class: "quiet", onclick: () => dialog.close() }, t("Cancel")), el("button", { class: "main" }, t("Put {version} into use", { version: one.version }))));
  const dialog = el("dialog", { "aria-label": t("Put {version} into use", { version: one.version }) }, el("h2", {}, t("Put version {version} into use instead of {now}", { version: one.version, now: data.current ?? "–" })), form);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    localStorage.setItem(WHO, who.value);
    show(await api("/api/release/use", { json: { version: one.version, note: why.value, who: who.value } }));
    dialog.close();
    toast(t("Version {version} is in use.", { version: one.version }), "good");
  });
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
}

for (const name of ["old", "new"]) id(name).addEventListener("change", difference);
keys({
  v: [t("To the version"), () => id("version").focus()],
  r: [t("Open the report"), () => document.querySelector("#candidate a[target]")?.click()],
});
show(await api("/api/release"));
