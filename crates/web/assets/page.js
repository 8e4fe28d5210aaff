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
  ["+ / − / 0", "in a waterfall or flame: wider, narrower, whole"], ["j / k", "in a log: a line down, a line up"], ["n / p", "in a log: next and previous hit or error"],
  ["t", "in a log: times: none, clock, since the step began, since the line before"],
  ["w", "in a log: wrap long lines"], ["z", "in a log: fold or unfold all groups"], ["arrows", "in the tree of steps and groups: up, down, into and out of a group"], ["d", "in a log: dim what the last green run printed too"],
  ["G", "in a log: to the end, and follow"], ["l", "in a log: name the line in the address"], ["c", "in a log: copy without numbers"],
  ["j", "on a build that goes on: keep what runs in sight"], ["Esc", "on a build: close the job beside it"], ["Ctrl+Shift+.", "in a shell: leave the terminal, and come back"],
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
  const failures = [...document.querySelectorAll(".failure, .diagnostic.failed, tr.failed, .time li.failed, .flame a.failed, .test, .steps a.failed")];
  if (failures.length === 0) return;
  failure = (failure + 1) % failures.length;
  const at = failures[failure];
  at.scrollIntoView({ block: "center" });
  /** @type {HTMLElement | null} */ (at.querySelector("a, summary") ?? at)?.focus();
}

let before = "";
document.addEventListener("keydown", (event) => {
  const target = /** @type {HTMLElement} */ (event.target);
  if (target.closest(".xterm")) return;
  if (event.ctrlKey || event.metaKey || event.altKey || target.closest("input, select, textarea")) {
    if (event.key === "Escape") target.blur();
    return;
  }
  const pair = `${before} ${event.key}`;
  before = event.key === "g" ? "g" : "";
  const places = { "g p": "/", "g b": "/builds", "g q": "/queue", "g s": "/settings" };
  // Beside a build the whole window goes there.
  if (pair in places) (window.top ?? window).location.href = places[/** @type {keyof typeof places} */ (pair)];
  else if (event.key === "?") showKeys();
  else if (event.key === "f") nextFailure();
  else if (event.key === "/") /** @type {HTMLElement | null} */ (document.querySelector("#search"))?.focus();
  else return;
  event.preventDefault();
});

/** Opens a shell as the page's form for it says, at this moment if one is given. @param {HTMLElement} opener @param {string | undefined} at */
async function openShell(opener, at) {
  const form = /** @type {HTMLFormElement | null} */ (document.querySelector("form[data-shells]"));
  const select = /** @type {HTMLSelectElement | null} */ (form?.querySelector("select"));
  if (!form || !select) return;
  if (at !== undefined) select.value = at;
  form.closest("details")?.removeAttribute("open");
  const { shells: path = "", job = "" } = form.dataset;
  const terminal = await import("./terminal.js");
  await terminal.open({ path, job, at: select.value, text: select.selectedOptions[0]?.textContent ?? "" }, opener);
}
document.addEventListener("submit", (event) => {
  const form = /** @type {HTMLElement} */ (event.target);
  if (!form.matches("form[data-shells]")) return;
  event.preventDefault();
  openShell(form.closest("details")?.querySelector("summary") ?? form, undefined);
});
document.addEventListener("click", (event) => {
  const button = /** @type {HTMLElement | null} */ (/** @type {Element} */ (event.target).closest("[data-shell-at]"));
  if (button) openShell(button, button.dataset.shellAt);
});

/** Shows a picture of a log as large as there is room. @param {Element} button */
function showPicture(button) {
  const small = button.querySelector("img");
  if (!small) return;
  const dialog = document.createElement("dialog");
  dialog.className = "shown-picture";
  const close = Object.assign(document.createElement("button"), { type: "button", textContent: "Close" });
  dialog.append(Object.assign(new Image(), { src: small.src, alt: button.textContent?.trim() ?? "" }), close);
  dialog.addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
}
document.addEventListener("click", (event) => {
  const button = /** @type {Element} */ (event.target).closest("button.picture");
  if (button) showPicture(button);
});

// What only scripts can do is shown to whoever has them; nothing stands around a page in a frame, also where the browser does not tell the server of it.
if (window.parent !== window) document.body.classList.add("panel");
document.documentElement.setAttribute("data-scripts", "");
tellTimes(document);
setInterval(() => tellTimes(document), 10_000);
keepLive(tellTimes);
// Until its module is there a page does what it does without scripts: links and forms lead to whole pages.
const modules = [];
if (document.querySelector(".build-page")) modules.push(import("./build.js").then((build) => build.open()));
if (document.querySelector("#log[data-source]")) modules.push(import("./log.js").then((log) => log.open()));
Promise.all(modules).then(() => document.documentElement.setAttribute("data-ready", ""));
