// @ts-check
// What the page of a build does in a browser: links that change only what is shown, the search as one types, the edges of the job
// that is pointed at, the waterfall's zoom, the time that a running build takes, and the job that is looked at beside the build.

import { readAgain } from "./live.js";
import { answerTo } from "./session.js";

/** How long after the last letter the search is asked, in milliseconds. */
const TYPING_MS = 150;
/** How much wider the waterfall can be than its box. */
const ZOOM_MAX = 64;

/** What an address says of the job that is shown beside the build. */
const PANEL = ["job", "attempt", "step"];

/** Spells out in the present address what it leaves to what was chosen last: else the way back to it would lead to what is chosen now. */
function spellOut() {
  const present = new URL(location.href);
  for (const [name, links] of [["view", "#views"], ["by", "#tree-order"]]) {
    const link = /** @type {HTMLAnchorElement | null} */ (document.querySelector(`${links} a[aria-current]`));
    const shown = link && new URL(link.href).searchParams.get(name);
    if (shown && !present.searchParams.has(name)) present.searchParams.set(name, shown);
  }
  if (present.href !== location.href) history.replaceState(history.state, "", present);
}

/** Shows the page of this address in place of the present one. @param {string} address @param {"push" | "replace"} how */
function show(address, how) {
  const url = new URL(address, location.href);
  const present = new URLSearchParams(location.search);
  for (const name of PANEL) if (present.has(name)) url.searchParams.set(name, present.get(name) ?? "");
  const to = url.pathname + url.search + location.hash;
  if (how === "push") {
    spellOut();
    history.pushState(null, "", to);
  } else history.replaceState(null, "", to);
  return readAgain();
}

function inPageLinks() {
  document.addEventListener("click", (event) => {
    const link = /** @type {Element} */ (event.target).closest("a[data-in-page]");
    const to = link?.getAttribute("href");
    if (!to || event.ctrlKey || event.metaKey || event.shiftKey || event.button !== 0) return;
    event.preventDefault();
    show(to, "push");
  });
  addEventListener("popstate", () => readAgain());
}

function search() {
  const input = /** @type {HTMLInputElement | null} */ (document.querySelector(".tree #search"));
  if (!input) return;
  let timer = 0;
  const find = () => {
    const to = new URL(location.href);
    // What was found by a step shows its steps.
    for (const name of ["from", "open"]) to.searchParams.delete(name);
    if (input.value) to.searchParams.set("q", input.value); else to.searchParams.delete("q");
    show(to.pathname + to.search, "replace");
  };
  input.addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(find, TYPING_MS); });
  input.form?.addEventListener("submit", (event) => { event.preventDefault(); clearTimeout(timer); find(); });
  addEventListener("popstate", () => { input.value = new URLSearchParams(location.search).get("q") ?? ""; });
}

/** Lights the edges of a node and the nodes at their other ends; all are as before without one. @param {Element | null} node */
function light(node) {
  const graph = node?.closest("svg.graph") ?? document.querySelector("svg.graph.pointed");
  if (!graph) return;
  for (const lit of graph.querySelectorAll(".lit")) lit.classList.remove("lit");
  graph.classList.toggle("pointed", node !== null);
  const own = node?.getAttribute("data-node");
  if (!node || own === null) return;
  node.classList.add("lit");
  for (const edge of graph.querySelectorAll(`.edge[data-from="${own}"], .edge[data-to="${own}"]`)) {
    edge.classList.add("lit");
    for (const end of ["data-from", "data-to"]) graph.querySelector(`.node[data-node="${edge.getAttribute(end)}"]`)?.classList.add("lit");
  }
}

function graph() {
  const of = (/** @type {Event} */ event) => /** @type {Element} */ (event.target).closest?.(".graph .node") ?? null;
  for (const name of ["pointerover", "focusin"]) document.addEventListener(name, (event) => light(of(event)));
}

function zoom() {
  const canvas = /** @type {HTMLElement | null} */ (document.querySelector("#canvas"));
  if (!canvas) return;
  let factor = 1;
  document.addEventListener("keydown", (event) => {
    const target = /** @type {HTMLElement} */ (event.target);
    if (!canvas.querySelector(".time, .flame") || event.ctrlKey || event.metaKey || event.altKey || target.closest("input, select, textarea")) return;
    const before = factor;
    if (event.key === "+" || event.key === "=") factor = Math.min(factor * 2, ZOOM_MAX);
    else if (event.key === "-") factor = Math.max(factor / 2, 1);
    else if (event.key === "0") factor = 1;
    else if ((event.key === "ArrowLeft" || event.key === "ArrowRight") && target !== canvas) { canvas.scrollLeft += (event.key === "ArrowLeft" ? -1 : 1) * canvas.clientWidth / 4; event.preventDefault(); return; }
    else return;
    event.preventDefault();
    // The middle of what is seen stays in the middle.
    const middle = (canvas.scrollLeft + canvas.clientWidth / 2) * factor / before;
    canvas.style.setProperty("--zoom", String(factor));
    canvas.scrollLeft = middle - canvas.clientWidth / 2;
  });
}

