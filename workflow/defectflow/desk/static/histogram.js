// Scores of photographs along an axis, good ones above it and bad ones below, with a threshold and a review band to drag.
import { number, t } from "./desk.js";

const NS = "http://www.w3.org/2000/svg";
const DOT = 9, FOOT = 20, TOP = 26; // pixels: a dot with its gap, room for the scale below, and for the grip above

function svg(tag, attributes = {}, ...children) {
  const made = document.createElementNS(NS, tag);
  for (const [name, value] of Object.entries(attributes)) if (value !== undefined && value !== false) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

/** As many digits as are needed to distinguish scores of this range. */
export function shortly(value, span) {
  return number(value, Math.max(0, Math.min(6, 2 - Math.floor(Math.log10(span || 1)))));
}

/**
 * A histogram in `box`. `photographs`: {score, label, id, held_out}. `onmove({threshold, band})` while a handle moves,
 * `onpick(photograph)` when a dot is chosen. Returns {set({threshold, band}), resize()}.
 */
export function histogram(box, photographs, onmove, onpick) {
  const scored = photographs.filter((one) => one.score !== null);
  const own = scored.filter((one) => one.held_out);
  const values = [...new Set((own.length ? own : scored).map((one) => one.score))].sort((a, b) => a - b);
  // Between two scores every threshold gives the same verdicts: arrow keys go from gap to gap.
  const cuts = [values[0], ...values.slice(1).map((value, index) => Number(((values[index] + value) / 2).toPrecision(9))), above(values.at(-1))];
  const all = scored.map((one) => one.score);
  const least = all.reduce((a, b) => Math.min(a, b)), most = all.reduce((a, b) => Math.max(a, b)), span = most - least || Math.abs(most) || 1;
  const low = least - 0.04 * span, high = most + 0.06 * span;
  let state = { threshold: null, band: null }, width = 600, height = 232, placed = {};

  const x = (value) => ((value - low) / (high - low)) * width;
  const score = (pixel) => low + (pixel / width) * (high - low);

  function draw() {
    width = box.clientWidth || 600;
    height = box.clientHeight || 232;
    const root = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": t("Scores, and the threshold") });
    const columns = Math.max(8, Math.floor(width / DOT)), binned = Array.from({ length: columns }, () => ({ good: [], bad: [] }));
    for (const one of scored) binned[Math.min(columns - 1, Math.floor((x(one.score) / width) * columns))][one.label === 1 ? "bad" : "good"].push(one);
    for (const bin of binned) bin.good.sort((a, b) => (a.label === null) - (b.label === null));
    const tallest = Math.max(...binned.map((bin) => bin.good.length), 1), deepest = Math.max(...binned.map((bin) => bin.bad.length), 1);
    const room = height - FOOT - TOP, unit = Math.min(DOT, room / (tallest + deepest + 1)), axis = TOP + (tallest + 0.5) * (room / (tallest + deepest + 1));
    root.append(svg("rect", { class: "band", id: "band", y: TOP, height: room, width: 0 }));
    root.append(svg("line", { class: "axis", x1: 0, x2: width, y1: axis, y2: axis }));
    placed = {};
    binned.forEach((bin, index) => {
      const centre = (index + 0.5) * (width / columns);
      if (unit >= 5) {
        const radius = Math.min(4, unit / 2 - 0.3);
        for (const [side, sign] of [["good", -1], ["bad", 1]])
          bin[side].forEach((one, place) => {
            const y = axis + sign * (place + 0.65) * unit;
            const name = one.label === 1 ? "bad" : one.label === 0 ? "good" : "none";
            const dot = name === "bad"
              ? svg("path", { class: "dot bad", d: `M${centre} ${y - radius * 1.15}l${radius * 1.15} ${radius * 1.15}l${-radius * 1.15} ${radius * 1.15}l${-radius * 1.15} ${-radius * 1.15}Z` })
              : svg("circle", { class: `dot ${name}`, cx: centre, cy: y, r: radius });
            dot.append(svg("title", {}, `${one.name} · ${shortly(one.score, span)}`));
            dot.dataset.id = one.id;
            placed[one.id] = dot;
            root.append(dot);
          });
      } else {
        let y = axis;
        for (const name of ["good", "none"]) {
          const count = bin.good.filter((one) => (one.label === null) === (name === "none")).length;
          if (count) root.append(svg("rect", { class: `bar ${name}`, x: centre - width / columns / 2 + 0.5, width: width / columns - 1, y: (y -= count * unit), height: count * unit }));
        }
        if (bin.bad.length) root.append(svg("rect", { class: "bar bad", x: centre - width / columns / 2 + 0.5, width: width / columns - 1, y: axis, height: bin.bad.length * unit }));
      }
    });
    for (let tick = 0; tick <= 6; tick++) {
      const value = least + (tick / 6) * span;
      root.append(svg("text", { x: x(value), y: height - 4, "text-anchor": tick === 0 ? "start" : tick === 6 ? "end" : "middle" }, shortly(value, span)));
    }
    root.append(handle("low", t("Lower limit of the review band")), handle("high", t("Upper limit of the review band")), handle("threshold", t("Threshold")));
    const focused = document.activeElement?.dataset?.handle;
    box.replaceChildren(root);
    move();
    if (focused) box.querySelector(`[data-handle="${focused}"]`)?.focus();
  }

  function handle(name, label) {
    const edge = name !== "threshold", grip = edge ? 40 : 62, made = svg("g", {
      class: `handle ${edge ? "edge" : ""}`, "data-handle": name, tabindex: 0, role: "slider", "aria-label": label,
      "aria-valuemin": cuts[0], "aria-valuemax": cuts.at(-1), "aria-orientation": "horizontal",
    });
    const foot = height - FOOT;
    made.append(svg("rect", { class: "reach", x: -9, width: 18, y: 0, height: foot }), svg("line", { x1: 0, x2: 0, y1: 12, y2: foot }));
    if (edge) made.append(svg("rect", { class: "grip", x: -4, width: 8, y: foot - 26, height: 22, rx: 3 }));
    else made.append(svg("rect", { class: "grip", x: -grip / 2, width: grip, y: 0, height: 20, rx: 5 }), svg("text", { x: 0, y: 14.5 }));
    made.addEventListener("pointerdown", (event) => {
      event.preventDefault();
      made.focus();
      made.setPointerCapture(event.pointerId);
      const drag = (moved) => to(name, Number(score(moved.clientX - box.getBoundingClientRect().left).toPrecision(6)));
      made.addEventListener("pointermove", drag);
      made.addEventListener("pointerup", () => made.removeEventListener("pointermove", drag), { once: true });
    });
    made.addEventListener("keydown", (event) => {
      const steps = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -10, PageUp: 10, Home: -1e9, End: 1e9 }[event.key];
      if (!steps || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      event.stopPropagation();
      const now = name === "threshold" ? state.threshold : state.band[name === "low" ? 0 : 1];
      const beyond = steps > 0 ? cuts.findIndex((cut) => cut > now + 1e-12) : cuts.findLastIndex((cut) => cut < now - 1e-12);
      if (beyond < 0) return;
      to(name, cuts[Math.max(0, Math.min(cuts.length - 1, beyond + steps - Math.sign(steps)))]);
    });
    return made;
  }

  function to(name, value) {
    value = Number(Math.max(low, Math.min(high, value)).toPrecision(9)); // rounding must not move it past a score
    let { threshold, band } = state;
    if (name === "threshold") {
      threshold = value;
      if (band) band = [Math.min(band[0], value), Math.max(band[1], value)];
    } else band = name === "low" ? [Math.min(value, threshold), band[1]] : [band[0], Math.max(value, threshold)];
    state = { threshold, band };
    move();
    onmove(state);
  }

  function move() {
    const { threshold, band } = state;
    if (threshold === null || !box.firstChild) return;
    for (const [name, value] of [["threshold", threshold], ["low", band?.[0]], ["high", band?.[1]]]) {
      const made = box.querySelector(`[data-handle="${name}"]`);
      made.style.display = value === undefined ? "none" : "";
      if (value === undefined) continue;
      made.setAttribute("transform", `translate(${Math.max(0, Math.min(width, x(value)))} 0)`);
      made.setAttribute("aria-valuenow", value);
      made.setAttribute("aria-valuetext", shortly(value, span));
      const text = made.querySelector("text");
      if (text) text.textContent = shortly(value, span);
    }
    const strip = box.querySelector("#band");
    strip.setAttribute("x", band ? x(band[0]) : 0);
    strip.setAttribute("width", band ? Math.max(0, x(band[1]) - x(band[0])) : 0);
    for (const one of own) {
      const wrong = one.label !== null && (one.score >= threshold) !== (one.label === 1) && !(band && one.score >= band[0] && one.score < band[1]);
      placed[one.id]?.classList.toggle("wrong", wrong);
    }
  }

  box.addEventListener("click", (event) => {
    const id = event.target.dataset?.id;
    if (id) onpick(scored.find((one) => one.id === id));
  });
  new ResizeObserver(draw).observe(box);
  return {
    span,
    set(next) { state = { ...state, ...next }; move(); },
    /** A band around a threshold that holds the nearest tenth of the photographs, or three. */
    around(threshold) {
      const near = [...values].sort((a, b) => Math.abs(a - threshold) - Math.abs(b - threshold)).slice(0, Math.max(3, Math.round(values.length / 10)));
      return [Math.min(threshold, ...near), Math.max(threshold, above(Math.max(...near)))];
    },
  };
}

function above(value) {
  return Number((value + Math.abs(value || 1) * 1e-5).toPrecision(6));
}
