// A grid that holds tens of thousands of pictures: only those in view are elements. Arrow keys, selection, screen readers.

import { el, t } from "./desk.js";

const AHEAD = 3; // rows beyond the view

export class Grid {
  /**
   * @param box the element, which gets a scroll bar.
   * @param options { cell: pixels of a side, fill(element, item): what a cell shows, label(item): for screen readers,
   *   onmove(item): the current one has changed, onselect(set of names), onopen(item) }. An item has a `name`.
   */
  constructor(box, options) {
    Object.assign(this, { cell: 132, footer: 22, onmove() {}, onselect() {}, onopen() {} }, options);
    this.box = box;
    this.items = [];
    this.selected = new Set();
    this.at = 0;
    this.anchor = 0;
    this.cells = new Map();
    this.inner = el("div", { class: "grid-inner" });
    box.replaceChildren(this.inner);
    box.tabIndex = 0;
    box.setAttribute("role", "listbox");
    box.setAttribute("aria-multiselectable", "true");
    box.setAttribute("aria-label", t("Photographs"));
    box.addEventListener("scroll", () => this.draw(), { passive: true });
    box.addEventListener("keydown", (event) => this.key(event));
    box.addEventListener("click", (event) => this.click(event));
    box.addEventListener("dblclick", () => this.current && this.onopen(this.current));
    new ResizeObserver(() => this.draw(true)).observe(box);
  }

  get current() {
    return this.items[this.at];
  }

  get columns() {
    return Math.max(1, Math.floor((this.box.clientWidth - 4) / this.cell));
  }

  get height() {
    return this.cell + this.footer;
  }

  /** Show these items; the current one and the selection are kept by name. */
  show(items) {
    const name = this.current?.name;
    this.items = items;
    const known = new Set(items.map((item) => item.name));
    this.selected = new Set([...this.selected].filter((one) => known.has(one)));
    const found = items.findIndex((item) => item.name === name);
    this.at = found >= 0 ? found : Math.min(this.at, Math.max(0, items.length - 1));
    this.anchor = this.at;
    this.cells.forEach((cell) => cell.remove());
    this.cells.clear();
    this.draw(true);
    this.onselect(this.selected);
    this.onmove(this.current);
  }

  /** Draw one item again. */
  refresh(names) {
    for (const [index, cell] of this.cells) if (names.has(this.items[index].name)) this.fillCell(cell, index);
  }

  draw(moved = false) {
    const columns = this.columns;
    const wide = Math.min(1.4 * this.cell, (this.box.clientWidth - 4) / columns);
    this.inner.style.height = `${Math.ceil(this.items.length / columns) * this.height}px`;
    const first = Math.max(0, Math.floor(this.box.scrollTop / this.height) - AHEAD) * columns;
    const last = Math.min(this.items.length, (Math.ceil((this.box.scrollTop + this.box.clientHeight) / this.height) + AHEAD) * columns);
    for (const [index, cell] of this.cells)
      if (index < first || index >= last) (cell.remove(), this.cells.delete(index));
    for (let index = first; index < last; index++) {
      let cell = this.cells.get(index);
      const fresh = !cell;
      if (fresh) {
        cell = el("div", { class: "cell", role: "option", id: `cell-${index}` });
        this.cells.set(index, cell);
        this.inner.append(cell);
      }
      if (fresh || moved) {
        cell.style.width = `${wide - 6}px`;
        cell.style.height = `${this.height - 6}px`;
        cell.style.left = `${(index % columns) * wide + 3}px`;
        cell.style.top = `${Math.floor(index / columns) * this.height + 3}px`;
      }
      if (fresh) this.fillCell(cell, index);
    }
    this.mark();
  }

  fillCell(cell, index) {
    const item = this.items[index];
    cell.setAttribute("aria-label", this.label ? this.label(item) : item.name);
    cell.setAttribute("aria-setsize", this.items.length);
    cell.setAttribute("aria-posinset", index + 1);
    cell.title = item.name;
    this.fill(cell, item);
  }

  mark() {
    for (const [index, cell] of this.cells) {
      cell.classList.toggle("at", index === this.at);
      cell.setAttribute("aria-selected", String(this.selected.has(this.items[index].name)));
    }
    if (this.current) this.box.setAttribute("aria-activedescendant", `cell-${this.at}`);
    else this.box.removeAttribute("aria-activedescendant");
  }

  /** Go to an index; `extend` selects from the anchor to it. */
  go(index, extend = false) {
    if (!this.items.length) return;
    this.at = Math.max(0, Math.min(this.items.length - 1, index));
    if (extend) {
      const [from, to] = [Math.min(this.anchor, this.at), Math.max(this.anchor, this.at)];
      this.selected = new Set(this.items.slice(from, to + 1).map((item) => item.name));
      this.onselect(this.selected);
    } else this.anchor = this.at;
    const top = Math.floor(this.at / this.columns) * this.height;
    if (top < this.box.scrollTop) this.box.scrollTop = top;
    else if (top + this.height > this.box.scrollTop + this.box.clientHeight) this.box.scrollTop = top + this.height - this.box.clientHeight;
    this.draw();
    this.onmove(this.current);
  }

  toggle(index) {
    const name = this.items[index]?.name;
    if (name === undefined) return;
    if (!this.selected.delete(name)) this.selected.add(name);
    this.onselect(this.selected);
    this.mark();
  }

  select(names) {
    this.selected = new Set(names);
    this.onselect(this.selected);
    this.mark();
  }

  /** Names that an action applies to: the selection, or the current item. */
  chosen() {
    return this.selected.size ? [...this.selected] : this.current ? [this.current.name] : [];
  }

  key(event) {
    const page = Math.max(1, Math.floor(this.box.clientHeight / this.height)) * this.columns;
    const moves = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -this.columns, ArrowDown: this.columns, PageUp: -page, PageDown: page, Home: -1e9, End: 1e9 };
    const act = event.key in moves ? () => this.go(this.at + moves[event.key], event.shiftKey)
      : event.key === " " ? () => this.toggle(this.at)
      : event.key === "Enter" ? () => this.current && this.onopen(this.current)
      : event.key === "Escape" ? () => this.select([])
      : event.key === "a" && (event.ctrlKey || event.metaKey) ? () => this.select(this.items.map((item) => item.name))
      : null;
    if (!act) return;
    event.preventDefault();
    event.stopPropagation();
    act();
  }

  click(event) {
    const cell = event.target.closest(".cell");
    if (!cell) return this.select([]);
    const index = [...this.cells].find(([, one]) => one === cell)[0];
    if (event.shiftKey) return this.go(index, true);
    if (event.ctrlKey || event.metaKey) {
      this.go(index);
      return this.toggle(index);
    }
    this.select([]);
    this.go(index);
  }
}

/** Address of a small or large copy of a photograph: { name, stamp }. */
export const picture = (item, size = "small") =>
  `/api/photographs/picture?name=${encodeURIComponent(item.name)}&size=${size}&stamp=${item.stamp}`;

/**
 * The photographs of the folder, as { name, stamp, label, kind, marked: whether a defect is marked, differ: whether people
 * disagree, said: [[who, label, kind]] }.
 */
export const fromRows = (rows) => rows.map(([name, stamp, label, kind, marked, differ, said]) => ({ name, stamp, label, kind, marked, differ, said }));
