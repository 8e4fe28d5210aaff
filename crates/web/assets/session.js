// @ts-check
// What a page's scripts ask of the server, and what they say once the reader's session has ended: all that stands in the page stays.

/** Says that the session has ended, with the way back to here, or no more of it. @param {boolean} hasEnded */
function tell(hasEnded) {
  const told = document.querySelector("#session-ended");
  if (!hasEnded || told) {
    if (!hasEnded) told?.remove();
    return;
  }
  const notice = document.createElement("p");
  notice.id = "session-ended";
  notice.className = "session-ended";
  notice.setAttribute("role", "alert");
  const link = document.createElement("a");
  // Where one is changes without a page being loaded; and beside a build the whole window signs in.
  const { location } = window.top ?? window;
  const follow = () => { link.href = `/sign-in?to=${encodeURIComponent(location.pathname + location.search + location.hash)}`; };
  for (const name of ["click", "focus", "pointerover"]) link.addEventListener(name, follow);
  follow();
  link.target = "_top";
  link.textContent = "sign in to go on";
  notice.append("Your session has ended: ", link);
  document.body.append(notice);
}

/**
 * What the server answers. To whom it does not know it answers with the page to sign in, or with 401: here always with 401.
 * @param {string} address @param {RequestInit} [how] @returns {Promise<Response>}
 */
export async function answerTo(address, how) {
  const answer = await fetch(address, how);
  const isNobody = answer.status === 401 || answer.redirected && new URL(answer.url).pathname === "/sign-in";
  if (isNobody) tell(true);
  else if (answer.ok) tell(false);
  if (!isNobody || answer.status === 401) return answer;
  answer.body?.cancel();
  return new Response(null, { status: 401 });
}