/** Where a run stands, in whatever way the jobs are shown: what runs, else the gate at which it waits. */
const RUNNING = "#jobs :is(.node, li, tr, .flame a).running";
const AT_GATE = "#jobs :is(.node, li, tr, .flame a).asking";

/** A button, and `j`, that keep what runs in sight while a build goes on, until the reader scrolls. */
function followRun() {
  const canvas = /** @type {HTMLElement | null} */ (document.querySelector("#canvas"));
  if (!canvas || !document.body.dataset.stream) return;
  const button = Object.assign(document.createElement("button"), { type: "button", className: "follow-run", textContent: "Follow what runs" });
  button.title = "j";
  let isOn = false;
  const look = () => {
    const running = [...document.querySelectorAll(RUNNING)].at(-1) ?? document.querySelector(AT_GATE);
    if (!isOn || !running) return;
    const [at, box] = [running.getBoundingClientRect(), canvas.getBoundingClientRect()];
    const behavior = matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth";
    canvas.scrollBy({ left: at.left + at.width / 2 - box.left - box.width / 2, top: at.top + at.height / 2 - box.top - box.height / 2, behavior });
  };
  /** @param {boolean} wanted */
  const set = (wanted) => { isOn = wanted; button.setAttribute("aria-pressed", String(isOn)); look(); };
  set(false);
  button.addEventListener("click", () => set(!isOn));
  for (const name of ["wheel", "touchmove", "pointerdown"]) canvas.addEventListener(name, () => set(false), { passive: true });
  document.addEventListener("keydown", (event) => {
    if (event.key === "j" && !event.ctrlKey && !event.metaKey && !event.altKey && !/** @type {HTMLElement} */ (event.target).closest("input, select, textarea")) set(!isOn);
  });
  new MutationObserver(() => {
    look();
    // A build that has ended is followed no more.
    if (!document.querySelector("p.verdict:is(.running, .asking)")) { set(false); button.hidden = true; }
  }).observe(document.querySelector("main") ?? canvas, { childList: true, subtree: true });
  document.querySelector("#drawn-head")?.append(button);
}

/** The job that a path is the page of; nothing if it is of none of this build. @param {string} path */
function jobOf(path) {
  const start = `${/^\/builds\/[^/]+/.exec(location.pathname)?.[0]}/jobs/`;
  const name = path.slice(start.length);
  return path.startsWith(start) && name && !name.includes("/") ? decodeURIComponent(name) : "";
}

/** The page of the job that the address names. */
function jobPage() {
  const asked = new URLSearchParams(location.search);
  const job = asked.get("job");
  if (!job) return "";
  const query = new URLSearchParams();
  for (const name of ["attempt", "step"]) if (asked.has(name)) query.set(name, asked.get(name) ?? "");
  return `${location.pathname}/jobs/${encodeURIComponent(job)}${query.size > 0 ? `?${query}` : ""}${location.hash}`;
}

/** Writes into this address that a page of a job is shown. @param {URL | Location} page */
function withJob(page) {
  const address = new URL(location.href);
  const asked = new URLSearchParams(page.search);
  for (const name of PANEL) address.searchParams.delete(name);
  address.searchParams.set("job", jobOf(page.pathname));
  for (const name of ["attempt", "step"]) if (asked.has(name)) address.searchParams.set(name, asked.get(name) ?? "");
  address.hash = page.hash;
  return address;
}

/** How much of the window the job beside or below the build may take, in hundredths of its width or height. */
const PANEL_MIN = 25;
const PANEL_MAX = 85;
const PANEL_USUAL = 56;
/** Under which names its size, and whether it stands below, are kept in this browser. */
const PANEL_KEPT = "panel-width";
const DOCK_KEPT = "panel-dock";

/** What is kept in this browser under a name; nothing in one that keeps nothing. @param {string} name */
function keptHere(name) {
  try { return localStorage.getItem(name); } catch { return null; }
}

