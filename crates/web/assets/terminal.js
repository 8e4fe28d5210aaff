// @ts-check
// A terminal in the page: a shell in what a step left, over the calls that `ropewalk shell` makes too. It is loaded when the
// first one is opened. One shell is open at a time; closed, lost or left with the page, it ends with everything it started.

/** @typedef {import("@xterm/xterm").Terminal} Terminal */
/** @typedef {import("@xterm/xterm").ITerminalAddon & { fit: () => void }} Fit */
/** @typedef {{ path: string, job: string, at: string, text: string }} Wanted a shell: where it is asked for, of which job, at which moment, and that in words */
/** @typedef {{ kind: number, bytes: Uint8Array }} Frame */

/** The kinds of frames, and their bounds: `api/shell.rs` says the same. */
const KIND = { alive: 0, bytes: 1, errors: 2, opened: 3, refused: 4, ended: 5, size: 6 };
const FRAME_BYTES_MAX = 64 * 1024;
const POST_BYTES_MAX = 256 * 1024;
const SILENT_MS = 30_000;
/** How much waits to be sent; what is pasted beyond that is dropped, and said to be. */
const TYPED_BYTES_MAX = 1 << 20;
/** How much of what is typed goes into one frame, in bytes. */
const PIECE_BYTES = 16 * 1024;
/** After so long a post that did not come through is sent again; what came twice counts once. */
const AGAIN_MS = 1000;
/** Lines that can be scrolled back to. */
const SCROLLBACK = 5000;

/** @param {string} tag @param {string} [className] @param {string} [text] */
function made(tag, className = "", text = "") {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text) element.textContent = text;
  return element;
}

/** A style sheet that the library makes: adopted, since the policy of the pages lets no `<style>` in. */
class Sheet extends HTMLElement {
  sheet = new CSSStyleSheet();
  connectedCallback() { document.adoptedStyleSheets = [...document.adoptedStyleSheets, this.sheet]; }
  disconnectedCallback() { document.adoptedStyleSheets = document.adoptedStyleSheets.filter((it) => it !== this.sheet); }
  get textContent() { return ""; }
  set textContent(text) { this.sheet.replaceSync(text ?? ""); }
}

/** @param {number} kind @param {Uint8Array} bytes */
function encoded(kind, bytes) {
  const frame = new Uint8Array(5 + bytes.length);
  frame[0] = kind;
  new DataView(frame.buffer).setUint32(1, bytes.length, true);
  frame.set(bytes, 5);
  return frame;
}

/** @param {Uint8Array[]} pieces */
function joined(pieces) {
  const all = new Uint8Array(pieces.reduce((sum, piece) => sum + piece.length, 0));
  let at = 0;
  for (const piece of pieces) { all.set(piece, at); at += piece.length; }
  return all;
}

/** Reads frames from pieces, however they are cut. @returns {(piece: Uint8Array) => Frame[]} */
function frameReader() {
  let pending = new Uint8Array(0);
  return (piece) => {
    pending = joined([pending, piece]);
    const frames = [];
    while (pending.length >= 5) {
      const length = new DataView(pending.buffer, pending.byteOffset).getUint32(1, true);
      if (length > FRAME_BYTES_MAX) throw new Error("the server said something that this page does not understand: load it again");
      if (pending.length < 5 + length) break;
      frames.push({ kind: pending[0], bytes: pending.subarray(5, 5 + length) });
      pending = pending.subarray(5 + length);
    }
    return frames;
  };
}

/** The colours of the pages, as the logs have them. @param {HTMLElement} within */
function theme(within) {
  const probe = made("span");
  within.append(probe);
  const colour = (/** @type {string} */ name) => { probe.className = name; return getComputedStyle(probe).color; };
  const names = ["black", "red", "green", "yellow", "blue", "magenta", "cyan", "white"];
  const bright = names.map((name) => `bright${name[0].toUpperCase()}${name.slice(1)}`);
  const colours = Object.fromEntries([...names, ...bright].map((name, index) => [name, colour(`f${index}`)]));
  probe.remove();
  const style = getComputedStyle(within);
  const selection = getComputedStyle(document.documentElement).getPropertyValue("--mark").trim();
  return { ...colours, background: style.backgroundColor, foreground: style.color, cursor: style.color, cursorAccent: style.backgroundColor, selectionBackground: selection };
}

