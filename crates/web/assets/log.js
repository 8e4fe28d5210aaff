// @ts-check
// The log: only the lines that are looked at are in the page, whatever their number; the rest is loaded as it comes into
// view. Groups fold, hits of a search and errors stand beside the scroll bar, and a step that runs is followed until the
// reader scrolls away.

import { readAgain } from "./live.js";
import { answerTo } from "./session.js";

/** The height of a line; the stylesheet says the same. */
const LINE = 20;
/** How many lines one request brings, and how many pieces are kept. */
const PIECE = 200;
const PIECES_KEPT = 40;
/** The tallest element that browsers lay out well; a longer log is scrolled in proportion. */
const HEIGHT_MAX = 12_000_000;
/** How many lines behind one are looked at for those that draw over it (`terminal/redraw.rs`). */
const AHEAD = 200;
/** The most runs of lines drawn over that are folded, and how many pieces are read in a row because what is in view folded away. */
const RUNS_MAX = 5000;
const ROUNDS_MAX = 200;
/** How many lines that were gone to are remembered, for the sake of what they are drawn over by. */
const OPENED_MAX = 200;
/** How many hits are listed, in how many parts of the log they are counted, and how many are asked for to step back. */
const HITS = 200;
const PARTS = 240;
const HITS_BACK = 1000;
/** The shortest time between two searches for the groups of a long log that still grows. */
const LATE_MS = 10_000;
/** The most lines that are copied at once. */
const COPY_MAX = 10_000;
/** How long it takes until a log that has broken off is asked for again, at first and at most. */
const AGAIN_MS = 1000;
const AGAIN_MS_MAX = 10_000;

/** @typedef {{ line: number, end: number, depth: number, isFolded: boolean, item: HTMLElement, link: HTMLElement }} Group */
/** Lines that later ones have drawn over, up to before `to`, which is seen; how often they were drawn again, and how many rows the last drawing over them has. @typedef {{ from: number, to: number, redraws: number, height: number }} Run */
/** @typedef {{ lines: number, searched: number, hits: number, parts: number[] }} Spread */
/** @typedef {{ kind: "hit" | "error", regex: string, numbers: number[], texts: string[], spread: Spread }} Finds */

/** The step and the lines that an address names: `#2:10`, `#2:10-20`. @param {string} hash */
function namedBy(hash) {
  const found = /^#(\d+):(\d+)(?:-(\d+))?$/.exec(hash);
  if (!found) return null;
  const [from, to] = [Number(found[2]), Number(found[3] ?? found[2])];
  return { step: Number(found[1]), from: Math.min(from, to), to: Math.max(from, to) };
}

/** @param {string} tag @param {string} [className] @param {string} [text] */
function made(tag, className = "", text = "") {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text) element.textContent = text;
  return element;
}

