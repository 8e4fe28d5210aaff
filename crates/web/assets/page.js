// @ts-check
// What every page does in a browser: clocks in the reader's zone, keys, live parts, and the log if there is one.

import { keepLive } from "./live.js";

/** How many milliseconds a unit has, the largest first. @type {[Intl.RelativeTimeFormatUnit, number][]} */
const UNITS = [["day", 86_400_000], ["hour", 3_600_000], ["minute", 60_000], ["second", 1000]];
const relative = new Intl.RelativeTimeFormat("en", { numeric: "auto", style: "short" });

/** Says how long ago, and the clock's time in the reader's zone. @param {ParentNode} root */
export function tellTimes(root) {
  for (const time of root.querySelectorAll("time[title]")) {
    const at = new Date(time.getAttribute("datetime") ?? "");
    if (Number.isNaN(at.getTime())) continue;
    const ms = at.getTime() - Date.now();
    const [unit, size] = UNITS.find(([, size]) => Math.abs(ms) >= size) ?? ["second", 1000];
    const text = relative.format(Math.trunc(ms / size), unit);
    if (time.textContent !== text) time.textContent = text;
    time.setAttribute("title", at.toLocaleString(undefined, { dateStyle: "full", timeStyle: "long" }));
  }
}

/** The keys of all pages; those of the log are its own. @type {[string, string][]} */
const KEYS = [
  ["?", "show or hide these keys"], ["/", "search or filter"], ["f", "next failure"], ["g p", "projects"], ["g b", "builds"], ["g q", "queue"], ["g s", "settings"],
  ["+ / − / 0", "in a waterfall: wider, narrower, whole"], ["j / k", "in a log: a line down, a line up"], ["n / p", "in a log: next and previous hit or error"],
  ["t", "in a log: times: none, clock, since the step began, since the line before"],
  ["w", "in a log: wrap long lines"], ["z", "in a log: fold or unfold all groups"], ["d", "in a log: dim what the last green run printed too"],
  ["G", "in a log: to the end, and follow"], ["l", "in a log: name the line in the address"], ["c", "in a log: copy without numbers"],
];

function showKeys() {
  let dialog = /** @type {HTMLDialogElement | null} */ (document.querySelector("#keys"));
  if (!dialog) {
    dialog = document.createElement("dialog");
    dialog.id = "keys";
    const list = document.createElement("dl");
    for (const [key, text] of KEYS) {
      const term = document.createElement("dt");
      const sign = document.createElement("kbd");
      sign.textContent = key;
      term.append(sign);
      const said = document.createElement("dd");
      said.textContent = text;
      list.append(term, said);
    }
    dialog.append(list);
    document.body.append(dialog);
  }
  if (dialog.open) dialog.close(); else dialog.showModal();
}

let failure = -1;
function nextFailure() {
  const failures = [...document.querySelectorAll(".failure, .diagnostic.failed, tr.failed, .time li.failed, .test, .steps a.failed")];
  if (failures.length === 0) return;
  failure = (failure + 1) % failures.length;
  const at = failures[failure];
  at.scrollIntoView({ block: "center" });
  /** @type {HTMLElement | null} */ (at.querySelector("a, summary") ?? at)?.focus();
}

let before = "";
document.addEventListener("keydown", (event) => {
  const target = /** @type {HTMLElement} */ (event.target);
  if (event.ctrlKey || event.metaKey || event.altKey || target.closest("input, select, textarea")) {
    if (event.key === "Escape") target.blur();
    return;
  }
  const pair = `${before} ${event.key}`;
  before = event.key === "g" ? "g" : "";
  const places = { "g p": "/", "g b": "/builds", "g q": "/queue", "g s": "/settings" };
  if (pair in places) location.href = places[/** @type {keyof typeof places} */ (pair)];
  else if (event.key === "?") showKeys();
  else if (event.key === "f") nextFailure();
  else if (event.key === "/") /** @type {HTMLElement | null} */ (document.querySelector("#search"))?.focus();
  else return;
  event.preventDefault();
});

tellTimes(document);
setInterval(() => tellTimes(document), 10_000);
keepLive(tellTimes);
if (document.querySelector(".build-page")) import("./build.js").then((build) => build.open());
if (document.querySelector("#log[data-source]")) import("./log.js").then((log) => log.open());