/** What went wrong with a call, and what to do. @param {Response} answer */
async function refusalOf(answer) {
  /** @type {{ title?: string, detail?: string, help?: string }} */
  const problem = await answer.json().catch(() => ({}));
  const what = problem.detail || problem.title || `the server answered ${answer.status}`;
  const helps = { 401: "load the page again and sign in", 409: "choose another moment of the job, or run it again" };
  const help = problem.help || helps[/** @type {keyof typeof helps} */ (answer.status)] || "";
  return sentences(what, help);
}

/** @param {string[]} texts */
function sentences(...texts) {
  return texts.filter((text) => text).map((text) => `${text[0].toUpperCase()}${text.slice(1)}.`).join(" ");
}

/** The library with its style, once. @type {Promise<{ Terminal: typeof import("@xterm/xterm").Terminal, FitAddon: new () => Fit }> | null} */
let library = null;
function loadLibrary() {
  library ??= (async () => {
    customElements.define("ropewalk-sheet", Sheet);
    const beside = (/** @type {string} */ name) => new URL(name, import.meta.url).href;
    const link = /** @type {HTMLLinkElement} */ (made("link"));
    link.rel = "stylesheet";
    link.href = beside("xterm.css");
    const styled = new Promise((done, failed) => { link.onload = done; link.onerror = failed; });
    document.head.append(link);
    const [{ Terminal }, { FitAddon }] = await Promise.all([import(beside("xterm.js")), import(beside("addon-fit.js")), styled]);
    return { Terminal, FitAddon };
  })();
  return library;
}

/** Sends what is typed, post after post in its order. @param {string} path @param {() => boolean} isOver @param {(text: string) => void} failed */
function sender(path, isOver, failed) {
  /** @type {Uint8Array[]} */
  const waiting = [];
  let bytes = 0;
  let sequence = 0;
  let isSending = false;
  const run = async () => {
    if (isSending) return;
    isSending = true;
    while (waiting.length > 0 && !isOver()) {
      const post = [];
      let length = 0;
      while (waiting.length > 0 && length + waiting[0].length <= POST_BYTES_MAX) {
        const frame = /** @type {Uint8Array} */ (waiting.shift());
        length += frame.length;
        post.push(frame);
      }
      const body = joined(post);
      for (let isTaken = false; !isTaken && !isOver();) {
        try {
          const answer = await fetch(`${path}?sequence=${sequence}`, { method: "POST", headers: { "content-type": "application/octet-stream" }, body });
          // That there is no such shell any more is told by the end of what it prints.
          if (!answer.ok && answer.status !== 404) { failed(await refusalOf(answer)); return; }
          isTaken = true;
        } catch {
          await new Promise((done) => setTimeout(done, AGAIN_MS));
        }
      }
      bytes -= length;
      sequence += 1;
    }
    isSending = false;
  };
  return (/** @type {number} */ kind, /** @type {Uint8Array} */ typed) => {
    for (let at = 0; at === 0 || at < typed.length; at += PIECE_BYTES) {
      const frame = encoded(kind, typed.subarray(at, at + PIECE_BYTES));
      if (bytes + frame.length > TYPED_BYTES_MAX) return false;
      waiting.push(frame);
      bytes += frame.length;
    }
    run();
    return true;
  };
}