export function open() {
  const log = /** @type {HTMLElement} */ (document.querySelector("#log[data-source]"));
  const viewer = /** @type {HTMLElement} */ (log.closest(".viewer"));
  const { source = "", api = "", green = "" } = log.dataset;
  const step = Number(log.dataset.step);
  const first = Number(log.dataset.from);
  const began = Date.parse(log.dataset.first ?? "");
  let lines = Number(log.dataset.lines);
  let mark = log.dataset.mark === undefined ? -1 : Number(log.dataset.mark);
  let follows = log.hasAttribute("data-open");
  let wraps = false;

  const named = namedBy(location.hash);
  if (named && named.step !== step) {
    const address = new URL(location.href);
    address.searchParams.set("step", String(named.step - 1));
    address.searchParams.set("from", String(Math.max(0, named.from - 100)));
    location.replace(address);
    return;
  }

  /** Rows by their piece. @type {Map<number, Promise<HTMLElement[]>>} */
  const pieces = new Map();
  const space = made("div", "space");
  const view = made("div", "window");
  const newer = /** @type {HTMLButtonElement} */ (made("button", "newer"));
  newer.hidden = true;
  newer.type = "button";
  const said = made("p", "unseen");
  said.setAttribute("role", "status");
  const map = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  map.setAttribute("class", "map");
  map.setAttribute("aria-hidden", "true");
  map.setAttribute("preserveAspectRatio", "none");
  map.setAttribute("viewBox", "0 0 10 1000");
  // What the page brought stays in sight until the same lines are drawn here.
  space.append(view);
  view.append(...log.childNodes);
  log.replaceChildren(space);
  log.after(newer, map, said);
  log.classList.add("virtual");
  for (const pager of viewer.querySelectorAll(".pager")) pager.remove();

  // ---- Groups, and the places of lines among those that are not folded away.

  /** @type {Group[]} */
  let groups = [];
  /** Runs of lines drawn over, by the piece that told them, and lines whose run the reader has opened. @type {Map<number, Run[]>} */
  const told = new Map();
  /** @type {Run[]} */
  let runs = [];
  /** @type {number[]} */
  let opened = [];
  const isOpened = (/** @type {Run} */ run) => opened.some((line) => line >= run.from && line < run.to);
  /** What is folded away: lines from `from` to before `to`, in order, apart from each other; the row that stands for them, if it is not the next one.
   * @type {{ from: number, to: number, head: number }[]} */
  let hidden = [];
  const fold = () => {
    runs = [];
    for (const index of [...told.keys()].sort((one, other) => one - other)) {
      for (const run of told.get(index) ?? []) {
        const last = runs.at(-1);
        if (last && last.to === run.from) {
          // Pieces end within drawings: what each counts cannot be added.
          [last.to, last.height] = [run.to, run.height];
          last.redraws = Math.ceil((last.to - last.from) / Math.max(1, last.height));
        } else runs.push({ ...run });
      }
    }
    const parts = runs.filter((run) => !isOpened(run)).map(({ from, to }) => ({ from, to, head: to }));
    for (const group of groups) {
      if (group.isFolded) parts.push({ from: group.line + 1, to: Math.min(group.end, lines), head: group.line });
      group.item.classList.toggle("folded", group.isFolded);
      group.link.setAttribute("aria-expanded", String(!group.isFolded));
    }
    parts.sort((one, other) => one.from - other.from || other.to - one.to);
    hidden = [];
    for (const part of parts) {
      const from = Math.max(part.from, hidden.at(-1)?.to ?? 0);
      if (from < part.to) hidden.push({ ...part, from });
    }
  };
  const rowsInAll = () => hidden.reduce((left, part) => left - (part.to - part.from), lines);
  /** The row in which a line stands; of one folded away, that of its group or of the last drawing. @param {number} line */
  const rowOf = (line) => {
    let before = 0;
    for (const part of hidden) {
      if (part.from > line) break;
      if (line < part.to) return part.from - before - (part.head < part.from ? 1 : 0);
      before += part.to - part.from;
    }
    return line - before;
  };
  /** The line that stands in a row. @param {number} row */
  const lineOf = (row) => {
    let line = row;
    for (const part of hidden) {
      if (part.from > line) break;
      line += part.to - part.from;
    }
    return line;
  };
  /** Opens all that a line is folded away in. @param {number} line */
  const unfold = (line) => {
    const around = groups.filter((group) => group.isFolded && line > group.line && line < group.end);
    for (const group of around) group.isFolded = false;
    // Also what is not known yet to be drawn over.
    if (!opened.includes(line)) opened = [...opened, line].slice(-OPENED_MAX);
    if (around.length > 0 || runs.some((run) => line >= run.from && line < run.to)) { fold(); drawMap(); }
  };
  const readGroups = (/** @type {boolean} */ mayFold) => {
    groups = [...document.querySelectorAll("#groups li[data-line]")].map((it) => {
      const item = /** @type {HTMLElement} */ (it);
      const line = Number(item.dataset.line);
      const before = groups.find((group) => group.line === line);
      const isFolded = before ? before.isFolded : mayFold && !item.classList.contains("open");
      const link = /** @type {HTMLElement} */ (item.querySelector("a"));
      let depth = 0;
      for (let above = item.parentElement?.closest("#groups li"); above; above = above.parentElement?.closest("#groups li")) depth++;
      const group = { line, end: Number(item.dataset.end), depth, isFolded, item, link };
      // Whoever goes to a group wants to see it.
      link.addEventListener("click", (event) => { event.preventDefault(); if (group.isFolded) turn(group); go(line); });
      return group;
    });
    fold();
    dressTree();
  };
  /** Steps and groups as one tree, of which a single link is reached by Tab, and the others by the arrows (ARIA Authoring Practices, "Navigation Treeview"). */
  const dressTree = () => {
    const tree = document.querySelector("#steps > ol");
    if (!tree) return;
    tree.setAttribute("role", "tree");
    tree.setAttribute("aria-label", "Steps and groups");
    for (const list of tree.querySelectorAll("ol")) if (list.children.length > 0) list.setAttribute("role", "group");
    for (const item of tree.querySelectorAll("li")) item.setAttribute("role", "none");
    for (const link of tree.querySelectorAll("a")) link.setAttribute("role", "treeitem");
    if (groups.length > 0) tree.querySelector("a[aria-current]")?.setAttribute("aria-expanded", "true");
    rove(tree.querySelector("a:focus") ?? tree.querySelector("a[aria-current]") ?? tree.querySelector("a"));
  };
  /** @param {Element | null | undefined} to the link that Tab reaches */
  const rove = (to) => { for (const link of document.querySelectorAll("#steps > ol a")) link.setAttribute("tabindex", link === to ? "0" : "-1"); };
  /** @param {KeyboardEvent} event */
  const walkTree = (event) => {
    const tree = document.querySelector("#steps > ol");
    const at = /** @type {HTMLElement | null} */ (/** @type {Element} */ (event.target).closest("[role=treeitem]"));
    if (!tree || !at || event.ctrlKey || event.metaKey || event.altKey) return;
    const links = /** @type {HTMLElement[]} */ ([...tree.querySelectorAll("[role=treeitem]")]).filter((it) => !it.parentElement?.parentElement?.closest("li.folded"));
    const place = links.indexOf(at);
    const group = groups.find((it) => it.link === at);
    const item = at.parentElement;
    /** @type {HTMLElement | null | undefined} */
    let to = null;
    if (event.key === "ArrowDown") to = links[place + 1];
    else if (event.key === "ArrowUp") to = links[place - 1];
    else if (event.key === "Home") to = links[0];
    else if (event.key === "End") to = links.at(-1);
    else if (event.key === "ArrowRight" && group?.isFolded) turn(group);
    else if (event.key === "ArrowRight") to = item?.querySelector(":scope > ol [role=treeitem]");
    else if (event.key === "ArrowLeft" && group && !group.isFolded) turn(group);
    else if (event.key === "ArrowLeft") to = item?.parentElement?.closest("li")?.querySelector("[role=treeitem]");
    else return;
    event.preventDefault();
    if (to) { rove(to); to.focus(); }
  };
  readGroups(!log.hasAttribute("data-open"));
  /** Groups of a long log come after the page; the page that is read again has none, and takes those that are known. */
  let lateText = "";
  let lateAt = Number.NEGATIVE_INFINITY;
  const loadLate = () => {
    const late = document.querySelector("#groups[data-source]");
    if (!late || late.children.length > 0) return;
    late.innerHTML = lateText;
    if (performance.now() < lateAt + LATE_MS) return;
    lateAt = performance.now();
    answerTo(late.getAttribute("data-source") ?? "").then(async (answer) => {
      if (!answer.ok) return;
      lateText = await answer.text();
      const now = document.querySelector("#groups[data-source]");
      if (now) now.innerHTML = lateText;
      readGroups(false);
      draw();
    }, () => {});
  };
  // The list beside the log is live: what comes in its place is the same groups, and new ones.
  const steps = document.querySelector("#steps");
  if (steps) new MutationObserver(() => { loadLate(); readGroups(false); draw(); }).observe(steps, { childList: true });
  document.querySelector("#steps")?.addEventListener("keydown", (event) => walkTree(/** @type {KeyboardEvent} */ (event)));

  // ---- Where one is.

  const height = () => Math.min(rowsInAll() * LINE + (wraps ? log.clientHeight : 0), HEIGHT_MAX);
  const isWhole = () => rowsInAll() * LINE <= HEIGHT_MAX;
  const room = () => Math.max(1, height() - log.clientHeight);
  const rowsInView = () => Math.ceil(log.clientHeight / LINE);
  const lastTop = () => Math.max(0, rowsInAll() - (wraps ? 1 : rowsInView() - 1));
  /** The first row in view. */
  const top = () => (isWhole() ? Math.floor(log.scrollTop / LINE) : Math.round((log.scrollTop / room()) * lastTop()));
  /** Where we scrolled to, and drew or will draw: any other place is the reader's. */
  let ours = Number.NEGATIVE_INFINITY;
  /** Scrolls; whoever calls this draws. @param {number} row */
  const scrollTo = (row) => {
    // Of an element that was drawn smaller, only the old height could be scrolled.
    space.style.height = `${height()}px`;
    log.scrollTop = isWhole() ? row * LINE : (row / Math.max(1, lastTop())) * room();
    ours = log.scrollTop;
  };

  // ---- Lines.

  /** @param {number} index */
  const piece = (index) => {
    let rows = pieces.get(index);
    if (!rows) {
      rows = answerTo(`${source}?from=${index * PIECE}&count=${PIECE}${green ? `&green=${green}` : ""}`).then(async (answer) => {
        if (!answer.ok) throw new Error(`${answer.status}`);
        const holder = made("div");
        holder.innerHTML = await answer.text();
        const rows = /** @type {HTMLElement[]} */ ([...holder.children]);
        learn(index, rows);
        return rows;
      });
      rows.then(() => { if ((index + 1) * PIECE > lines) pieces.delete(index); }, () => pieces.delete(index));
      while (pieces.size >= PIECES_KEPT) pieces.delete(pieces.keys().next().value ?? -1);
    } else pieces.delete(index);
    // Asked for last, it stays longest.
    pieces.set(index, rows);
    return rows;
  };
  let hasLearnt = false;
  /** Takes from a piece what was drawn over in it. @param {number} index @param {HTMLElement[]} rows */
  const learn = (index, rows) => {
    /** @type {Run[]} */
    const found = [];
    for (const row of rows) {
      if (row.dataset.redraws === undefined) continue;
      const [line, redraws] = [number(row), Number(row.dataset.redraws)];
      const last = found.at(-1);
      const height = redraws === 1 ? 1 : 0;
      if (last && last.to === line) {
        last.to = line + 1;
        last.redraws = Math.max(last.redraws, redraws);
        last.height += height;
      } else found.push({ from: line, to: line + 1, redraws, height });
    }
    if (JSON.stringify(told.get(index) ?? []) === JSON.stringify(found)) return;
    if (found.length === 0) told.delete(index);
    else if (told.has(index) || runs.length < RUNS_MAX) told.set(index, found);
    hasLearnt = true;
  };
  /** Folds what was learnt to be drawn over, and keeps the first line in view where it is. Gives whether anything has changed. */
  const settle = () => {
    if (!hasLearnt) return false;
    hasLearnt = false;
    const [line, rest] = [lineOf(top()), isWhole() ? log.scrollTop % LINE : 0];
    fold();
    drawMap();
    scrollTo(follows ? rowsInAll() : rowOf(line));
    if (!follows) log.scrollTop += rest;
    ours = log.scrollTop;
    return true;
  };
  /** The number of a row's line, from 0. @param {HTMLElement} row */
  const number = (row) => (row.id ? Number(row.id.split(":")[1]) - 1 : Number(row.dataset.line));

  let drawing = 0;
  /** Lines in view, by their rows. */
  const inView = () => {
    const above = top();
    const from = Math.max(0, above - 20);
    const to = Math.min(rowsInAll(), above + rowsInView() + 20);
    /** @type {Set<number>} */
    const numbers = new Set();
    for (let row = from; row < to; row++) numbers.add(lineOf(row));
    return { above, numbers };
  };
  const draw = async (rounds = 0) => {
    const own = ++drawing;
    space.style.height = `${height()}px`;
    const wanted = new Set([...inView().numbers].map((line) => Math.floor(line / PIECE)));
    const rows = (await Promise.all([...wanted].map((it) => piece(it).catch(() => [])))).flat();
    if (own !== drawing || (rows.length === 0 && wanted.size > 0)) return;
    // What was loaded may be drawn over by what comes after it: then there is room for more.
    const isMore = settle() && rounds < ROUNDS_MAX;
    const { above, numbers } = inView();
    const shown = rows.filter((row) => numbers.has(number(row)));
    dress(shown);
    view.replaceChildren(...shown);
    const first = shown.length > 0 ? rowOf(number(shown[0])) : above;
    const offset = wraps
      ? log.scrollTop - (shown.find((row) => number(row) >= lineOf(above))?.offsetTop ?? 0)
      : isWhole() ? first * LINE : log.scrollTop - (above - first) * LINE;
    view.style.transform = `translateY(${Math.max(0, offset)}px)`;
    if (isMore) await draw(rounds + 1);
  };

  const TIMES = ["none", "clock", "relative", "since"];
  let times = 0;
  /** Says of rows what depends on the reader: marks, times, folds. @param {HTMLElement[]} rows */
  const dress = (rows) => {
    const range = namedBy(location.hash);
    let before = Number.NaN;
    for (const row of rows) {
      const line = number(row);
      row.classList.toggle("marked", line === mark || (!!range && line + 1 >= range.from && line + 1 <= range.to));
      const time = /** @type {HTMLElement | null} */ (row.querySelector(".t"));
      if (!time) continue;
      const at = Date.parse(time.getAttribute("datetime") ?? "");
      if (times > 0) time.dataset.t = timeTold(at, before);
      before = at;
      dressGroup(row, groups.find((it) => it.line === line));
      dressRun(row, runs.find((it) => it.to === line));
      row.querySelector(".n")?.setAttribute("tabindex", "-1");
    }
  };
  /** @param {number} at @param {number} before */
  const timeTold = (at, before) => {
    if (TIMES[times] === "clock") {
      const clock = new Date(at);
      const two = (/** @type {number} */ part) => String(part).padStart(2, "0");
      return `${two(clock.getHours())}:${two(clock.getMinutes())}:${two(clock.getSeconds())}.${String(clock.getMilliseconds()).padStart(3, "0")}`;
    }
    const ms = TIMES[times] === "relative" ? at - began : at - before;
    if (Number.isNaN(ms)) return "";
    const seconds = ms / 1000;
    const span = seconds < 60 ? `${seconds.toFixed(3)} s` : `${Math.floor(seconds / 60)} m ${(seconds % 60).toFixed(1).padStart(4, "0")} s`;
    return TIMES[times] === "relative" ? span : `+${span}`;
  };
  /** @param {HTMLElement} row @param {Group | undefined} group */
  const dressGroup = (row, group) => {
    let button = row.querySelector("button.fold:not(.redraws)");
    if (!group) { button?.remove(); row.classList.remove("group"); delete row.dataset.depth; return; }
    row.dataset.depth = String(group.depth);
    if (!button) {
      button = made("button", "fold");
      button.setAttribute("type", "button");
      row.querySelector(".c")?.before(button);
      row.classList.add("group");
    }
    button.setAttribute("aria-expanded", String(!group.isFolded));
    button.textContent = group.isFolded ? `▸ ${(Math.min(group.end, lines) - group.line - 1).toLocaleString("en")}` : "▾";
    // What is read out holds what is seen (WCAG 2.5.3).
    button.setAttribute("aria-label", `${button.textContent} ${group.link.textContent ?? "group"}`);
  };
  /** @param {HTMLElement} row @param {Run | undefined} run whose last drawing begins with this row */
  const dressRun = (row, run) => {
    let button = row.querySelector("button.redraws");
    if (!run) { button?.remove(); return; }
    if (!button) {
      button = made("button", "fold redraws");
      button.setAttribute("type", "button");
      row.querySelector(".c")?.before(button);
    }
    const isShown = isOpened(run);
    button.setAttribute("aria-expanded", String(isShown));
    button.textContent = `${isShown ? "▾" : "▸"} ${run.redraws.toLocaleString("en")} ${run.redraws === 1 ? "redraw" : "redraws"}`;
  };
  /** @param {Run} run */
  const turnRun = (run) => {
    if (isOpened(run)) opened = opened.filter((line) => line < run.from || line >= run.to);
    else opened = [...opened, run.to - 1].slice(-OPENED_MAX);
    const at = rowOf(run.to) - top();
    leave();
    fold();
    drawMap();
    // The last drawing stays where it is.
    scrollTo(Math.max(0, rowOf(run.to) - at));
    draw();
  };
  /** @param {Group} group */
  const turn = (group) => {
    const at = top();
    group.isFolded = !group.isFolded;
    fold();
    drawMap();
    scrollTo(Math.min(at, lastTop()));
    draw();
  };

  // ---- Following.

  let hasGone = false;
  /** How many lines there were when the reader left the end. */
  let left = lines;
  const tellNewer = () => {
    const count = lines - left;
    newer.textContent = count > 0 ? `↓ ${count.toLocaleString("en")} new ${count === 1 ? "line" : "lines"}` : "↓ to the end";
    newer.hidden = follows || !log.hasAttribute("data-open");
  };
  const leave = () => { if (follows) { follows = false; left = lines; } };
  log.addEventListener("scroll", () => {
    const isOurs = Math.abs(log.scrollTop - ours) <= 1;
    if (!isOurs && top() < lastTop() - 2) leave();
    if (log.hasAttribute("data-open") && top() >= lastTop() - 1) follows = true;
    tellNewer();
    if (isOurs) return;
    ours = Number.NEGATIVE_INFINITY;
    hasGone = true;
    draw();
  }, { passive: true });
  let width = 0;
  new ResizeObserver(() => { if (width !== log.clientWidth * 10_000 + log.clientHeight) { width = log.clientWidth * 10_000 + log.clientHeight; draw(); } }).observe(log);
  const toEnd = () => { scrollTo(rowsInAll()); draw(); };
  newer.addEventListener("click", () => { follows = true; tellNewer(); toEnd(); log.focus(); });

  // ---- Going to lines.

  /** @param {number} line */
  const show = (line) => {
    leave();
    unfold(line);
    scrollTo(Math.max(0, rowOf(line) - Math.floor(rowsInView() / 3)));
    draw();
  };
  /** Names lines in the address. @param {number} from @param {number} to both from 0 */
  const name = (from, to) => {
    const address = new URL(location.href);
    address.searchParams.set("step", String(step - 1));
    address.searchParams.set("from", String(Math.max(0, from - 100)));
    address.hash = from === to ? `#${step}:${from + 1}` : `#${step}:${from + 1}-${to + 1}`;
    history.replaceState(null, "", address);
  };
  /** @param {number} line */
  const go = (line) => { name(line, line); show(line); };
  log.addEventListener("click", (event) => {
    const target = /** @type {HTMLElement} */ (event.target);
    const row = /** @type {HTMLElement | null} */ (target.closest(".l"));
    if (!row) return;
    const run = target.closest("button.redraws") && runs.find((it) => it.to === number(row));
    if (run) { turnRun(run); return; }
    const group = target.closest("button.fold") && groups.find((it) => it.line === number(row));
    if (group) { turn(group); return; }
    if (!target.closest("a.n")) return;
    event.preventDefault();
    const start = namedBy(location.hash);
    const line = number(row);
    if (event.shiftKey && start) name(Math.min(start.from - 1, line), Math.max(start.from - 1, line));
    else name(line, line);
    getSelection()?.removeAllRanges();
    draw();
  });
  addEventListener("hashchange", () => {
    const range = namedBy(location.hash);
    if (range && range.step === step) show(range.from - 1);
    else if (range) location.reload();
  });

  // ---- Finding, on the server: what a reader asks for, and what looks like an error.

  /** @type {Finds | null} */
  let errors = null;
  /** @type {Finds | null} */
  let hits = null;
  /** @param {string} regex @param {string} more */
  const ask = async (regex, more) => {
    const answer = await answerTo(`${api}/search?regex=${encodeURIComponent(regex)}${more}`);
    const said = await answer.json();
    if (!answer.ok) throw new Error(said.detail);
    return said;
  };
  /**
   * Finds all of a log, with as many requests as the server wants for it: each has bounds of its own.
   * @param {"hit" | "error"} kind @param {string} regex
   * @param {(finds: Finds) => boolean} told hears what was found so far, and says whether to go on
   * @returns {Promise<Finds>}
   */
  const find = async (kind, regex, told) => {
    /** @type {Finds} */
    const finds = { kind, regex, numbers: [], texts: [], spread: { lines, searched: 0, hits: 0, parts: [] } };
    for (;;) {
      const { searched, hits: before, parts } = finds.spread;
      const found = await ask(regex, `&limit=${HITS}&parts=${PARTS}${searched > 0 ? `&cursor=${searched}` : ""}`);
      for (const hit of found.hits.slice(0, HITS - finds.numbers.length)) {
        finds.numbers.push(hit.number);
        finds.texts.push(hit.text);
      }
      /** @type {Spread} */
      const spread = found.spread ?? { lines, searched: lines, hits: 0, parts: [] };
      finds.spread = { ...spread, hits: before + spread.hits, parts: spread.parts.map((count, index) => count + (parts[index] ?? 0)) };
      if (spread.searched >= spread.lines || spread.searched <= searched || !told(finds)) return finds;
    }
  };
  const drawMap = () => {
    const marks = [];
    for (const finds of [errors, hits]) {
      if (!finds) continue;
      const { parts, lines: all } = finds.spread;
      for (const [index, count] of parts.entries()) {
        if (count === 0) continue;
        const rect = document.createElementNS("http://www.w3.org/2000/svg", "rect");
        rect.setAttribute("class", finds.kind);
        rect.setAttribute("width", "10");
        rect.setAttribute("height", "4");
        rect.setAttribute("y", String((rowOf(Math.floor((index / parts.length) * all)) / Math.max(1, rowsInAll())) * 996));
        marks.push(rect);
      }
    }
    map.replaceChildren(...marks);
  };
  /** The next or the one before, of what a search found, else of errors. @param {1 | -1} direction */
  const stepTo = async (direction) => {
    const finds = hits ?? errors;
    if (!finds || finds.spread.hits === 0) { said.textContent = "nothing to go to"; return; }
    const range = namedBy(location.hash);
    const at = range ? range.from - 1 : mark >= 0 ? mark : lineOf(top());
    const known = finds.numbers;
    const isAllKnown = known.length >= finds.spread.hits;
    let to = direction > 0 ? known.find((line) => line > at) : known.findLast((line) => line < at);
    if (direction > 0 && to === undefined && !isAllKnown) {
      to = (await ask(finds.regex, `&limit=1&cursor=${at + 1}`)).hits[0]?.number;
    } else if (direction < 0 && !isAllKnown && at > (known.at(-1) ?? 0)) {
      // Back beyond what is listed: the part of the log before this line that has some.
      const { parts, lines: all } = finds.spread;
      const partOf = (/** @type {number} */ index) => Math.ceil((index * all) / parts.length);
      for (let index = Math.min(parts.length - 1, Math.floor((at * parts.length) / all)); index >= 0; index--) {
        if (parts[index] === 0) continue;
        const found = (await ask(finds.regex, `&limit=${HITS_BACK}&cursor=${partOf(index)}`)).hits;
        to = found.findLast((/** @type {any} */ hit) => hit.number < at)?.number;
        if (to !== undefined) break;
      }
    }
    if (to === undefined) { said.textContent = direction > 0 ? "that was the last" : "that was the first"; return; }
    mark = -1;
    go(to);
    said.textContent = `line ${to + 1}, of ${finds.spread.hits} that ${finds.kind === "hit" ? "match" : "look like errors"}`;
  };
  /** @param {Finds} finds @param {string} [goesOn] what follows if the search has not come to the end */
  const list = (finds, goesOn = "the search ended there") => {
    document.querySelector("#hits")?.remove();
    const section = made("section", "hits");
    section.id = "hits";
    section.tabIndex = 0;
    section.setAttribute("aria-label", "What was found");
    const { hits: count, searched, lines: all } = finds.spread;
    const many = `${count.toLocaleString("en")} ${count === 1 ? "line matches" : "lines match"}`;
    section.append(made("p", "", searched < all ? `${many} in the first ${searched.toLocaleString("en")} lines; ${goesOn}` : many));
    const items = made("ol");
    for (const [index, line] of finds.numbers.entries()) {
      const item = /** @type {HTMLLIElement} */ (made("li"));
      item.value = line + 1;
      const link = /** @type {HTMLAnchorElement} */ (made("a", "", finds.texts[index]));
      link.href = `#${step}:${line + 1}`;
      item.append(link);
      items.append(item);
    }
    if (count > finds.numbers.length) items.append(made("li", "quiet", `the first ${finds.numbers.length} are listed; n and p go to all`));
    section.append(items);
    viewer.querySelector(".stage")?.before(section);
    said.textContent = many;
  };
  const search = /** @type {HTMLInputElement | null} */ (viewer.querySelector("#search"));
  /** @param {string} text */
  const tellProblem = (text) => {
    viewer.querySelector(".find + .problem")?.remove();
    const problem = made("p", "problem", text);
    problem.setAttribute("role", "alert");
    search?.form?.after(problem);
  };
  const run = async (/** @type {string} */ regex) => {
    document.querySelector("#hits")?.remove();
    viewer.querySelector(".find + .problem")?.remove();
    hits = null;
    if (regex) {
      try {
        const isWanted = () => !search || search.value === regex;
        const found = await find("hit", regex, (some) => {
          if (isWanted()) { hits = some; list(some, "it goes on"); drawMap(); }
          return isWanted();
        });
        if (!isWanted()) return;
        hits = found;
        list(found);
      } catch (error) {
        tellProblem(error instanceof Error ? error.message : String(error));
      }
    }
    drawMap();
  };
  search?.form?.addEventListener("submit", (event) => {
    event.preventDefault();
    const address = new URL(location.href);
    if (search.value) address.searchParams.set("q", search.value); else address.searchParams.delete("q");
    history.replaceState(null, "", address);
    run(search.value);
    if (search.value) log.focus({ preventScroll: true });
  });

  // ---- Keys and buttons.

  const press = (/** @type {string} */ key, /** @type {boolean} */ is) => viewer.querySelector(`[data-do=${key}]`)?.setAttribute("aria-pressed", String(is));
  const copy = async () => {
    const range = namedBy(location.hash);
    let rows = /** @type {HTMLElement[]} */ ([...view.querySelectorAll(".l")]);
    if (range && range.step === step) {
      rows = [];
      const to = Math.min(range.to, range.from + COPY_MAX, lines);
      for (let index = Math.floor((range.from - 1) / PIECE); index * PIECE < to; index++) {
        rows.push(...(await piece(index)).filter((row) => row.id && number(row) + 1 >= range.from && number(row) + 1 <= to));
      }
    }
    const texts = rows.map((row) => /** @type {HTMLElement | null} */ (row.querySelector(".c"))).map((it) => it?.dataset.raw ?? it?.textContent ?? "");
    viewer.querySelector(".find + .problem")?.remove();
    if (await isCopied(texts.join("\n"))) said.textContent = `${texts.length} ${texts.length === 1 ? "line" : "lines"} copied`;
    else tellProblem("Nothing was copied: the browser does not let this page do it. Select the lines and copy them by its own keys, or take them from Raw.");
  };
  const deeds = {
    j: () => { log.scrollTop += LINE; },
    k: () => { log.scrollTop -= LINE; },
    n: () => { stepTo(1); },
    p: () => { stepTo(-1); },
    t: () => {
      times = (times + 1) % TIMES.length;
      log.classList.toggle("times", times > 0);
      const button = viewer.querySelector("[data-do=t]");
      if (button) button.textContent = ["Times", "Clock", "Since start", "Since line"][times];
      draw();
    },
    w: () => {
      const at = top();
      wraps = log.classList.toggle("wrap");
      press("w", wraps);
      scrollTo(at);
      draw();
    },
    d: () => { press("d", log.classList.toggle("dims")); },
    z: () => {
      const line = lineOf(top());
      const isAny = groups.some((group) => group.isFolded);
      for (const group of groups) group.isFolded = !isAny;
      fold();
      drawMap();
      scrollTo(rowOf(line));
      draw();
    },
    G: () => { follows = log.hasAttribute("data-open"); tellNewer(); toEnd(); },
    c: () => { copy().catch(() => tellProblem("Nothing was copied: the lines could not be loaded. Try again when the server answers.")); },
    l: () => { const range = namedBy(location.hash); go(range ? range.from - 1 : lineOf(top())); },
  };
  const deed = (/** @type {string} */ key) => (Object.hasOwn(deeds, key) ? deeds[/** @type {keyof typeof deeds} */ (key)] : undefined);
  document.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || /** @type {HTMLElement} */ (event.target).closest("input, select, textarea, dialog")) return;
    const wanted = deed(event.key);
    if (wanted) { wanted(); event.preventDefault(); }
  });
  const tools = viewer.querySelector("#log-tools");
  tools?.removeAttribute("hidden");
  tools?.addEventListener("click", (event) => deed(/** @type {HTMLElement} */ (event.target).closest("button")?.dataset.do ?? "")?.());

  // ---- The beginning: the line of the address, the first error, the end of what runs, else the beginning.

  if (named) show(named.from - 1);
  else if (mark >= 0) { unfold(mark); show(mark); }
  else if (follows) toEnd();
  // Nothing in it looked like an error so far: how it ended says most.
  else if (log.hasAttribute("data-failed") && !new URLSearchParams(location.search).has("from")) scrollTo(rowsInAll());
  else scrollTo(rowOf(first));
  // What was gone to is in sight, not only in the log's own window.
  if (named || mark >= 0 || follows) log.scrollIntoView({ block: "end" });
  draw().then(() => { log.setAttribute("data-drawn", ""); performance.mark("log drawn"); });
  if (search?.value) run(search.value);
  if (log.hasAttribute("data-failed")) {
    const take = (/** @type {Finds} */ found) => {
      errors = found;
      drawMap();
      // The page did not wait for the first to be found; nor does the reader who went on, or asked for a place.
      const isStill = !hasGone && !new URLSearchParams(location.search).has("from");
      if (mark < 0 && !namedBy(location.hash) && found.numbers.length > 0 && isStill) { mark = found.numbers[0]; show(mark); }
      return found.numbers.length === 0;
    };
    find("error", log.dataset.errors ?? "", take).then(take, () => {});
  }
  loadLate();

  if (log.hasAttribute("data-open")) followLog(api, { step: step - 1, from: lines }, (count, isOver) => {
    const was = lines;
    lines = Math.max(lines, count);
    if (isOver) log.removeAttribute("data-open");
    // What has come may be drawn over what is there.
    if (lines > was) for (let index = Math.max(0, Math.floor((was - AHEAD) / PIECE)); index * PIECE <= was; index++) pieces.delete(index);
    for (const group of groups) if (group.end >= was) group.end = lines;
    if (follows) toEnd(); else draw();
    tellNewer();
    if (isOver) goOn(step, () => follows && !new URL(location.href).searchParams.get("q"));
  });
}

