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
  // A step that was followed has failed: its module looks for errors then.
  const [log, then] = [document, fresh].map((page) => page.querySelector("#log[data-api]"));
  if (log && then?.getAttribute("data-api") === log.getAttribute("data-api") && then?.hasAttribute("data-failed")) log.setAttribute("data-failed", "");
  if (fresh.title) document.title = fresh.title;
}

/** Whether a page is of another try at the job than the one that is shown. @param {Document} fresh */
function isOfOtherTry(fresh) {
  const [shown, then] = [document, fresh].map((page) => page.querySelector("#job-header")?.getAttribute("data-attempt"));
  return !!shown && !!then && shown !== then;
}

/** Whether the reader looks at something of the try that is shown: a place in its log, a shell, a form. */
function keepsTry() {
  if (document.querySelector("#shell") || document.activeElement?.closest("form")?.querySelector(FIELDS)) return true;
  // The log's module knows what of it is looked at.
  return document.querySelector("#log")?.dispatchEvent(new CustomEvent("leave", { cancelable: true })) === false;
}

/** Keeps the try that is shown, and says that another has begun. @param {Document} fresh its page */
function keepTry(fresh) {
  const shown = document.querySelector("#job-header")?.getAttribute("data-attempt") ?? "";
  const link = Object.assign(document.createElement("a"), { textContent: "go to it" });
  const to = new URL(location.href);
  for (const name of ["attempt", "step", "from", "mark", "q"]) to.searchParams.delete(name);
  link.href = to.pathname + to.search;
  const told = Object.assign(document.createElement("p"), { id: "other-try", className: "verdict running" });
  told.setAttribute("role", "status");
  told.append(`Try ${fresh.querySelector("#job-header")?.getAttribute("data-try") ?? ""} has begun: `, link);
  document.querySelector("#other-try")?.remove();
  document.querySelector("#tabs")?.before(told);
  const address = new URL(location.href);
  address.searchParams.set("attempt", shown);
  history.replaceState(history.state, "", address);
}

/** Reads the page again, as its address is now. */
export let readAgain = async () => {};

/** The longest time between two readings while something runs: bars grow also when nothing happens. */
const SLOW_MS = 10_000;
/** The same while nobody looks at the page: its title still says how things stand. */
const HIDDEN_MS = 30_000;

/** After how long without an answer, and after how long of failing to get one, a page says that it may be old. */
const STALE_MS = 45_000;
const FAILING_MS = 5_000;
/** When the server last answered, since when it cannot be reached (0 if it can), and with which status it refuses the page (0 if it does not). */
let answeredAt = Date.now();
let failingSince = 0;
let refusal = 0;

/** Whether another page of this server shows this one in a frame. */
const isFramed = window.parent !== window;

/** What a page says of its own age; nothing if it is as things are. */
function ageTold() {
  if (refusal === 404) return "This page is no longer there: what stands here is old.";
  if (refusal === 403) return "You may no longer see this page: what stands here is old.";
  const isOld = Date.now() - answeredAt >= STALE_MS || failingSince > 0 && Date.now() - failingSince >= FAILING_MS;
  return isOld ? "Nothing has been heard of the server for a while: what stands here may be old." : "";
}

/** Says whether what the page shows may be old. @param {string} age */
function tellAge(age) {
  document.body.toggleAttribute("data-stale", age !== "");
  let told = document.getElementById("stale");
  if (!told) {
    if (!age) return;
    told = Object.assign(document.createElement("p"), { id: "stale", className: "session-ended" });
    told.setAttribute("role", "alert");
    document.body.append(told);
  }
  if (age && told.textContent !== age) told.textContent = age;
  told.hidden = age === "";
}

/** Told to frames, on the window, when the page around them hears something that is theirs too. */
const HEARD = "ropewalk-heard";

/** Follows the page's stream, if it has one. @param {(root: ParentNode) => void} seen told of what is new */
export function keepLive(seen) {
  const stream = document.body.dataset.stream;
  /** @type {EventSource | null} */
  let events = null;
  let isDue = false;
  let isReading = false;
  let isOver = false;
  let askedAt = 0;
  const failed = () => {
    failingSince ||= Date.now();
    setTimeout(age, FAILING_MS);
  };
  /** A browser opens few connections to one server for all its tabs: whoever is not looked at holds none, nor does a frame of a page that hears the same. */
  const isHeardAbove = () => isFramed && stream !== undefined && window.parent.document.body?.dataset.hears === stream;
  const age = () => tellAge(isOver || document.hidden || isHeardAbove() ? "" : ageTold());
  /** Nothing more happens to what the page shows. */
  const leave = () => {
    events?.close();
    events = null;
    if (document.body.dataset.hears === undefined) return;
    delete document.body.dataset.hears;
    dispatchEvent(new Event(HEARD));
  };
  const read = async () => {
    if (isReading) { isDue = true; return; }
    isReading = true;
    isDue = false;
    askedAt = Date.now();
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
        if (isOfOtherTry(fresh)) {
          if (!keepsTry()) { location.reload(); return; }
          keepTry(fresh);
          isDue = true;
        } else {
          takeOver(fresh, seen);
          isOver = !fresh.body.dataset.stream;
          if (isOver) leave();
        }
      } else if (answer.status >= 500) setTimeout(read, SLOW_MS / 5); // A server too busy to answer: what the reader asked for still comes.
      if (answer.status < 500) {
        [answeredAt, failingSince] = [Date.now(), 0];
        refusal = answer.status === 403 || answer.status === 404 ? answer.status : 0;
      } else failed();
    } catch {
      // The stream comes again by itself, and reads then.
      failed();
    }
    age();
    const pause = isDue && address !== location.href ? 0 : PAUSE_MS;
    setTimeout(() => { isReading = false; if (isDue) read(); }, pause);
  };
  readAgain = read;
  if (!stream) return;
  const heard = () => {
    read();
    dispatchEvent(new Event(HEARD));
  };
  const hear = () => {
    events?.close();
    events = null;
    if (isOver || document.hidden || isHeardAbove()) return;
    events = new EventSource(stream);
    events.onopen = () => { if (failingSince > 0) heard(); };
    events.onmessage = heard;
    events.onerror = () => {
      failed();
      if (events?.readyState === EventSource.CLOSED) read();
    };
  };
  if (isFramed) {
    const gone = new AbortController();
    window.parent.addEventListener(HEARD, () => {
      if (isOver) return;
      read();
      if (!events) hear();
    }, { signal: gone.signal });
    addEventListener("pagehide", () => gone.abort());
  } else document.body.dataset.hears = stream;
  hear();
  document.addEventListener("visibilitychange", () => {
    hear();
    if (document.hidden || isOver) return;
    answeredAt = Date.now();
    read();
  });
  setInterval(() => {
    if (isOver) return;
    if (events?.readyState === EventSource.CLOSED) hear();
    if (!document.hidden || Date.now() - askedAt >= HIDDEN_MS) read();
    age();
  }, SLOW_MS);
}