/** What stands at the foot of the page: what happened, the screen, the ways out. @param {Wanted} wanted */
function makePanel(wanted) {
  const section = made("section", "shell-panel");
  section.id = "shell";
  section.setAttribute("aria-label", `Shell in ${wanted.job}`);
  const title = made("h2", "", `Shell in ${wanted.job}, ${wanted.text}`);
  const said = made("p", "said");
  said.id = "shell-said";
  said.setAttribute("role", "status");
  const hint = made("p", "quiet hint");
  const key = made("kbd", "", "Ctrl+Shift+.");
  hint.append("All keys go to the shell; ", key, " leaves it, and comes back.");
  const button = (/** @type {string} */ text) => { const it = /** @type {HTMLButtonElement} */ (made("button", "", text)); it.type = "button"; return it; };
  const [again, size, close] = [button("Open again"), button("Larger"), button("Close")];
  again.id = "shell-again";
  again.hidden = true;
  close.id = "shell-close";
  const ways = made("div", "ways");
  ways.append(again, size, close);
  const head = made("header");
  head.append(title, ways, said, hint);
  const screen = made("div", "screen");
  section.append(head, screen);
  document.querySelector("main")?.after(section);
  document.body.classList.add("has-shell");
  size.addEventListener("click", () => { size.textContent = section.classList.toggle("large") ? "Smaller" : "Larger"; });
  return { section, said, again, close, screen };
}

/** Ends the one that is open. */
let closeLast = () => {};

/** Opens a shell, and ends the one before. @param {Wanted} wanted @param {HTMLElement | null} opener where the focus goes afterwards */
export async function open(wanted, opener) {
  closeLast();
  const { section, said, again, close, screen } = makePanel(wanted);
  section.scrollIntoView({ block: "nearest" });
  const call = new AbortController();
  const over = new AbortController();
  const end = () => { call.abort(); over.abort(); };
  closeLast = () => {
    end();
    section.remove();
    document.body.classList.remove("has-shell");
  };
  const leave = () => { closeLast(); (opener?.isConnected ? opener : /** @type {HTMLElement | null} */ (document.querySelector("#log")))?.focus(); };
  close.addEventListener("click", leave);
  again.addEventListener("click", () => open(wanted, opener));
  const say = (/** @type {string} */ text, /** @type {"" | "problem"} */ kind = "") => { said.className = `said ${kind}`; said.textContent = text; };
  say("Opening: the worker lays out the files. That may take a minute.");
  close.focus();
  let drawn;
  try {
    drawn = await makeTerminal(screen, over.signal);
  } catch {
    say("The terminal could not be loaded. Load the page again.", "problem");
    return;
  }
  if (over.signal.aborted) return;
  const { terminal, fit } = drawn;
  /** @param {string} text @param {"" | "problem"} kind */
  const ended = (text, kind) => {
    const isFocused = screen.contains(document.activeElement);
    end();
    terminal.options.disableStdin = true;
    say(text, kind);
    again.hidden = false;
    if (isFocused) again.focus();
  };
  terminal.attachCustomKeyEventHandler((event) => {
    // With a selection it copies, as elsewhere in a browser.
    if (event.ctrlKey && !event.shiftKey && event.code === "KeyC" && terminal.hasSelection()) return false;
    return !isWayOut(event);
  });
  document.addEventListener("keydown", (event) => {
    if (!isWayOut(event)) return;
    event.preventDefault();
    if (screen.contains(document.activeElement)) close.focus(); else terminal.focus();
  }, { signal: over.signal });
  addEventListener("beforeunload", (event) => event.preventDefault(), { signal: over.signal });
  try {
    await visit(wanted, terminal, fit, { call, over: over.signal, say, ended });
  } catch (error) {
    if (call.signal.reason === "silent") ended("The connection was lost: nothing was heard for 30 seconds. The shell has ended, with all that it started. Open it again when the server is there.", "problem");
    else if (!over.signal.aborted) ended(error instanceof TypeError ? "The connection was lost: the server cannot be reached. The shell has ended, with all that it started. Open it again when the server is back." : sentences(String(error instanceof Error ? error.message : error)), "problem");
  }
}

/** @param {KeyboardEvent} event */
function isWayOut(event) {
  return event.type === "keydown" && event.ctrlKey && event.shiftKey && event.code === "Period";
}

/** @param {HTMLElement} screen @param {AbortSignal} over */
async function makeTerminal(screen, over) {
  const { Terminal, FitAddon } = await loadLibrary();
  const style = getComputedStyle(screen);
  const terminal = new Terminal({
    fontFamily: style.fontFamily, fontSize: 13, theme: theme(screen), minimumContrastRatio: 4.5, screenReaderMode: true, scrollback: SCROLLBACK, disableStdin: true,
  });
  const fit = new FitAddon();
  terminal.loadAddon(fit);
  terminal.open(screen);
  fit.fit();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { terminal.options.theme = theme(screen); }, { signal: over });
  return { terminal, fit };
}

