// @ts-check
// The log: only the lines that are looked at are in the page, whatever their number; the rest is loaded as it comes into
// view. Follows a step that runs, and stops following when the reader scrolls away.

/** The height of a line; the stylesheet says the same. */
const LINE = 20;
/** How many lines one request brings, and how many pieces are kept. */
const PIECE = 200;
const PIECES_KEPT = 40;
/** The tallest element that browsers lay out well; a longer log is scrolled in proportion. */
const HEIGHT_MAX = 12_000_000;

export function open() {
  const log = /** @type {HTMLElement} */ (document.querySelector("#log[data-source]"));
  const source = log.dataset.source ?? "";
  let lines = Number(log.dataset.lines);
  const first = Number(log.dataset.from);
  const mark = log.dataset.mark === undefined ? -1 : Number(log.dataset.mark);
  let follows = log.hasAttribute("data-open");

  /** Rows by their piece. @type {Map<number, Promise<HTMLElement[]>>} */
  const pieces = new Map();
  const space = document.createElement("div");
  space.className = "space";
  const view = document.createElement("div");
  view.className = "window";
  const newer = document.createElement("button");
  newer.className = "newer";
  newer.hidden = true;
  newer.type = "button";
  space.append(view);
  log.replaceChildren(space, newer);
  log.classList.add("virtual");
  for (const pager of document.querySelectorAll(".viewer .pager")) pager.remove();

  const height = () => Math.min(lines * LINE, HEIGHT_MAX);
  const room = () => Math.max(1, height() - log.clientHeight);
  const linesInView = () => Math.ceil(log.clientHeight / LINE);
  const lastTop = () => Math.max(0, lines - linesInView() + 1);
  /** The first line in view. */
  const top = () => (lines * LINE <= HEIGHT_MAX ? Math.floor(log.scrollTop / LINE) : Math.round((log.scrollTop / room()) * lastTop()));
  /** @param {number} line */
  const scrollTo = (line) => {
    log.scrollTop = lines * LINE <= HEIGHT_MAX ? line * LINE : (line / Math.max(1, lastTop())) * room();
  };

  /** @param {number} piece */
  const piece = (piece) => {
    let rows = pieces.get(piece);
    const isWhole = (piece + 1) * PIECE <= lines;
    if (!rows) {
      rows = fetch(`${source}?from=${piece * PIECE}&count=${PIECE}`).then(async (answer) => {
        if (!answer.ok) throw new Error(`${answer.status}`);
        const holder = document.createElement("div");
        holder.innerHTML = await answer.text();
        return /** @type {HTMLElement[]} */ ([...holder.children]);
      });
      rows.catch(() => pieces.delete(piece));
      pieces.set(piece, rows);
      if (!isWhole) rows.then(() => { if ((piece + 1) * PIECE > lines) return; pieces.delete(piece); });
      while (pieces.size > PIECES_KEPT) pieces.delete(pieces.keys().next().value ?? -1);
    }
    return rows;
  };

  let drawing = 0;
  const draw = async () => {
    const own = ++drawing;
    space.style.height = `${height()}px`;
    const from = Math.max(0, top() - 20);
    const to = Math.min(lines, from + linesInView() + 40);
    const wanted = [];
    for (let index = Math.floor(from / PIECE); index * PIECE < to; index++) wanted.push(piece(index));
    const rows = (await Promise.all(wanted.map((it) => it.catch(() => [])))).flat();
    if (own !== drawing) return;
    const shown = rows.filter((row) => row.matches(".gap") || inside(row, from, to));
    const offset = lines * LINE <= HEIGHT_MAX ? from * LINE : log.scrollTop - (top() - from) * LINE;
    view.style.transform = `translateY(${Math.max(0, offset)}px)`;
    view.replaceChildren(...shown);
    for (const row of shown) row.classList.toggle("marked", number(row) === mark + 1 || chosen(row));
  };
  /** @param {HTMLElement} row */
  const number = (row) => Number(row.id.slice(1));
  /** @param {HTMLElement} row @param {number} from @param {number} to */
  const inside = (row, from, to) => number(row) > from && number(row) <= to;
  /** Whether the address names this line: `#L5` or `#L5-L9`. @param {HTMLElement} row */
  const chosen = (row) => {
    const range = /^#L(\d+)(?:-L(\d+))?$/.exec(location.hash);
    return !!range && number(row) >= Number(range[1]) && number(row) <= Number(range[2] ?? range[1]);
  };

  let isOurs = true;
  log.addEventListener("scroll", () => {
    if (!isOurs && follows && top() < lastTop() - 2) follows = false;
    isOurs = false;
    newer.hidden = follows || !log.hasAttribute("data-open") || top() >= lastTop() - 2;
    if (log.hasAttribute("data-open") && top() >= lastTop() - 1) follows = true;
    draw();
  }, { passive: true });
  new ResizeObserver(() => draw()).observe(log);

  const toEnd = () => { isOurs = true; scrollTo(lines); draw(); };
  newer.addEventListener("click", () => { follows = true; newer.hidden = true; toEnd(); });

  // A click on a number names the line in the address, with shift a range.
  log.addEventListener("click", (event) => {
    const link = /** @type {HTMLElement} */ (event.target).closest("a.n");
    if (!link) return;
    event.preventDefault();
    const line = Number(link.parentElement?.id.slice(1));
    const start = /^#L(\d+)/.exec(location.hash);
    const hash = event.shiftKey && start ? `#L${Math.min(Number(start[1]), line)}-L${Math.max(Number(start[1]), line)}` : `#L${line}`;
    const address = new URL(location.href);
    address.searchParams.set("from", String(Math.max(0, line - 100)));
    address.hash = hash;
    history.replaceState(null, "", address);
    draw();
  });

  /** The lines that `n` and `p` go to: what a search found, else the first error. */
  const hits = [...document.querySelectorAll(".hits a[data-line]")].map((hit) => Number(hit.getAttribute("data-line")));
  if (hits.length === 0 && mark >= 0) hits.push(mark);
  for (const hit of document.querySelectorAll(".hits a[data-line]")) {
    hit.addEventListener("click", (event) => { event.preventDefault(); go(Number(hit.getAttribute("data-line"))); });
  }
  /** @param {number} line */
  const go = (line) => {
    follows = false;
    history.replaceState(null, "", `${location.pathname}${location.search}#L${line + 1}`);
    scrollTo(Math.max(0, line - Math.floor(linesInView() / 3)));
    draw();
  };

  const TIMES = ["", "clock", "since"];
  let times = 0;
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || /** @type {HTMLElement} */ (event.target).closest("input, select, textarea")) return;
    const middle = top() + Math.floor(linesInView() / 3);
    const keys = {
      j: () => { log.scrollTop += LINE; }, k: () => { log.scrollTop -= LINE; },
      n: () => { const next = hits.find((hit) => hit > middle); if (next !== undefined) go(next); },
      p: () => { const earlier = hits.findLast((hit) => hit < middle); if (earlier !== undefined) go(earlier); },
      t: () => { times = (times + 1) % TIMES.length; log.classList.toggle("times", times > 0); log.classList.toggle("since", times === 2); },
      w: () => { log.classList.toggle("wrap"); },
      G: () => { follows = true; toEnd(); },
      c: () => { navigator.clipboard?.writeText([...view.querySelectorAll(".l .c")].map((line) => line.textContent).join("\n")); },
    };
    const key = keys[/** @type {keyof typeof keys} */ (event.key)];
    if (key) { key(); event.preventDefault(); }
  });

  // Where the page was opened: the line of the address, the first error, the end of what runs, else the beginning.
  const named = /^#L(\d+)/.exec(location.hash);
  draw().then(() => {
    isOurs = true;
    if (named) scrollTo(Math.max(0, Number(named[1]) - 1 - Math.floor(linesInView() / 3)));
    else if (mark >= 0) scrollTo(Math.max(0, mark - Math.floor(linesInView() / 3)));
    else if (follows) scrollTo(lines);
    else scrollTo(first);
    if (named || mark >= 0 || follows) log.scrollIntoView({ block: "end" });
    draw();
  });

  if (log.hasAttribute("data-open")) followLog(log.dataset.follow ?? "", lines, (count, isOver) => {
    const was = lines;
    lines = Math.max(lines, count);
    if (isOver) log.removeAttribute("data-open");
    if (lines > was) pieces.delete(Math.floor(was / PIECE));
    if (follows) toEnd();
    else { newer.textContent = `↓ ${lines - was > 0 ? "new lines" : "to the end"}`; newer.hidden = false; draw(); }
  });
}

/**
 * Reads what is still to come, for the numbers alone: lines are drawn by the server.
 * @param {string} path @param {number} from @param {(count: number, isOver: boolean) => void} told
 */
async function followLog(path, from, told) {
  let count = from;
  let isTold = true;
  const tell = () => { if (!isTold) { isTold = true; told(count, false); } };
  const timer = setInterval(tell, 100);
  try {
    const answer = await fetch(`${path}&from=${from}`);
    const reader = answer.body?.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    while (reader) {
      const { done, value } = await reader.read();
      if (done) break;
      const rows = (rest + value).split("\n");
      rest = rows.pop() ?? "";
      for (const row of rows) {
        const seen = /"number":(\d+)/.exec(row);
        if (seen) { count = Math.max(count, Number(seen[1]) + 1); isTold = false; }
      }
    }
    told(count, true);
  } catch {
    // The connection ended: the page's own stream reads the page again when something happens.
  } finally {
    clearInterval(timer);
  }
}