/**
 * Goes to the last step that has printed something once the one that a reader follows is over; nowhere if none comes behind it, or they look at
 * something else by then.
 * @param {number} step the one that is over, from 1 @param {() => boolean} follows
 */
async function goOn(step, follows) {
  for (let pause = AGAIN_MS; follows(); pause = Math.min(pause * 2, AGAIN_MS_MAX)) {
    const later = [...document.querySelectorAll("#steps a[id^=step-]")].filter((link) => Number(link.id.slice("step-".length)) > step);
    const next = /** @type {HTMLAnchorElement | undefined} */ (later.findLast((link) => link.matches("[data-printed]")));
    if (next) location.replace(next.href);
    if (next || !later.some((link) => link.matches(".waiting, .running"))) return;
    await new Promise((over) => setTimeout(over, pause));
    await readAgain();
  }
}

/** Copies a text, and gives whether it was. @param {string} text */
async function isCopied(text) {
  try {
    // There is none but over HTTPS and on the machine itself.
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const focused = /** @type {HTMLElement | null} */ (document.activeElement);
    const holder = Object.assign(document.createElement("textarea"), { className: "to-copy", value: text });
    document.body.append(holder);
    holder.focus({ preventScroll: true });
    holder.select();
    const isDone = document.execCommand("copy");
    holder.remove();
    focused?.focus({ preventScroll: true });
    return isDone;
  }
}

