// One photograph in full: the photograph, its heatmap, the outline of the part, boxes; zoom and neighbours.
import { api, el, mark, t } from "./desk.js";

/** Address of a picture; browsers keep it, so it has the `stamp` of the run. */
export const source = (stamp, id, layer, side = 1600) => `/api/verdicts/picture/${layer}?image_id=${encodeURIComponent(id)}&side=${side}&stamp=${stamp}`;
let kept = { base: "photograph", heat: 80, mask: true, boxes: true }; // settings of the last view

/**
 * Open the viewer on `rows[at]` (id, name) of the run `stamp`; `said(row)`: elements for its header.
 */
export function view(rows, at, said, stamp) {
  const title = el("h2", {}), head = el("div", { class: "row" }), stage = el("div", { class: "plate", tabindex: "0", role: "img" });
  const content = el("div", { class: "content" });
  stage.append(content);
  const bases = el("div", { class: "segments", role: "group", "aria-label": t("Picture") });
  const heat = el("input", { type: "range", min: 0, max: 100, value: kept.heat, id: "heat" });
  const mask = el("input", { type: "checkbox", id: "mask" }), boxes = el("input", { type: "checkbox", id: "boxes" });
  mask.checked = kept.mask;
  boxes.checked = kept.boxes;
  const reason = el("span", { class: "muted" });
  const dialog = el("dialog", { class: "loupe", "aria-label": t("Photograph") },
    el("div", { class: "inside" },
      el("header", {}, title, head, el("span", { class: "grow" }), reason,
        el("button", { class: "quiet", "aria-label": t("The one before"), onclick: () => step(-1) }, "←"),
        el("button", { class: "quiet", "aria-label": t("The next one"), onclick: () => step(1) }, "→"),
        el("button", { class: "quiet", "aria-label": t("Close"), onclick: () => dialog.close() }, "✕")),
      stage,
      el("footer", {}, bases, el("label", { class: "row", for: "heat" }, t("Heat"), heat),
        el("label", { class: "row", for: "mask" }, mask, t("Outline of the part")),
        el("label", { class: "row", for: "boxes" }, boxes, t("Damage boxes")), el("span", { class: "grow" }),
        el("button", { "aria-label": t("Smaller"), onclick: () => zoom(1 / 1.4) }, "−"),
        el("button", { onclick: () => fit() }, t("Whole")),
        el("button", { "aria-label": t("Larger"), onclick: () => zoom(1.4) }, "+"))));
  let known = null, scale = 1, x = 0, y = 0;

  async function show() {
    const row = rows[at];
    title.textContent = row.name;
    head.replaceChildren(...said(row));
    known = null;
    reason.textContent = "";
    content.replaceChildren(); // not the photograph before, below the name of this one
    const found = await api(`/api/verdicts/photograph?image_id=${encodeURIComponent(row.id)}&stamp=${stamp}`);
    if (rows[at] !== row) return;
    known = found;
    reason.textContent = known.reason;
    draw();
    fit();
    for (const next of [rows[at + 1], rows[at - 1]]) if (next) new Image().src = source(stamp, next.id, "photograph");
  }

  function draw() {
    if (!known) return;
    const own = known.layers.includes(kept.base) ? kept.base : "photograph";
    const seen = own === "photograph", layers = known.layers;
    bases.replaceChildren(...[["photograph", t("Photograph")], ["part", t("What was judged")], ["heatmap", t("Heat only")]]
      .filter(([name]) => layers.includes(name))
      .map(([name, text]) => el("button", { "aria-pressed": String(name === own), onclick: () => ((kept.base = name), draw(), fit()) }, text)));
    content.replaceChildren();
    content.append(el("img", { src: source(stamp, known.id, own), alt: "" }));
    if (own === "part") return;
    if (seen && layers.includes("heat")) {
      const over = el("img", { class: "heat", src: source(stamp, known.id, "heat"), alt: "" });
      over.style.opacity = kept.heat / 100;
      content.append(over);
    }
    if (kept.mask && layers.includes("mask")) content.append(el("img", { src: source(stamp, known.id, "mask"), alt: "" }));
    if (kept.boxes) {
      const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
      svg.setAttribute("viewBox", `0 0 ${known.width} ${known.height}`);
      for (const [bx, by, width, height, , peak] of known.boxes) {
        const box = document.createElementNS("http://www.w3.org/2000/svg", "rect");
        for (const [name, value] of Object.entries({ x: bx, y: by, width, height, class: peak ? "peak" : "" })) box.setAttribute(name, value);
        svg.append(box);
      }
      content.append(svg);
    }
  }

  function size() {
    const image = content.querySelector("img");
    return kept.base === "part" && image?.naturalWidth ? [image.naturalWidth, image.naturalHeight] : [known.width, known.height];
  }

  function fit() {
    if (!known) return;
    const image = content.querySelector("img");
    if (kept.base === "part" && !image.complete) image.addEventListener("load", fit, { once: true });
    const [width, height] = size();
    scale = Math.min(stage.clientWidth / width, stage.clientHeight / height);
    x = (stage.clientWidth - width * scale) / 2;
    y = (stage.clientHeight - height * scale) / 2;
    place();
  }

  function place() {
    if (!known) return;
    const [width, height] = size();
    Object.assign(content.style, { width: `${width}px`, height: `${height}px`, transform: `translate(${x}px, ${y}px) scale(${scale})` });
  }

  function zoom(by, atX = stage.clientWidth / 2, atY = stage.clientHeight / 2) {
    const next = Math.max(0.05, Math.min(40, scale * by));
    x = atX - ((atX - x) * next) / scale;
    y = atY - ((atY - y) * next) / scale;
    scale = next;
    place();
  }

  function step(by) {
    if (!rows[at + by]) return;
    at += by;
    show();
  }

  heat.addEventListener("input", () => {
    kept.heat = Number(heat.value);
    const over = content.querySelector(".heat");
    if (over) over.style.opacity = kept.heat / 100;
  });
  mask.addEventListener("change", () => ((kept.mask = mask.checked), draw(), place()));
  boxes.addEventListener("change", () => ((kept.boxes = boxes.checked), draw(), place()));
  stage.addEventListener("wheel", (event) => {
    event.preventDefault();
    const at = stage.getBoundingClientRect();
    zoom(Math.exp(-event.deltaY / 400), event.clientX - at.left, event.clientY - at.top);
  }, { passive: false });
  stage.addEventListener("pointerdown", (event) => {
    stage.setPointerCapture(event.pointerId);
    const from = [event.clientX - x, event.clientY - y];
    const move = (moved) => ((x = moved.clientX - from[0]), (y = moved.clientY - from[1]), place());
    stage.addEventListener("pointermove", move);
    stage.addEventListener("pointerup", () => stage.removeEventListener("pointermove", move), { once: true });
  });
  dialog.addEventListener("keydown", (event) => {
    if (event.target === heat || event.ctrlKey || event.metaKey || event.altKey) return;
    const act = {
      ArrowLeft: () => step(-1), ArrowRight: () => step(1), "+": () => zoom(1.4), "-": () => zoom(1 / 1.4), 0: fit,
      b: () => boxes.click(), m: () => mask.click(),
    }[event.key];
    if (act) (event.preventDefault(), act());
  });
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
  stage.focus();
  show();
  return dialog;
}

/** The marks of a photograph's label and verdict. */
export const marks = (label, verdict) => [el("span", { class: "muted" }, t("label")), mark(label), el("span", { class: "muted" }, t("verdict")), mark(verdict)];
