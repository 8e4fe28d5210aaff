// @ts-check
// What the page of a build does in a browser: links that change only what is shown, the search as one types, the edges of the job
// that is pointed at, the waterfall's zoom, the time that a running build takes, and the job that is looked at beside the build.

import { readAgain } from "./live.js";

/** How long after the last letter the search is asked, in milliseconds. */
const TYPING_MS = 150;
/** How much wider the waterfall can be than its box. */
const ZOOM_MAX = 64;

/** What an address says of the job that is shown beside the build. */
const PANEL = ["job", "attempt", "step"];

/** Shows the page of this address in place of the present one. @param {string} address @param {"push" | "replace"} how */
function show(address, how) {
  const url = new URL(address, location.href);
  const present = new URLSearchParams(location.search);
  for (const name of PANEL) if (present.has(name)) url.searchParams.set(name, present.get(name) ?? "");
  const to = url.pathname + url.search + location.hash;
  if (how === "push") history.pushState(null, "", to); else history.replaceState(null, "", to);
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

/** How wide the job beside the build may be, in hundredths of the window. */
const PANEL_MIN = 25;
const PANEL_MAX = 85;
const PANEL_USUAL = 56;
/** Under which name its width is kept in this browser. */
const PANEL_KEPT = "panel-width";

/** What the job beside the build is made wider and narrower by: drawn, or with the arrows. */
function panelEdge() {
  const edge = document.createElement("div");
  edge.className = "edge";
  edge.tabIndex = 0;
  for (const [name, value] of [["role", "separator"], ["aria-orientation", "vertical"], ["aria-label", "Width of the job beside the build"], ["aria-valuemin", PANEL_MIN], ["aria-valuemax", PANEL_MAX]]) edge.setAttribute(String(name), String(value));
  let width = PANEL_USUAL;
  /** @param {number} wanted */
  const set = (wanted) => {
    width = Math.round(Math.min(PANEL_MAX, Math.max(PANEL_MIN, wanted)));
    edge.setAttribute("aria-valuenow", String(width));
    document.documentElement.style.setProperty("--panel", `${width}vw`);
  };
  const keep = () => { try { localStorage.setItem(PANEL_KEPT, String(width)); } catch { /* A browser that keeps nothing. */ } };
  try {
    const kept = Number(localStorage.getItem(PANEL_KEPT));
    if (kept > 0) set(kept); else edge.setAttribute("aria-valuenow", String(width));
  } catch { edge.setAttribute("aria-valuenow", String(width)); }
  edge.addEventListener("pointerdown", (event) => { edge.setPointerCapture(event.pointerId); event.preventDefault(); });
  edge.addEventListener("pointermove", (event) => { if (edge.hasPointerCapture(event.pointerId)) set((1 - event.clientX / innerWidth) * 100); });
  edge.addEventListener("pointerup", keep);
  edge.addEventListener("keydown", (event) => {
    const by = event.key === "ArrowLeft" ? 4 : event.key === "ArrowRight" ? -4 : 0;
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
  head.append(whole, close);
  const frame = document.createElement("iframe");
  aside.append(panelEdge(), head, frame);
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
    const answer = await fetch(source, { headers: { accept: "text/html" } });
    const fresh = answer.ok && new DOMParser().parseFromString(await answer.text(), "text/html").querySelector("#annotations");
    if (fresh && fresh.innerHTML !== section.innerHTML) section.replaceChildren(...document.adoptNode(fresh).childNodes);
  } catch {
    // The page of annotations says it better.
  }
  if (isRunning) setTimeout(annotations, ANNOTATIONS_MS);
}

/** As the server writes spans. @param {number} ms */
function span(ms) {
  const s = Math.floor(ms / 1000);
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${s % 60} s`;
  return `${Math.floor(s / 3600)} h ${Math.floor(s % 3600 / 60)} min`;
}

function tick() {
  for (const it of document.querySelectorAll("[data-since]")) {
    const since = Date.parse(it.getAttribute("data-since") ?? "");
    if (!Number.isNaN(since)) it.textContent = span(Math.max(0, Date.now() - since));
  }
}

export function open() {
  inPageLinks();
  search();
  graph();
  zoom();
  panel();
  annotations();
  setInterval(tick, 1000);
}