/**
 * Reads what is still to come, for the numbers alone: lines are drawn by the server. A connection that ends says nothing of the step: as long as that
 * is open it is asked again, from where it broke off.
 * @param {string} api the log's path @param {{ step: number, from: number }} place @param {(count: number, isOver: boolean) => void} told
 */
async function followLog(api, { step, from }, told) {
  let count = from;
  let isTold = true;
  const tell = () => { if (!isTold) { isTold = true; told(count, false); } };
  const timer = setInterval(tell, 100);
  for (let pause = AGAIN_MS; ; pause = Math.min(pause * 2, AGAIN_MS_MAX)) {
    const before = count;
    await follow(`${api}?format=ndjson&follow=true&from=${count}`, (number) => { count = Math.max(count, number + 1); isTold = false; });
    const lines = await linesIfOver(api.slice(0, api.lastIndexOf("/")), step);
    if (lines !== null) { count = Math.max(count, lines); break; }
    if (count > before) pause = AGAIN_MS;
    await new Promise((over) => setTimeout(over, pause));
    // What could not be loaded meanwhile is drawn.
    isTold = false;
  }
  clearInterval(timer);
  told(count, true);
}

/** Follows lines until the connection ends. @param {string} path @param {(number: number) => void} seen */
async function follow(path, seen) {
  try {
    const answer = await answerTo(path);
    const reader = answer.ok ? answer.body?.pipeThrough(new TextDecoderStream()).getReader() : undefined;
    let rest = "";
    while (reader) {
      const { done, value } = await reader.read();
      if (done) break;
      const rows = (rest + value).split("\n");
      rest = rows.pop() ?? "";
      for (const row of rows) {
        const found = /"number":(\d+)/.exec(row);
        if (found) seen(Number(found[1]));
      }
    }
  } catch {
    // The server has gone, or the way to it.
  }
}

/** How many lines a step has printed, once no more of it comes; nothing as long as it is open, or the server does not say. @param {string} summary its path @param {number} step */
async function linesIfOver(summary, step) {
  try {
    const answer = await answerTo(summary);
    if (!answer.ok) return null;
    /** @type {{ steps: { step: number, lines: number, state: string }[] }} */
    const said = await answer.json();
    const told = said.steps.find((it) => it.step === step);
    return told && told.state !== "open" ? told.lines : null;
  } catch {
    return null;
  }
}
