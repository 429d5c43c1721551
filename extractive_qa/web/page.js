// What the page does on its own, without asking the server: files, places in the text, the language for screen readers.
"use strict";
(() => {
  const calm = () => matchMedia("(prefers-reduced-motion: reduce)").matches;

  // A file is read here, in the browser: it is never stored on the server, and its name never leaves.
  async function open(input) {
    const file = input.files[0];
    const words = input.dataset;
    if (!file) return;
    let text = "", reason = "";
    try {
      if (file.size > Number(words.limit)) throw new RangeError();
      text = new TextDecoder("utf-8", { fatal: true }).decode(await file.arrayBuffer());
      if (text.includes("\0")) throw new TypeError();
    } catch (error) {
      reason = error instanceof RangeError ? words.tooLarge : error instanceof TypeError ? words.notUtf8 : words.unreadable;
    }
    input.value = ""; // so that the same file can be chosen again
    const area = document.querySelector("#context textarea");
    if (!reason) {
      area.value = text;
      area.dispatchEvent(new Event("input", { bubbles: true }));
    }
    const status = document.querySelector("#file-status"); // looked for now: the page may have been drawn anew
    status.textContent = reason ? `${file.name}: ${reason}` : file.name;
    status.classList.toggle("failed", reason !== "");
  }

  // The chosen answer is brought into the middle of its text, without moving the page.
  function show(number) {
    const passage = document.querySelector("#answer .passage");
    const mark = passage?.querySelector(`mark[data-answer="${number}"]`);
    if (!mark) return;
    for (const node of document.querySelectorAll("#answer [data-answer]")) {
      const chosen = node.dataset.answer === String(number);
      node.classList.toggle("chosen", chosen);
      if (node.tagName === "BUTTON") node.setAttribute("aria-pressed", chosen);
    }
    const offset = mark.getBoundingClientRect().top - passage.getBoundingClientRect().top;
    const top = passage.scrollTop + offset - (passage.clientHeight - mark.offsetHeight) / 2;
    passage.scrollTo({ top, behavior: "auto" });
  }

  // A new result: its best answer is shown; on a phone, where it stands below the fold, the page goes there.
  let seen = null;
  function look() {
    const heading = document.querySelector("#heading");
    if (heading) document.documentElement.lang = heading.lang;
    document.querySelector("#answer")?.setAttribute("aria-live", "polite");
    const result = document.querySelector("#answer .result");
    if (!result || result === seen) return;
    seen = result;
    show(1);
    if (result.getBoundingClientRect().top > innerHeight * 0.6)
      result.scrollIntoView({ block: "start", behavior: calm() ? "auto" : "smooth" });
  }
  new MutationObserver(look).observe(document.documentElement, { childList: true, subtree: true });

  document.addEventListener("change", (event) => {
    if (event.target.matches("#file")) open(event.target);
  });
  document.addEventListener("click", (event) => {
    const row = event.target.closest("#answer button[data-answer]");
    if (row) show(Number(row.dataset.answer));
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && event.target.closest("#context"))
      document.querySelector("#ask").click();
  });
})();