/** @param {string} name @param {string} value */
function keepHere(name, value) {
  try { localStorage.setItem(name, value); } catch { /* A browser that keeps nothing. */ }
}

/** Whether the job stands below the build. */
const isBelow = () => document.documentElement.dataset.dock === "below";

/** The button that moves the job from beside the build to below it, and back. @param {HTMLElement} edge */
function dockButton(edge) {
  const button = Object.assign(document.createElement("button"), { type: "button", className: "dock" });
  /** @param {string} where */
  const set = (where) => {
    document.documentElement.dataset.dock = where;
    button.textContent = isBelow() ? "Beside the build" : "Below the build";
    edge.setAttribute("aria-orientation", isBelow() ? "horizontal" : "vertical");
    edge.setAttribute("aria-label", isBelow() ? "Height of the job below the build" : "Width of the job beside the build");
  };
  set(keptHere(DOCK_KEPT) === "below" ? "below" : "beside");
  button.addEventListener("click", () => { set(isBelow() ? "beside" : "below"); keepHere(DOCK_KEPT, isBelow() ? "below" : "beside"); });
  return button;
}

/** What the job beside or below the build is made larger and smaller by: drawn, or with the arrows. */
function panelEdge() {
  const edge = document.createElement("div");
  edge.className = "edge";
  edge.tabIndex = 0;
  for (const [name, value] of [["role", "separator"], ["aria-valuemin", PANEL_MIN], ["aria-valuemax", PANEL_MAX]]) edge.setAttribute(String(name), String(value));
  let width = PANEL_USUAL;
  /** @param {number} wanted */
  const set = (wanted) => {
    width = Math.round(Math.min(PANEL_MAX, Math.max(PANEL_MIN, wanted)));
    edge.setAttribute("aria-valuenow", String(width));
    document.documentElement.style.setProperty("--panel", `${width}vw`);
    document.documentElement.style.setProperty("--panel-high", `${width}vh`);
  };
  const keep = () => keepHere(PANEL_KEPT, String(width));
  const kept = Number(keptHere(PANEL_KEPT));
  if (kept > 0) set(kept); else edge.setAttribute("aria-valuenow", String(width));
  edge.addEventListener("pointerdown", (event) => { edge.setPointerCapture(event.pointerId); event.preventDefault(); });
  edge.addEventListener("pointermove", (event) => { if (edge.hasPointerCapture(event.pointerId)) set((1 - (isBelow() ? event.clientY / innerHeight : event.clientX / innerWidth)) * 100); });
  edge.addEventListener("pointerup", keep);
  edge.addEventListener("keydown", (event) => {
    const [larger, smaller] = isBelow() ? ["ArrowUp", "ArrowDown"] : ["ArrowLeft", "ArrowRight"];
    const by = event.key === larger ? 4 : event.key === smaller ? -4 : 0;
    if (by === 0) return;
    set(width + by);
    keep();
    event.preventDefault();
    event.stopPropagation();
  });
  return edge;
}

/** Whether a click follows a link here, in this window. @param {MouseEvent} event */
function isPlain(event) {
  return !event.defaultPrevented && event.button === 0 && !event.ctrlKey && !event.metaKey && !event.shiftKey && !event.altKey;
}

