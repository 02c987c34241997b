import { api, ask, el, keys, mark, number, plural, t, toast } from "./desk.js";
import { Grid, fromRows, picture } from "./grid.js";

const $ = (id) => document.getElementById(id);
const BATCH = { files: 100, bytes: 48e6 };
let total = 0;

const grid = new Grid($("grid"), {
  fill(cell, item) {
    cell.replaceChildren(
      el("img", { src: picture(item), alt: "", loading: "eager", decoding: "async", onerror: (event) => event.target.replaceWith(el("span", { class: "broken" }, t("cannot be shown"))) }),
      el("span", { class: "caption" }, item.label ? mark(item.label, "") : "", el("span", { class: "name" }, item.name.split("/").pop())));
  },
  label: (item) => `${item.name}, ${{ good: t("good"), bad: t("bad"), unsure: t("not sure") }[item.label] ?? t("no label")}`,
  onselect(names) {
    $("remove").hidden = !names.size;
    $("remove").textContent = t("Remove {n}", { n: number(names.size) });
    count();
  },
  onopen: show,
});

function count() {
  const chosen = grid.selected.size ? t(" · {n} selected", { n: number(grid.selected.size) }) : "";
  $("count").textContent = total ? plural(total, "{n} photograph", "{n} photographs") + chosen : t("none yet");
}

async function load() {
  const found = await api("/api/photographs/list");
  total = found.photographs.length;
  $("empty").hidden = total > 0;
  $("grid").hidden = !total;
  grid.show(fromRows(found.photographs));
  count();
  const others = await api("/api/photographs/others", { quiet: true });
  $("others").hidden = !others.length;
  $("others-title").textContent = t("{n} files in the folder are not read", { n: number(others.length) });
  $("others-list").replaceChildren(...others.map((one) => el("li", {}, `${one.name}: ${one.reason}`)));
}

function show(item) {
  const dialog = el("dialog", { class: "viewer", "aria-label": item.name },
    el("img", { src: picture(item, "large"), alt: item.name }),
    el("form", { method: "dialog", class: "row spread" }, el("span", { class: "mono" }, item.name), el("button", { autofocus: true }, t("Close"))));
  dialog.addEventListener("close", () => (dialog.remove(), $("grid").focus({ preventScroll: true })));
  document.body.append(dialog);
  dialog.showModal();
}

// --- uploads ------------------------------------------------------------------------------------------------------
const KINDS = { duplicate: [t("already here"), "unsure"], broken: [t("broken"), "bad"], passed: [t("passed over"), "unsure"] };

