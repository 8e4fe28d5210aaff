// @ts-check
// Keeps the live parts of a page as they are on the server: when its stream says that something happened, the page is read
// again and every element marked `data-live` that has changed takes its new content. What the reader opened stays open, and what they have filled in
// stays filled in.

import { answerTo } from "./session.js";

/** The shortest time between two readings. */
const PAUSE_MS = 400;

/** How an element is found again in new content: by its id, else by where it leads or what it sends, and which of those it is.
 * @param {Element | null} element @param {Element} within */
function placeOf(element, within) {
  if (!element || !within.contains(element)) return null;
  const of = (/** @type {string} */ name, /** @type {Element | null} */ it = element) => it?.hasAttribute(name) ? `[${name}="${CSS.escape(it.getAttribute(name) ?? "")}"]` : "";
  const form = of("action", element.closest("form"));
  // What a field says by default may be another the next time; of buttons and boxes it tells one from the other.
  const value = element.matches("button, [type=checkbox], [type=radio]") ? of("value") : "";
  const selector = of("id") || of("href") || `${form && `form${form} `}${element.localName}${of("name")}${value}`;
  return { selector, index: [...within.querySelectorAll(selector)].indexOf(element) };
}

/** What a reader fills in. */
const FIELDS = "input:not([type=hidden]), select, textarea";

/** Whether the reader has changed it. @param {Element} field */
function isChanged(field) {
  if (field instanceof HTMLSelectElement) return field.selectedIndex !== Math.max(0, [...field.options].findLastIndex((option) => option.defaultSelected));
  if (field instanceof HTMLInputElement && field.matches("[type=checkbox], [type=radio]")) return field.checked !== field.defaultChecked;
  return (field instanceof HTMLInputElement || field instanceof HTMLTextAreaElement) && field.value !== field.defaultValue;
}

/** What the reader has filled in, in forms or for them, to be filled in again. @param {Element} within */
function filledIn(within) {
  return [...within.querySelectorAll(FIELDS)].filter(isChanged).map((it) => {
    const field = /** @type {HTMLInputElement} */ (it);
    return { place: placeOf(field, within), value: field.value, isChecked: field.checked };
  });
}

/** Fills in what is still asked for. @param {Element} within @param {ReturnType<typeof filledIn>} filled */
function fillIn(within, filled) {
  for (const { place, value, isChecked } of filled) {
    const field = place && within.querySelectorAll(place.selector)[place.index];
    if (field instanceof HTMLSelectElement) {
      if ([...field.options].some((option) => option.value === value)) field.value = value;
    } else if (field instanceof HTMLInputElement && field.matches("[type=checkbox], [type=radio]")) field.checked = isChecked;
    else if (field instanceof HTMLInputElement || field instanceof HTMLTextAreaElement) field.value = value;
  }
}

/** Takes over what has changed. @param {Document} fresh @param {(root: ParentNode) => void} seen */
function takeOver(fresh, seen) {
  for (const now of document.querySelectorAll("[data-live][id]")) {
    const then = fresh.getElementById(now.id);
    if (!then || then.innerHTML === now.getAttribute("data-was")) continue;
    const was = then.innerHTML;
    const open = new Set([...now.querySelectorAll("details[open][id]")].map((it) => it.id));
    const focused = placeOf(document.activeElement, now);
    // A form that somebody fills in is not taken from under their hands, nor is the button that they press.
    if (focused && document.activeElement?.closest("form")?.querySelector(FIELDS)) continue;
    const filled = filledIn(now);
    now.replaceChildren(...document.adoptNode(then).childNodes);
    now.setAttribute("data-was", was);
    for (const it of now.querySelectorAll("details[id]")) if (open.has(it.id)) it.setAttribute("open", "");
    fillIn(now, filled);
    if (focused) /** @type {HTMLElement | SVGElement | undefined} */ (now.querySelectorAll(focused.selector)[focused.index])?.focus({ preventScroll: true });
    seen(now);
  }
  if (fresh.title) document.title = fresh.title;
}

/** Reads the page again, as its address is now. */
export let readAgain = async () => {};

/** The longest time between two readings while something runs: bars grow also when nothing happens. */
const SLOW_MS = 10_000;

/** After how long without an answer a page that hangs on a wall says that it may be old. */
const STALE_MS = 45_000;
let answeredAt = Date.now();

/** Says whether what a wall shows may be old. */
function tellStale() {
  document.getElementById("stale")?.toggleAttribute("hidden", Date.now() - answeredAt < STALE_MS);
}

/** Follows the page's stream, if it has one. @param {(root: ParentNode) => void} seen told of what is new */
export function keepLive(seen) {
  const stream = document.body.dataset.stream;
  /** @type {EventSource | null} */
  let events = null;
  let isDue = false;
  let isReading = false;
  let isOver = false;
  const read = async () => {
    if (isReading) { isDue = true; return; }
    isReading = true;
    isDue = false;
    const address = location.href;
    try {
      const answer = await answerTo(address, { headers: { accept: "text/html" } });
      // Meanwhile the reader may have gone on to another address of this page.
      if (address !== location.href) isDue = true;
      else if (answer.ok) {
        const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
        // The first lines of a log have come: its module begins with the page.
        if (fresh.querySelector("#log[data-source]") && !document.querySelector("#log[data-source]") && document.querySelector("main .viewer, #job-body")) {
          location.reload();
          return;
        }
        takeOver(fresh, seen);
        answeredAt = Date.now();
        tellStale();
        isOver = !fresh.body.dataset.stream;
        if (isOver) events?.close();
      } else if (answer.status >= 500) setTimeout(read, SLOW_MS / 5); // A server too busy to answer: what the reader asked for still comes.
    } catch {
      // The stream comes again by itself, and reads then.
    }
    const pause = isDue && address !== location.href ? 0 : PAUSE_MS;
    setTimeout(() => { isReading = false; if (isDue) read(); }, pause);
  };
  readAgain = read;
  if (!stream) return;
  events = new EventSource(stream);
  events.onmessage = read;
  events.onerror = () => { if (events?.readyState === EventSource.CLOSED) read(); };
  setInterval(() => { if (!isOver && !document.hidden) read(); tellStale(); }, SLOW_MS);
}