/** A job's page beside the build: whole, in a frame, so that all of its keys and links are there. */
function panel() {
  const aside = document.createElement("aside");
  aside.className = "step-panel";
  const head = document.createElement("header");
  const whole = document.createElement("a");
  whole.textContent = "As a page of its own";
  const close = document.createElement("button");
  close.type = "button";
  close.append("Close ", Object.assign(document.createElement("kbd"), { textContent: "Esc" }));
  const edge = panelEdge();
  const ways = document.createElement("div");
  ways.append(dockButton(edge), " ", close);
  head.append(whole, ways);
  const frame = document.createElement("iframe");
  aside.append(edge, head, frame);
  /** The link by which it was opened. */
  let opener = "";
  let isOpen = false;
  const inside = () => frame.contentWindow;

  /** Shows what the address names, or nothing. */
  const follow = () => {
    const to = jobPage();
    if (!to) {
      if (!isOpen) return;
      isOpen = false;
      aside.remove();
      document.body.classList.remove("has-panel");
      /** @type {HTMLElement | undefined} */ ([...document.querySelectorAll("main a")].find((link) => link.getAttribute("href") === opener))?.focus();
      return;
    }
    const name = new URLSearchParams(location.search).get("job") ?? "";
    aside.setAttribute("aria-label", `The job ${name}`);
    frame.title = `The job ${name}`;
    whole.href = to;
    if (isOpen) {
      const at = inside()?.location;
      if (at && at.pathname + at.search + at.hash !== to) at.replace(to);
      return;
    }
    isOpen = true;
    frame.src = to;
    document.body.append(aside);
    document.body.classList.add("has-panel");
  };
  const leave = () => {
    if (history.state?.panel) { history.back(); return; }
    const address = new URL(location.href);
    for (const name of PANEL) address.searchParams.delete(name);
    address.hash = "";
    history.replaceState(null, "", address.pathname + address.search);
    follow();
  };
  /** Writes where the frame is into the address. */
  const tell = () => {
    const at = inside()?.location;
    if (!isOpen || !at || !jobOf(at.pathname)) return;
    const address = withJob(at);
    if (address.href !== location.href) history.replaceState(history.state, "", address);
    whole.href = at.href;
  };
  frame.addEventListener("load", () => {
    const page = frame.contentDocument;
    if (!page) return;
    tell();
    page.addEventListener("keydown", (event) => {
      const target = /** @type {Element} */ (event.target);
      if (event.key === "Escape" && !event.defaultPrevented && !target.closest("input, select, textarea") && !page.querySelector("dialog[open], #shell")) leave();
    });
    page.addEventListener("keyup", tell);
    page.addEventListener("click", (event) => {
      const link = /** @type {HTMLAnchorElement | null} */ (/** @type {Element} */ (event.target).closest("a[href]"));
      if (link && isPlain(event) && !link.hasAttribute("download")) {
        event.preventDefault();
        if (link.pathname === inside()?.location.pathname) inside()?.location.replace(link.href);
        else location.assign(link.href);
      }
      setTimeout(tell);
    });
    /** @type {HTMLElement | null} */ (page.querySelector("#log") ?? page.querySelector("main a"))?.focus();
  });
  document.addEventListener("click", (event) => {
    const link = /** @type {Element} */ (event.target).closest("main a[href]");
    const href = link?.getAttribute("href") ?? "";
    const to = new URL(href, location.href);
    if (!href || link?.hasAttribute("data-in-page") || !isPlain(event) || !jobOf(to.pathname)) return;
    event.preventDefault();
    if (!isOpen) opener = href;
    if (isOpen) history.replaceState(history.state, "", withJob(to)); else history.pushState({ panel: true }, "", withJob(to));
    follow();
  });
  document.addEventListener("keydown", (event) => { if (isOpen && event.key === "Escape" && !/** @type {Element} */ (event.target).closest("input, select, textarea, dialog")) leave(); });
  close.addEventListener("click", leave);
  addEventListener("popstate", follow);
  follow();
}

/** How often annotations are looked for while a build runs, in milliseconds. */
const ANNOTATIONS_MS = 15_000;

/** What steps said of lines of files: searched for in logs, so it comes after the page. */
async function annotations() {
  const section = document.querySelector("#annotations");
  const source = section?.getAttribute("data-source");
  if (!section || !source) return;
  const isRunning = document.querySelector("[data-since]") !== null;
  try {
    const answer = await answerTo(source, { headers: { accept: "text/html" } });
    const fresh = answer.ok && new DOMParser().parseFromString(await answer.text(), "text/html").querySelector("#annotations");
    if (fresh && fresh.innerHTML !== section.innerHTML) section.replaceChildren(...document.adoptNode(fresh).childNodes);
  } catch {
    // The page of annotations says it better.
  }
  if (isRunning) setTimeout(annotations, ANNOTATIONS_MS);
}

/** As the server writes durations. @param {number} ms */
function duration(ms) {
  const two = (/** @type {number} */ part) => String(part).padStart(2, "0");
  const s = Math.floor(ms / 1000);
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} m ${two(s % 60)} s`;
  if (s < 172800) return `${Math.floor(s / 3600)} h ${two(Math.floor(s % 3600 / 60))} m`;
  return `${Math.floor(s / 86400)} d ${two(Math.floor(s % 86400 / 3600))} h`;
}

function tick() {
  // Of what is not heard of nobody knows how long it takes.
  if (document.body.hasAttribute("data-stale")) return;
  for (const it of document.querySelectorAll("[data-since]")) {
    const since = Date.parse(it.getAttribute("data-since") ?? "");
    if (!Number.isNaN(since)) it.textContent = duration(Math.max(0, Date.now() - since));
  }
}

export function open() {
  inPageLinks();
  search();
  graph();
  zoom();
  followRun();
  panel();
  annotations();
  setInterval(tick, 1000);
}