/**
 * One shell, from its opening to its end.
 * @param {Wanted} wanted @param {Terminal} terminal @param {Fit} fit
 * @param {{ call: AbortController, over: AbortSignal, say: (text: string) => void, ended: (text: string, kind: "" | "problem") => void }} ways
 */
async function visit(wanted, terminal, fit, { call, over, say, ended }) {
  const size = { rows: terminal.rows, columns: terminal.cols };
  const asked = { at: wanted.at || undefined, terminal: { kind: "xterm-256color", size } };
  const answer = await fetch(wanted.path, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(asked), signal: call.signal });
  if (!answer.ok || !answer.body) { ended(await refusalOf(answer), "problem"); return; }
  let heard = Date.now();
  const watch = setInterval(() => { if (Date.now() - heard > SILENT_MS) call.abort("silent"); }, SILENT_MS / 6);
  over.addEventListener("abort", () => clearInterval(watch));
  const read = frameReader();
  const reader = answer.body.getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    heard = Date.now();
    for (const { kind, bytes } of read(value)) {
      if (kind === KIND.opened) {
        const opened = JSON.parse(new TextDecoder().decode(bytes));
        say(greeting(opened));
        typeInto(`${wanted.path}/${encodeURIComponent(opened.shell)}/input`, terminal, fit, { over, say, ended });
      } else if (kind === KIND.bytes || kind === KIND.errors) {
        // Nothing more is read until it is drawn: whoever prints without end waits.
        await new Promise((drawn) => terminal.write(bytes.slice(), () => drawn(null)));
      } else if (kind === KIND.ended) {
        const code = new DataView(bytes.buffer, bytes.byteOffset).getInt32(0, true);
        ended(`The shell has ended with code ${code}.`, "");
        return;
      } else if (kind === KIND.refused) {
        ended(sentences(new TextDecoder().decode(bytes), "open it again, or choose another moment of the job"), "problem");
        return;
      }
    }
  }
  ended("The shell was lost: its worker or the server has gone, and what it ran with it. Open it again when they are back; another worker of the pool may have the files.", "problem");
}

/** @param {{ when: string, withheld: string[], is_lasting: boolean }} opened */
function greeting({ when, withheld, is_lasting }) {
  const secrets = withheld.length === 0 ? "" : `without ${withheld.length === 1 ? "the secret" : "the secrets"} ${withheld.join(", ")}, which nothing keeps: \`ropewalk shell --secret NAME\` gives it anew`;
  return sentences(`open, with the files ${when}`, is_lasting ? "what you change stays" : "what you change goes when the shell ends", secrets, "The command exit ends it");
}

/**
 * @param {string} path @param {Terminal} terminal @param {Fit} fit
 * @param {{ over: AbortSignal, say: (text: string) => void, ended: (text: string, kind: "" | "problem") => void }} ways
 */
function typeInto(path, terminal, fit, { over, say, ended }) {
  const send = sender(path, () => over.aborted, (text) => ended(text, "problem"));
  const type = (/** @type {Uint8Array} */ bytes) => { if (!send(KIND.bytes, bytes)) say("More was typed or pasted than the shell has taken: the rest was dropped."); };
  terminal.options.disableStdin = false;
  terminal.onData((text) => type(new TextEncoder().encode(text)));
  terminal.onBinary((text) => type(Uint8Array.from(text, (letter) => letter.charCodeAt(0))));
  terminal.onResize(({ rows, cols }) => {
    const bytes = new Uint8Array(4);
    new DataView(bytes.buffer).setUint16(0, rows, true);
    new DataView(bytes.buffer).setUint16(2, cols, true);
    send(KIND.size, bytes);
  });
  const watch = new ResizeObserver(() => fit.fit());
  const screen = terminal.element?.parentElement;
  if (screen) watch.observe(screen);
  over.addEventListener("abort", () => watch.disconnect());
  terminal.focus();
}
