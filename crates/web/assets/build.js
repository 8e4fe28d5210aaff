// @ts-check
// What the page of a build does in a browser: links that change only what is shown, the search as one types, the edges of the job
// that is pointed at, the waterfall's zoom, the time that a running build takes.

import { readAgain } from "./live.js";

/** How long after the last letter the search is asked, in milliseconds. */
const TYPING_MS = 150;
/** How much wider the waterfall can be than its box. */
const ZOOM_MAX = 64;

/** Shows the page of this address in place of the present one. @param {string} to @param {"push" | "replace"} how */
function show(to, how) {
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
    to.searchParams.delete("from");
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
    if (!canvas.querySelector(".time") || event.ctrlKey || event.metaKey || event.altKey || target.closest("input, select, textarea")) return;
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
  setInterval(tick, 1000);
}
