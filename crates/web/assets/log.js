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
/** The most lines that stay in the page for what is selected in them; of more, only what is in view stays selected. */
const SELECTED_MAX = 4000;
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

/** What the server refused, by its status. */
class Refused extends Error {}

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
  const attempt = /\/attempts\/(\d+)\//.exec(api)?.[1] ?? "";
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

  const height = () => Math.min(rowsInAll() * LINE, HEIGHT_MAX);
  const isWhole = () => rowsInAll() * LINE <= HEIGHT_MAX;
  const room = () => Math.max(1, height() - log.clientHeight);
  const rowsInView = () => Math.ceil(log.clientHeight / LINE);
  const lastTop = () => Math.max(0, rowsInAll() - (wraps ? 1 : rowsInView() - 1));
  /** Where the rows that are drawn begin, in pixels from the beginning. */
  let offset = 0;
  /** While long lines are wrapped: what is scrolled to with the next drawing, a line and how far below the upper edge it begins, in pixels.
   * @type {{ line: number, at: number } | "end" | null} */
  let goal = null;
  /** The room that a row takes which is not drawn, while long lines are wrapped. */
  const unit = () => Math.min(LINE, HEIGHT_MAX / Math.max(1, rowsInAll()));
  const drawn = () => /** @type {HTMLElement[]} */ ([...view.children]);
  /** The first line in view while long lines are wrapped, and how far below the upper edge it begins: as rows stand; where none are drawn, as they may stand. */
  const seen = () => {
    const above = log.scrollTop;
    const row = drawn().find((it) => offset + it.offsetTop + it.offsetHeight > above);
    if (row && offset + row.offsetTop < above + log.clientHeight) return { line: number(row), at: offset + row.offsetTop - above };
    const last = drawn().at(-1);
    const guess = last && !row ? rowOf(number(last)) + 1 + (above - offset - view.offsetHeight) / unit() : above / unit();
    return { line: lineOf(Math.max(0, Math.min(rowsInAll() - 1, Math.floor(guess)))), at: 0 };
  };
  /** Whether rows are drawn, or there are none, wherever one looks. */
  const isCovered = () => {
    const [first, last] = [drawn()[0], drawn().at(-1)];
    if (!first || !last) return false;
    return (offset <= log.scrollTop || rowOf(number(first)) === 0) && (offset + view.offsetHeight >= log.scrollTop + log.clientHeight || rowOf(number(last)) >= rowsInAll() - 1);
  };
  /** The first row in view. */
  const top = () => {
    if (wraps) return goal === "end" ? lastTop() : rowOf((goal ?? seen()).line);
    return isWhole() ? Math.floor(log.scrollTop / LINE) : Math.round((log.scrollTop / room()) * lastTop());
  };
  /** Whether the end is in view, or no more than so many rows below it. @param {number} rows */
  const isAtEnd = (rows) => {
    if (!wraps) return top() >= lastTop() - rows;
    return goal === "end" || (goal === null && isCovered() && log.scrollHeight - log.clientHeight - log.scrollTop <= rows * LINE);
  };
  /** Where we scrolled to, and drew or will draw: any other place is the reader's. */
  let ours = Number.NEGATIVE_INFINITY;
  /** Scrolls so that a row stands so many rows below the upper edge, or to the end; whoever calls this draws. @param {number} row @param {number} [below] */
  const scrollTo = (row, below = 0) => {
    if (wraps) {
      goal = row >= rowsInAll() ? "end" : { line: lineOf(row), at: below * LINE };
      return;
    }
    // Of an element that was drawn smaller, only the old height could be scrolled.
    space.style.height = `${height()}px`;
    const to = Math.max(0, row - below);
    log.scrollTop = isWhole() ? to * LINE : (to / Math.max(1, lastTop())) * room();
    ours = log.scrollTop;
  };

  // ---- Lines.

  /** Rows as the server wrote them. @type {WeakMap<Element, string>} */
  const written = new WeakMap();
  /** What tells a row from all others. @param {Element} row */
  const keyOf = (row) => row.id || `gap ${row.getAttribute("data-line")}`;
  /** Of a row that is drawn already as it is, that one: what is selected or has the focus in it stays so. @param {Element} row @param {Map<string, HTMLElement>} shown */
  const sameRow = (row, shown) => {
    const html = row.outerHTML;
    const known = shown.get(keyOf(row));
    if (known && written.get(known) === html) return known;
    written.set(row, html);
    return /** @type {HTMLElement} */ (row);
  };
  /** @param {number} index */
  const piece = (index) => {
    let rows = pieces.get(index);
    if (!rows) {
      rows = answerTo(`${source}?from=${index * PIECE}&count=${PIECE}${green ? `&green=${green}` : ""}`).then(async (answer) => {
        if (!answer.ok) throw new Refused(`${answer.status}`);
        const holder = made("div");
        holder.innerHTML = await answer.text();
        const shown = new Map(drawn().map((row) => [keyOf(row), row]));
        const rows = [...holder.children].map((row) => sameRow(row, shown));
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
    if (wraps) {
      goal = follows ? "end" : goal ?? seen();
      fold();
      drawMap();
      return true;
    }
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

  /** The rows of the first and the last line that is selected in part; nothing if none is, or too many are. */
  const selected = () => {
    const selection = getSelection();
    if (!selection || selection.isCollapsed || selection.rangeCount === 0) return null;
    const { startContainer, startOffset, endContainer, endOffset } = selection.getRangeAt(0);
    const rows = [[startContainer, startOffset], [endContainer, endOffset - 1]].map(([node, at]) => {
      const inner = node === view ? view.childNodes[Math.max(0, Number(at))] : /** @type {Node} */ (node);
      const row = /** @type {HTMLElement | null | undefined} */ ((inner instanceof Element ? inner : inner?.parentElement)?.closest(".l, .gap"));
      return row && view.contains(row) ? rowOf(number(row)) : -1;
    });
    return rows.includes(-1) || rows[1] - rows[0] > SELECTED_MAX ? null : rows;
  };
  let drawing = 0;
  /** Lines in view, by their rows. */
  const inView = () => {
    const above = top();
    let from = above - 20;
    let to = above + rowsInView() + 20;
    if (goal === "end") from -= rowsInView();
    else if (wraps) from -= Math.ceil(Math.max(0, (goal ?? seen()).at) / LINE);
    const [first, last] = selected() ?? [from, to];
    if (Math.max(to, last) - Math.min(from, first) <= SELECTED_MAX) [from, to] = [Math.min(from, first), Math.max(to, last + 1)];
    [from, to] = [Math.max(0, from), Math.min(rowsInAll(), to)];
    /** @type {Set<number>} */
    const numbers = new Set();
    for (let row = from; row < to; row++) numbers.add(lineOf(row));
    return { above, numbers };
  };
  /** Puts rows into the page, in order, and takes others out; those that are there already stay untouched. @param {HTMLElement[]} rows */
  const put = (rows) => {
    const wanted = new Set(/** @type {Node[]} */ (rows));
    for (const row of [...view.childNodes]) if (!wanted.has(row)) row.remove();
    let at = view.firstChild;
    for (const row of rows) {
      if (row === at) at = at.nextSibling;
      else view.insertBefore(row, at);
    }
  };
  const missing = made("p", "missing");
  missing.setAttribute("role", "status");
  missing.hidden = true;
  log.after(missing);
  let again = 0;
  let againMs = AGAIN_MS;
  /** Says that lines could not be loaded, and asks for them again after a while; nothing is missing without an error. @param {unknown} error */
  const tellMissing = (error) => {
    clearTimeout(again);
    missing.hidden = error === null || error === "401";
    if (error === null) { againMs = AGAIN_MS; return; }
    const why = error === "" ? "the server cannot be reached" : `the server answers ${error}`;
    const text = `Lines are missing here: ${why}. They are asked for again until they come.`;
    if (missing.textContent !== text) missing.textContent = text;
    again = setTimeout(() => { draw(); }, againMs);
    againMs = Math.min(againMs * 2, AGAIN_MS_MAX);
  };
  const draw = async (rounds = 0) => {
    const own = ++drawing;
    if (!wraps) space.style.height = `${height()}px`;
    const wanted = new Set([...inView().numbers].map((line) => Math.floor(line / PIECE)));
    /** The status with which a piece was refused, nothing in it if none came. @type {string | null} */
    let refused = null;
    const rows = (await Promise.all([...wanted].map((it) => piece(it).catch((error) => { refused = error instanceof Refused ? error.message : ""; return []; })))).flat();
    if (own !== drawing) return;
    tellMissing(refused);
    if (rows.length === 0 && wanted.size > 0) return;
    // What was loaded may be drawn over by what comes after it: then there is room for more.
    const isMore = settle() && rounds < ROUNDS_MAX;
    const place = wraps ? goal ?? seen() : null;
    const { above, numbers } = inView();
    const shown = rows.filter((row) => numbers.has(number(row)));
    dress(shown);
    put(shown);
    const first = shown.length > 0 ? rowOf(number(shown[0])) : above;
    if (place) stand(place, shown);
    else {
      offset = Math.max(0, isWhole() ? first * LINE : log.scrollTop - (above - first) * LINE);
      view.style.transform = `translateY(${offset}px)`;
    }
    if (isMore || (place && refused === null && rounds < ROUNDS_MAX && !isCovered())) await draw(rounds + 1);
  };
  /** Puts wrapped rows where they belong, and scrolls so that a line stands where it is to: rows that are not drawn may turn out higher. @param {{ line: number, at: number } | "end"} place @param {HTMLElement[]} shown */
  const stand = (place, shown) => {
    const [first, last] = [shown[0], shown.at(-1)];
    if (!first || !last) return;
    offset = rowOf(number(first)) * unit();
    view.style.transform = `translateY(${offset}px)`;
    space.style.height = `${offset + view.offsetHeight + (rowsInAll() - 1 - rowOf(number(last))) * unit()}px`;
    const row = place === "end" ? last : shown.find((it) => number(it) >= place.line) ?? last;
    log.scrollTop = place === "end" ? log.scrollHeight : offset + row.offsetTop - place.at;
    ours = log.scrollTop;
    goal = null;
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
    scrollTo(rowOf(run.to), at);
    draw();
  };
  /** @param {Group} group */
  const turn = (group) => {
    const [at, place] = [top(), wraps ? seen() : null];
    group.isFolded = !group.isFolded;
    fold();
    drawMap();
    if (place) goal = place; else scrollTo(Math.min(at, lastTop()));
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
    if (!isOurs) goal = null;
    if (!isOurs && !isAtEnd(2)) leave();
    if (log.hasAttribute("data-open") && isAtEnd(1)) follows = true;
    tellNewer();
    if (isOurs) return;
    ours = Number.NEGATIVE_INFINITY;
    hasGone = true;
    // Wrapped rows stand where they are as long as there are enough of them: each is seen.
    if (!wraps || !isCovered()) draw();
  }, { passive: true });
  let width = 0;
  new ResizeObserver(() => { if (width !== log.clientWidth * 10_000 + log.clientHeight) { width = log.clientWidth * 10_000 + log.clientHeight; draw(); } }).observe(log);
  // Another try has begun: whoever looks at something of this one keeps it.
  log.addEventListener("leave", (event) => {
    const isLooking = (!follows && hasGone) || namedBy(location.hash) !== null || hits !== null || selected() !== null;
    if (isLooking) event.preventDefault();
  });
  const toEnd = () => { scrollTo(rowsInAll()); draw(); };
  newer.addEventListener("click", () => { follows = true; tellNewer(); toEnd(); log.focus(); });

  // ---- Going to lines.

  /** @param {number} line */
  const show = (line) => {
    leave();
    unfold(line);
    scrollTo(rowOf(line), Math.floor(rowsInView() / 3));
    draw();
  };
  /** Names lines in the address. @param {number} from @param {number} to both from 0 */
  const name = (from, to) => {
    const address = new URL(location.href);
    // Also after another try has begun it leads here.
    address.searchParams.set("attempt", attempt);
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
    if (range && range.step === step) { name(range.from - 1, range.to - 1); show(range.from - 1); }
    else if (range) location.reload();
  });

  // ---- Finding, on the server: what a reader asks for, and what looks like an error.

  /** @type {Finds | null} */
  let errors = null;
  /** @type {Finds | null} */
  let hits = null;
  /** @param {string} regex @param {string} more */
  const ask = async (regex, more) => {
    const answer = await answerTo(`${api}/search?regex=${encodeURIComponent(regex)}${more}`).catch(() => null);
    if (!answer) throw new Error("The server cannot be reached: search again when it answers.");
    const said = await answer.json().catch(() => ({}));
    if (!answer.ok) throw new Error(said.detail || `The server answers ${answer.status}: search again later.`);
    return said;
  };
  /**
   * Finds all of a log, with as many requests as the server wants for it: each has bounds of its own.
   * @param {"hit" | "error"} kind @param {string} regex
   * @param {(finds: Finds) => boolean} told hears what was found so far, and says whether to go on
   * @param {Finds | null} [before] what was found before there were more lines
   * @returns {Promise<Finds>}
   */
  const find = async (kind, regex, told, before = null) => {
    /** @type {Finds} */
    const finds = { kind, regex, numbers: [...before?.numbers ?? []], texts: [...before?.texts ?? []], spread: before?.spread ?? { lines, searched: 0, hits: 0, parts: [] } };
    for (;;) {
      const { searched, hits: counted } = finds.spread;
      const found = await ask(regex, `&limit=${HITS}&parts=${PARTS}${searched > 0 ? `&cursor=${searched}` : ""}`);
      for (const hit of found.hits.slice(0, HITS - finds.numbers.length)) {
        finds.numbers.push(hit.number);
        finds.texts.push(hit.text);
      }
      /** @type {Spread} */
      const spread = found.spread ?? { lines, searched: lines, hits: 0, parts: [] };
      const parts = partsOf(finds.spread, spread);
      finds.spread = { ...spread, hits: counted + spread.hits, parts: spread.parts.map((count, index) => count + parts[index]) };
      if (spread.searched >= spread.lines || spread.searched <= searched || !told(finds)) return finds;
    }
  };
  /** What was counted in the parts of a log, in those of the same log when it is longer. @param {Spread} before @param {Spread} now */
  const partsOf = (before, now) => {
    const parts = now.parts.map(() => 0);
    for (const [index, count] of before.parts.entries()) {
      const line = (index / before.parts.length) * before.lines;
      if (parts.length > 0) parts[Math.min(parts.length - 1, Math.floor((line / Math.max(1, now.lines)) * parts.length))] += count;
    }
    return parts;
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
  /** What a search found, else what looks like an error, searched for also in the lines that have come since if it matters for the step from a line. @param {number} at @param {1 | -1} direction */
  const findsFrom = async (at, direction) => {
    const finds = hits ?? errors;
    const isEnough = finds && (finds.spread.searched >= lines || (direction > 0 ? finds.numbers.some((line) => line > at) : at <= finds.spread.searched));
    if (isEnough) return finds;
    said.textContent = "searching";
    const found = await find(finds?.kind ?? "error", finds?.regex ?? log.dataset.errors ?? "", () => true, finds);
    // Meanwhile the reader may have asked for something else.
    if (finds !== (hits ?? errors)) return hits ?? errors ?? found;
    if (found.kind === "hit") { hits = found; list(found); } else errors = found;
    drawMap();
    return found;
  };
  let isStepping = false;
  /** The next or the one before, of what a search found, else of errors. @param {1 | -1} direction */
  const stepTo = async (direction) => {
    if (isStepping) return;
    isStepping = true;
    viewer.querySelector(".find + .problem")?.remove();
    try {
      await goToFound(direction);
    } catch (error) {
      tellProblem(error instanceof Error ? error.message : String(error));
    }
    isStepping = false;
  };
  /** @param {1 | -1} direction */
  const goToFound = async (direction) => {
    const range = namedBy(location.hash);
    const at = range ? range.from - 1 : mark >= 0 ? mark : lineOf(top());
    const finds = await findsFrom(at, direction);
    if (finds.spread.hits === 0) { said.textContent = finds.kind === "hit" ? "no line matches" : "no line looks like an error"; return; }
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
    const many = (/** @type {number} */ count) => `${count.toLocaleString("en")} ${count === 1 ? "line" : "lines"}`;
    const cut = rows.filter((row) => row.querySelector(".c .cut")).length;
    const isDone = await isCopied(texts.join("\n"));
    if (isDone) said.textContent = `${many(texts.length)} copied`;
    if (isDone && cut > 0) tellProblem(`${many(texts.length)} copied, but ${cut === texts.length ? "cut" : `${many(cut)} of them cut`} where the page cuts long ones: take the whole from Raw.`);
    if (isDone) return;
    tellProblem("Nothing was copied: the browser does not let this page do it. Select the lines and copy them by its own keys, or take them from Raw.");
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
      const at = follows ? rowsInAll() : top();
      wraps = log.classList.toggle("wrap");
      goal = null;
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
  } else {
    // A step that was followed has failed: whoever watched it keeps the place, and sees where errors stand.
    const failure = new MutationObserver(() => {
      failure.disconnect();
      find("error", log.dataset.errors ?? "", () => true, errors).then((found) => { errors = found; drawMap(); }, () => {});
    });
    failure.observe(log, { attributeFilter: ["data-failed"] });
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
 * is open it is asked again, from where it broke off. There is none while nobody looks at the page: a browser opens few to one server, for all its tabs.
 * @param {string} api the log's path @param {{ step: number, from: number }} place @param {(count: number, isOver: boolean) => void} told
 */
async function followLog(api, { step, from }, told) {
  let count = from;
  let isTold = true;
  const tell = () => { if (!isTold) { isTold = true; told(count, false); } };
  const timer = setInterval(tell, 100);
  for (let pause = AGAIN_MS; ; pause = Math.min(pause * 2, AGAIN_MS_MAX)) {
    const before = count;
    await isShown();
    const wasHidden = await follow(`${api}?format=ndjson&follow=true&from=${count}`, (number) => { count = Math.max(count, number + 1); isTold = false; });
    if (wasHidden) { pause = AGAIN_MS; continue; }
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

/** Waits until somebody looks at the page. */
async function isShown() {
  while (document.hidden) await new Promise((shown) => document.addEventListener("visibilitychange", shown, { once: true }));
}

/** Follows lines until the connection ends, or the page is hidden: gives whether it was that. @param {string} path @param {(number: number) => void} seen */
async function follow(path, seen) {
  const hiding = new AbortController();
  document.addEventListener("visibilitychange", () => { if (document.hidden) hiding.abort(); }, { signal: hiding.signal });
  try {
    const answer = await answerTo(path, { signal: hiding.signal });
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
    // The server has gone, or the way to it, or the page is hidden.
  }
  const wasHidden = hiding.signal.aborted;
  hiding.abort();
  return wasHidden;
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
