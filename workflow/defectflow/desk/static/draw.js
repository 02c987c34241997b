// Draw on one photograph, by mouse or by arrow keys and Enter: the outline of the part, by clicks on it and on the background, or a defect.
import { api, csrf, el, t, toast } from "./desk.js";

const TINT = [255, 0, 200];

async function picture(address) {
  const image = new Image();
  image.src = address;
  await image.decode();
  return image;
}

/** Kinds of drawings: where they are read from and saved to, their tools, and whether shapes are added to the existing mask. */
export const PART = {
  title: t("Outline the part"), save: t("Use for all photographs"), mask: "/api/part/mask", to: "/api/part/outline",
  tools: ["click", "polygon", "brush", "eraser"], adds: false,
};
export const DEFECT = {
  title: t("Mark the defect"), save: t("Save as bad"), mask: "/api/labels/defect", to: "/api/labels/defect",
  tools: ["box", "brush", "polygon", "eraser"], adds: true,
};

/** Draw `what` on the photograph `name`; `following` is prepared meanwhile. Calls `done(answer)` after saving. */
export async function draw(name, following, done, what = PART) {
  const canvas = el("canvas", { tabindex: 0, role: "application", "aria-label": what.adds ? t("Photograph: arrow keys move the cross, Enter sets a corner or paints") : t("Photograph: arrow keys move the cross, Enter clicks on the part, Shift+Enter on the background") });
  const board = el("div", { class: "board" }), busy = el("span", { class: "busy", role: "status" });
  const tools = el("div", { class: "segments", role: "group", "aria-label": t("Tool") });
  const size = el("input", { type: "range", min: 2, max: 60, value: 14, id: "brush-size" });
  const brushed = el("label", { class: "row", for: "brush-size", hidden: true }, t("Width"), size);
  const hint = el("span", { class: "muted" });
  const leave = () => discards() && dialog.close();
  const save = el("button", { class: "main", disabled: true, onclick: () => store() }, what.save);
  const dialog = el("dialog", { class: "draw", "aria-label": what.title }, el("div", { class: "inside" },
    el("header", {}, el("h2", { title: name }, `${what.title}: ${name.split("/").pop()}`), busy, el("span", { class: "grow" }), hint,
      el("button", { class: "quiet", "aria-label": t("Close"), onclick: leave }, "✕")),
    board,
    el("footer", {}, tools, brushed, el("button", { onclick: () => undo() }, t("Undo")), el("button", { onclick: () => clear() }, t("Start over")),
      el("button", { "aria-label": t("Smaller"), onclick: () => scale(1 / 1.5) }, "−"), el("button", { "aria-label": t("Larger"), onclick: () => scale(1.5) }, "+"),
      el("span", { class: "grow" }), save)));
  const TOOLS = {
    box: [t("Box"), t("Drag a box over the defect; by keys, Enter at two corners")],
    click: [t("Click"), t("Click on the part; on the background with Shift or the right button")],
    polygon: [t("Polygon"), t("Click the corners; Enter or a double click closes it")],
    brush: [t("Brush"), what.adds ? t("Paint the defect") : t("Paint the part")],
    eraser: [t("Eraser"), t("Erase")],
  };
  let tool = what.tools[0], zoom = 1, first = null, asked = false, before = null, image, mask, context, cross = null, painting = false, corners = [], waiting = 0;
  let clicks = { inside: [], outside: [] }, past = [], answered = Promise.resolve(); // answered: when no click waits any more

  let last = null;
  canvas.addEventListener("contextmenu", (event) => event.preventDefault());
  canvas.addEventListener("pointerdown", (event) => {
    event.preventDefault();
    canvas.focus();
    cross = null;
    last = at(event);
    painting = tool === "brush" || tool === "eraser" || tool === "box";
    if (painting) canvas.setPointerCapture(event.pointerId);
    if (tool === "box") return (first = last), redraw();
    act(last, event.button === 2 || event.shiftKey);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!painting) return;
    const next = at(event);
    if (tool !== "box") stroke(last, next);
    last = next;
    if (tool === "box") redraw(next);
  });
  canvas.addEventListener("pointerup", (event) => {
    if (painting && tool === "box") box(at(event));
    painting = false;
  });
  // One key or click must not lose a drawing: the first Escape drops an unfinished shape, or warns that nothing is saved.
  dialog.addEventListener("cancel", (event) => {
    if (first || corners.length) return event.preventDefault(), (first = null), (corners = []), redraw();
    if (!discards()) event.preventDefault();
  });
  function discards() {
    if (!past.length || asked) return true;
    asked = true;
    toast(t("Nothing is saved yet. Close again to discard the drawing."));
    return false;
  }
  canvas.addEventListener("dblclick", () => tool === "polygon" && close());
  dialog.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey ? event.key === "z" : event.key === "z") return event.preventDefault(), undo();
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.type === "range") return;
    if (event.key === "+" || event.key === "-") return event.preventDefault(), scale(event.key === "+" ? 1.5 : 1 / 1.5);
    const chosen = { c: "click", r: "box", p: "polygon", b: "brush", e: "eraser" }[event.key];
    if (what.tools.includes(chosen)) return event.preventDefault(), pick(chosen), canvas.focus();
    if (event.target !== canvas) return;
    const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (way) {
      event.preventDefault();
      const step = (event.shiftKey ? 0.08 : 0.015) * canvas.width, [x, y] = cross ?? [canvas.width / 2, canvas.height / 2];
      cross = [Math.max(0, Math.min(canvas.width - 1, x + way[0] * step)), Math.max(0, Math.min(canvas.height - 1, y + way[1] * step))];
      if (zoom > 1) board.scrollTo((cross[0] / canvas.width) * board.scrollWidth - board.clientWidth / 2, (cross[1] / canvas.height) * board.scrollHeight - board.clientHeight / 2);
      redraw(cross);
    } else if (event.key === "Enter") {
      event.preventDefault();
      if (tool === "box") first ? box(cross ?? first) : ((first = cross ?? [canvas.width / 2, canvas.height / 2]), redraw());
      else if (tool === "polygon" && !cross) close();
      else if (tool === "polygon" && event.shiftKey) close();
      else act(cross ?? [canvas.width / 2, canvas.height / 2], event.shiftKey);
    }
  });

  document.body.append(dialog);
  dialog.addEventListener("close", () => dialog.remove());
  dialog.showModal();
  const address = encodeURIComponent(name);
  // The photograph is shown at once; clicks wait until the server has encoded it.
  let ready = null;
  if (what.tools.includes("click")) {
    busy.textContent = t("Loading …");
    ready = api("/api/part/open", { json: { name, following: following ?? null } }).then((found) => found.told && toast(found.told));
    ready.catch(() => {}).then(() => (busy.textContent = "")); // api has reported the error; polygon and brush still work
  }
  try {
    image = await picture(`/api/part/picture?name=${address}`);
  } catch {
    dialog.close();
    return toast(t("{name} cannot be shown.", { name }), "bad");
  }
  canvas.width = image.naturalWidth;
  canvas.height = image.naturalHeight;
  context = canvas.getContext("2d", { willReadFrequently: true });
  mask = new Uint8Array(canvas.width * canvas.height);
  board.append(canvas); // from here on it receives clicks
  new ResizeObserver(() => scale(1)).observe(board);
  pick(what.tools[0]);
  redraw();
  canvas.focus();
  try {
    before = await read(await fetch(`${what.mask}?name=${address}`));
  } catch (error) {
    dialog.close(); // to save would replace a mask that was not seen
    return toast(error.message, "bad");
  }
  if (!past.length) mask = before;
  else if (what.adds) for (const one of [mask, ...past.map((step) => step.mask)]) before.forEach((marked, k) => marked && (one[k] = 1)); // drawn before it came
  redraw();

  function scale(by) {
    const [x, y] = [(board.scrollLeft + board.clientWidth / 2) / board.scrollWidth, (board.scrollTop + board.clientHeight / 2) / board.scrollHeight];
    zoom = Math.max(1, Math.min(8, zoom * by));
    board.classList.toggle("zoomed", zoom > 1);
    const fits = zoom * Math.min(board.offsetWidth / canvas.width, board.offsetHeight / canvas.height);
    Object.assign(canvas.style, { width: `${canvas.width * fits}px`, height: `${canvas.height * fits}px` });
    if (zoom > 1) board.scrollTo(x * board.scrollWidth - board.clientWidth / 2, y * board.scrollHeight - board.clientHeight / 2); // keep the middle in view
  }

  async function read(response) {
    if (!response.ok) throw new Error((await response.json()).error);
    const bitmap = await createImageBitmap(await response.blob());
    const flat = new OffscreenCanvas(canvas.width, canvas.height).getContext("2d");
    flat.drawImage(bitmap, 0, 0);
    const pixels = flat.getImageData(0, 0, canvas.width, canvas.height).data, found = new Uint8Array(canvas.width * canvas.height);
    for (let k = 0; k < found.length; k++) found[k] = pixels[4 * k] > 127 ? 1 : 0;
    return found;
  }

  function pick(name_) {
    tool = name_;
    corners = [];
    first = null;
    hint.textContent = TOOLS[tool][1];
    brushed.hidden = tool !== "brush" && tool !== "eraser";
    tools.replaceChildren(...what.tools.map((key) => el("button", { "aria-pressed": String(key === tool), onclick: () => (pick(key), canvas.focus()) }, TOOLS[key][0])));
    redraw();
  }

  function redraw(corner = null) {
    if (!context) return;
    const { width, height } = canvas;
    context.drawImage(image, 0, 0);
    const shown = context.getImageData(0, 0, width, height), pixels = shown.data;
    for (let y = 0, k = 0; y < height; y++) for (let x = 0; x < width; x++, k++) {
      if (!mask[k]) {
        if (!what.adds) for (let c = 0; c < 3; c++) pixels[4 * k + c] *= 0.45;
        continue;
      }
      const edge = x === 0 || y === 0 || x === width - 1 || y === height - 1 || !mask[k - 1] || !mask[k + 1] || !mask[k - width] || !mask[k + width];
      if (edge) for (let c = 0; c < 3; c++) pixels[4 * k + c] = TINT[c];
      else if (what.adds) for (let c = 0; c < 3; c++) pixels[4 * k + c] = 0.65 * pixels[4 * k + c] + 0.35 * TINT[c];
    }
    context.putImageData(shown, 0, 0);
    const unit = Math.max(1, width / 500);
    const sign = ([x, y], inside) => {
      context.beginPath();
      context.arc(x, y, 5 * unit, 0, 7);
      context.fillStyle = inside ? "#17b26a" : "#f04438";
      context.fill();
      context.lineWidth = 1.5 * unit;
      context.strokeStyle = "#fff";
      context.stroke();
      context.beginPath(); // a plus on the part, a minus beside it
      context.moveTo(x - 2.6 * unit, y), context.lineTo(x + 2.6 * unit, y);
      if (inside) context.moveTo(x, y - 2.6 * unit), context.lineTo(x, y + 2.6 * unit);
      context.stroke();
    };
    clicks.inside.forEach((point) => sign(point, true));
    clicks.outside.forEach((point) => sign(point, false));
    if (corners.length) {
      context.beginPath();
      corners.forEach(([x, y], index) => (index ? context.lineTo(x, y) : context.moveTo(x, y)));
      context.strokeStyle = "#ffd400";
      context.lineWidth = 2 * unit;
      context.stroke();
      for (const [x, y] of corners) context.fillStyle = "#ffd400", context.fillRect(x - 2.5 * unit, y - 2.5 * unit, 5 * unit, 5 * unit);
    }
    if (first) {
      const [x, y] = first, to = corner ?? cross ?? first;
      context.strokeStyle = "#ffd400";
      context.lineWidth = 2 * unit;
      context.strokeRect(x, y, to[0] - x, to[1] - y);
    }
    if (cross) {
      context.strokeStyle = "#fff";
      context.lineWidth = unit;
      context.beginPath();
      context.moveTo(cross[0] - 12 * unit, cross[1]), context.lineTo(cross[0] + 12 * unit, cross[1]);
      context.moveTo(cross[0], cross[1] - 12 * unit), context.lineTo(cross[0], cross[1] + 12 * unit);
      context.stroke();
    }
    const none = !mask.some(Boolean);
    if (what.adds) save.textContent = none && had() ? t("Save: no defect marked") : what.save;
    save.disabled = !before || (none && !(what.adds && had())) || mask.every(Boolean);
  }

  function had() { // whether something was marked before
    return Boolean(before?.some(Boolean));
  }

  function remember() { // a hoisted declaration: it may be called before the mask has arrived
    waiting++; // an answer to an earlier click does not replace what is drawn from here on
    past.push({ mask: mask.slice(), clicks: structuredClone(clicks), corners: structuredClone(corners) });
    past.splice(0, past.length - 30);
  }

  function undo() {
    const last = past.pop();
    first = null;
    if (!last) return redraw();
    ({ mask, clicks, corners } = last);
    waiting++;
    redraw();
  }

  function clear() {
    if (!mask) return;
    remember();
    (mask = new Uint8Array(mask.length)), (clicks = { inside: [], outside: [] }), (corners = []), (first = null);
    redraw();
  }

  async function act(point, beside) {
    if (tool === "polygon") {
      remember();
      corners.push(point);
      return redraw();
    }
    if (tool !== "click") {
      remember();
      return stroke(point, point);
    }
    let ended;
    const earlier = answered;
    answered = new Promise((resolve) => (ended = resolve)).then(() => earlier);
    await clicked(point, beside);
    ended();
  }

  async function clicked(point, beside) {
    remember();
    clicks[beside ? "outside" : "inside"].push(point);
    redraw();
    const mine = ++waiting;
    try {
      await ready;
    } catch {
      return undo();
    }
    busy.textContent = "…";
    try {
      const response = await fetch("/api/part/clicks", { method: "POST", headers: { "Content-Type": "application/json", "X-Desk-CSRF": csrf }, body: JSON.stringify({ name, ...clicks }) });
      const found = await read(response);
      if (mine === waiting) (mask = found), redraw();
    } catch (error) {
      toast(error.message, "bad");
      if (mine === waiting) undo(); // its sign would stand beside a mask without it
    }
    busy.textContent = "";
  }

  function fill(path) {
    const flat = new OffscreenCanvas(canvas.width, canvas.height).getContext("2d");
    path(flat);
    return flat.getImageData(0, 0, canvas.width, canvas.height).data;
  }

  function close() {
    if (corners.length < 3) return;
    const drawn = fill((flat) => {
      flat.beginPath();
      corners.forEach(([x, y], index) => (index ? flat.lineTo(x, y) : flat.moveTo(x, y)));
      flat.fill();
    });
    remember();
    for (let k = 0; k < mask.length; k++) mask[k] = drawn[4 * k + 3] > 127 || (what.adds && mask[k]) ? 1 : 0;
    corners = [];
    redraw();
  }

  function box(to) {
    const [x, y] = first.map((value, axis) => Math.round(Math.min(value, to[axis]))), [right, below] = first.map((value, axis) => Math.round(Math.max(value, to[axis])));
    first = null;
    if (right - x < 2 || below - y < 2) return redraw();
    remember();
    for (let row = y; row < below; row++) mask.fill(1, row * canvas.width + x, row * canvas.width + right);
    redraw();
  }

  function stroke(from, to) {
    const width = Number(size.value) * (canvas.width / 500);
    const drawn = fill((flat) => {
      flat.lineCap = "round";
      flat.lineWidth = width;
      flat.beginPath();
      flat.moveTo(...from);
      flat.lineTo(to[0] + 0.01, to[1]);
      flat.stroke();
    });
    for (let k = 0; k < mask.length; k++) if (drawn[4 * k + 3] > 127) mask[k] = tool === "brush" ? 1 : 0;
    redraw();
  }

  function at(event) {
    const box = canvas.getBoundingClientRect();
    const clamp = (value, most) => Math.max(0, Math.min(most - 1, value));
    return [clamp(((event.clientX - box.left) / box.width) * canvas.width, canvas.width), clamp(((event.clientY - box.top) / box.height) * canvas.height, canvas.height)];
  }

  let storing = false;
  async function store() {
    if (storing) return;
    storing = save.disabled = true;
    await answered;
    const flat = new OffscreenCanvas(canvas.width, canvas.height), drawn = flat.getContext("2d");
    const pixels = drawn.createImageData(canvas.width, canvas.height);
    for (let k = 0; k < mask.length; k++) pixels.data.set([255 * mask[k], 255 * mask[k], 255 * mask[k], 255], 4 * k);
    drawn.putImageData(pixels, 0, 0);
    try {
      const answer = await api(`${what.to}?name=${address}&who=${encodeURIComponent(localStorage.getItem("defectflow-who") || "")}`, { body: await flat.convertToBlob({ type: "image/png" }) });
      dialog.close();
      done(answer);
    } catch {
      storing = save.disabled = false;
    }
  }
}
