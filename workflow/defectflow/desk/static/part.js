// The page The part.
import { api, ask, el, keys, mark, number, t, toast } from "./desk.js";
import { draw } from "./draw.js";

const id = (name) => document.getElementById(name);
const SOURCES = { template: t("registered from outlines"), found: t("found without an outline"), appearance: t("found by its appearance"), whole: t("whole photographs"), constant: t("the mean outline"), "sam2.1": t("found by SAM"), prompted: t("found by SAM"), sam_onnx: t("found by SAM") };
const BATCH = 60;
let data, show = "", rows = [], shown = 0, loaded = 0; // loaded: in addresses, so that the browser shows what was drawn last

const when = (seconds) => new Intl.DateTimeFormat(document.documentElement.lang, { dateStyle: "medium", timeStyle: "short" }).format(new Date(1000 * seconds));
const watch = new IntersectionObserver((seen) => seen.some((one) => one.isIntersecting) && more(), { rootMargin: "500px" });

async function load(found) {
  data = found ?? (await api("/api/part"));
  loaded++;
  const sources = Object.entries(data.sources).map(([source, count]) => `${number(count)} ${SOURCES[source] ?? source}`);
  id("about").textContent = sources.length ? sources.join(", ") : data.total ? t("No run yet") : "";
  id("accept").hidden = !sources.length || Boolean(data.accepted);
  id("told").replaceChildren(told());
  id("sheet").parentElement.hidden = !data.total;
  const choices = [["", t("All {n}", { n: number(data.total) })], ["flagged", t("Doubtful {n}", { n: number(data.flagged) })], ["outlined", t("Outlined {n}", { n: number(data.outlined) })]];
  id("show").replaceChildren(...choices.map(([name, text]) => el("button", { "aria-pressed": String(name === show), onclick: () => ((show = name), fill()) }, text)));
  fill();
}

function told() {
  if (!data.total) return el("div", { class: "panel empty" }, el("h2", {}, t("No photographs yet")), el("p", {}, t("Add some, then outline the part on one of them, or let a run find it.")), el("a", { class: "button main", href: "/photographs" }, t("To the photographs")));
  if (data.accepted) return el("p", { class: "note good" }, t("Accepted {time}{who}. Only what is inside these outlines is judged.", { time: when(data.accepted.time), who: data.accepted.who ? ` (${data.accepted.who})` : "" }));
  if (!Object.keys(data.sources).length) return el("p", { class: "note" }, data.outlined
    ? t("{n} outlined: the next run registers the outline to all photographs.", { n: number(data.outlined) })
    : t("A run finds the part automatically. If it fails, or to be sure, choose a photograph and outline the part on it."));
  if (data.sources.whole) return el("p", { class: "note unsure" }, t("No part was found: whole photographs are judged, including the background. Choose one and outline the part on it."));
  if (data.flagged) return el("p", { class: "note unsure" }, t("{n} are doubtful and shown first. If many are wrong, outline the part on one more photograph.", { n: number(data.flagged) }));
  return el("p", { class: "note" }, t("Check them: the background is darkened. If they are right, accept them."));
}

function fill() {
  for (const [index, button] of [...id("show").children].entries()) button.setAttribute("aria-pressed", String(["", "flagged", "outlined"][index] === show));
  rows = data.rows.filter((row) => !show || row[show]);
  shown = 0;
  id("sheet").replaceChildren();
  more();
  if (!rows.length) id("sheet").append(el("p", { class: "muted" }, t("None.")));
}

function more() {
  id("sheet").querySelector(".more")?.remove();
  id("sheet").append(...rows.slice(shown, shown + BATCH).map((row) => el("button", { class: row.flagged ? "flagged" : "", onclick: () => open(row) },
    el("img", { src: `/api/part/sheet?name=${encodeURIComponent(row.name)}&at=${loaded}`, alt: "", loading: "lazy", decoding: "async" }),
    (row.flagged || row.outlined) && el("span", { class: "said" }, row.flagged ? mark("unsure", row.reason || t("doubtful")) : "", row.outlined ? el("b", {}, t("outlined by hand")) : ""),
    el("span", { class: "name", title: row.name }, row.name.split("/").pop()))));
  shown = Math.min(rows.length, shown + BATCH);
  if (shown < rows.length) {
    const last = el("span", { class: "more" });
    id("sheet").append(last);
    watch.observe(last);
  }
}

function open(row) {
  draw(row.name, rows[rows.indexOf(row) + 1]?.name, (answer) => {
    toast(t("Saved in {file}. The next run registers it to all photographs.", { file: answer.file }), "good", [t("To the page Run"), () => (location.href = "/runs")]);
    load();
  });
}

id("accept").addEventListener("click", async () => {
  await load(await api("/api/part/accept", { json: { who: localStorage.getItem("defectflow-who") || "", stamp: data.stamp } }));
  toast(t("Accepted."), "good");
});

keys({
  o: [t("Outline the first photograph shown"), () => rows.length && open(rows[0])],
  d: [t("Only doubtful ones"), () => ((show = show === "flagged" ? "" : "flagged"), fill())],
  a: [t("Accept the masks shown"), () => id("accept").hidden || id("accept").click()],
  Delete: [t("Remove the outline of the selected photograph"), async () => {
    const row = rows[[...id("sheet").children].indexOf(document.activeElement)];
    if (!row?.outlined || !(await ask(t("Remove the outline of {name}?", { name: row.name }), t("Erase"), true))) return;
    await api("/api/part/remove", { json: { name: row.name } });
    load();
  }],
});
load();