async function* entries(items) {
  const queue = items.map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  while (queue.length) {
    const entry = queue.shift();
    if (entry.isFile) {
      const file = await new Promise((resolve, reject) => entry.file(resolve, reject)).catch(() => null);
      if (file) yield [entry.fullPath.replace(/^\//, ""), file];
      else unread.push(entry.fullPath.replace(/^\//, ""));
    } else {
      const reader = entry.createReader();
      for (;;) {
        const some = await new Promise((resolve) => reader.readEntries(resolve, () => (unread.push(entry.fullPath.replace(/^\//, "")), resolve([]))));
        if (!some.length) break;
        queue.push(...some);
      }
    }
  }
}

const unread = []; // files and folders of a drop that the browser could not read

const isTable = (name) => /\.(csv|tsv|json|jsonl|manifest)$/i.test(name);

const nothing = () => ({ added: 0, labels: 0, named: {}, counts: {}, notes: [] });
let sum = nothing(), at_work = 0, delivered = Promise.resolve();

/** Upload files, after those that are still on their way; what these left out stays listed. */
function deliver(files) {
  at_work++;
  delivered = delivered.catch(() => {}).then(() => send(files)).finally(() => at_work--);
  return delivered;
}

async function send(files) {
  if (!files.length && !unread.length) return;
  files.sort((a, b) => isTable(a[0]) - isTable(b[0]));
  let done = 0;
  $("delivery").hidden = false;
  lists(sum);
  const tell = (extra = "") => {
    $("delivery-bar").value = files.length ? done / files.length : 1;
    $("delivery-bar").hidden = done === files.length;
    const bad = Object.values(sum.counts).reduce((a, b) => a + b, 0);
    $("delivery-text").textContent = [done < files.length || extra ? t("{done} of {total} files", { done: number(done), total: number(files.length) }) + extra : t("All {total} files are processed", { total: number(files.length) }),
      plural(sum.added, "{n} photograph added", "{n} photographs added"), sum.labels ? t("{n} labels", { n: number(sum.labels) }) : "", bad ? t("{n} left out", { n: number(bad) }) : ""].filter(Boolean).join(" · ");
  };
  const add = (report) => {
    sum.added += report.added;
    sum.labels += report.labels;
    sum.notes.push(...report.notes);
    for (const [kind, names] of Object.entries(report.named)) (sum.named[kind] ??= []).push(...names);
    for (const [kind, n] of Object.entries(report.counts)) sum.counts[kind] = (sum.counts[kind] ?? 0) + n;
    lists(sum);
  };
  if (unread.length) {
    const broken = unread.splice(0).map((name) => ({ name, reason: t("the browser cannot read it") }));
    add({ added: 0, labels: 0, notes: [], named: { broken }, counts: { broken: broken.length } });
  }
  tell();
  try {
    while (done < files.length) {
      const form = new FormData();
      let bytes = 0, n = 0;
      while (done + n < files.length && n < BATCH.files && (n === 0 || bytes + files[done + n][1].size < BATCH.bytes)) {
        const [name, file] = files[done + n];
        if (n > 0 && isTable(name) && !isTable(files[done][0])) break;
        form.append("image", file, name);
        bytes += file.size;
        n += 1;
      }
      const report = await api("/api/photographs/upload", { body: form });
      add(report);
      for (const archive of report.archives) await follow(archive, tell, add);
      done += n;
      tell();
    }
    toast(plural(sum.added, "{n} photograph added", "{n} photographs added"), "good", [t("Label them"), () => location.assign("/labels")]);
  } catch {
    // api has reported the error; files that were added before it stay
  }
  if (at_work < 2) sum = nothing();
  await load();
}

async function follow(archive, tell, add) {
  for (;;) {
    const report = await api(`/api/photographs/archive/${archive.number}`);
    tell(` · ${archive.name}: ${number(report.done)} / ${number(report.total)}`);
    if (report.ended) return add({ ...report, notes: report.notes.slice(1) });
    await new Promise((resolve) => setTimeout(resolve, 500));
  }
}

function lists(sum) {
  $("delivery-lists").replaceChildren(
    ...sum.notes.map((note) => el("div", { class: "note" }, note)),
    ...Object.entries(sum.named).filter(([, names]) => names.length).map(([kind, names]) => {
      const [words, colour] = KINDS[kind];
      return el("details", { open: names.length <= 12 }, el("summary", { class: `mark ${colour}` }, `${words}: ${number(sum.counts[kind])}`),
        el("ul", { class: "plain" }, ...names.map((one) => el("li", {}, el("span", { class: "mono" }, one.name), ` – ${one.reason}`))));
    }));
}

$("add-files").addEventListener("click", () => $("files").click());
$("add-folder").addEventListener("click", () => $("folder").click());
for (const input of [$("files"), $("folder")])
  input.addEventListener("change", async () => {
    const files = [...input.files].map((file) => [file.webkitRelativePath || file.name, file]);
    input.value = "";
    await deliver(files);
  });
$("delivery-close").addEventListener("click", () => ($("delivery").hidden = true));

const drop = $("drop");
let depth = 0;
addEventListener("dragenter", (event) => event.dataTransfer.types.includes("Files") && (depth++, drop.classList.add("over")));
addEventListener("dragleave", () => --depth <= 0 && ((depth = 0), drop.classList.remove("over")));
addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", async (event) => {
  event.preventDefault();
  depth = 0;
  drop.classList.remove("over");
  const items = [...event.dataTransfer.items].filter((item) => item.kind === "file");
  const plain = [...event.dataTransfer.files].map((file) => [file.name, file]);
  const found = [];
  const folders = items.some((item) => item.webkitGetAsEntry?.()?.isDirectory);
  for await (const one of entries(items)) found.push(one);
  if (folders && !found.length && !unread.length) return toast(t("There are no files in it."));
  await deliver(found.length || unread.length ? found : plain);
});

// --- folders used in place, and removal ----------------------------------------------------------------------------
function toggleTake() {
  const hidden = ($("take").hidden = !$("take").hidden);
  $("take-folder").setAttribute("aria-expanded", String(!hidden));
  if (!hidden) {
    $("take-path").focus();
    taken();
  }
}
async function taken() {
  const found = await api("/api/photographs/taken");
  $("taken").replaceChildren(...found.map((one) => el("li", { class: "row" }, el("span", { class: "mono" }, one.path), el("button", {
    type: "button", onclick: async () => {
      await api("/api/photographs/give-back", { json: { path: one.name } });
      await taken();
      await load();
    },
  }, t("No longer use it")))));
}
$("take-folder").addEventListener("click", toggleTake);
$("take").addEventListener("submit", async (event) => {
  event.preventDefault();
  const found = await api("/api/photographs/folder", { json: { path: $("take-path").value } });
  toast(plural(found.count, "{n} photograph in {name}", "{n} photographs in {name}", { name: found.name }), "good");
  $("take-path").value = "";
  await taken();
  await load();
});
async function remove() {
  const names = [...grid.selected];
  if (!names.length || !(await ask(t("Remove {n} photographs and their labels? They are kept in .desk/removed of the folder.", { n: number(names.length) }), t("Remove"), true))) return;
  const found = await api("/api/photographs/remove", { json: { names } });
  toast(plural(found.removed, "{n} photograph is in {folder} now", "{n} photographs are in {folder} now", { folder: found.folder }));
  await load();
}
$("remove").addEventListener("click", remove);

keys({
  a: [t("Add files"), () => $("files").click()],
  f: [t("Use a folder in place"), toggleTake],
  Delete: [t("Remove the selected photographs"), remove],
  "/": [t("Go to the pictures (arrows move, Space selects, Enter opens)"), () => $("grid").focus({ preventScroll: true })],
});
await load();
