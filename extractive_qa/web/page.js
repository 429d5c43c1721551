// The page: it asks the server that it came from, and shows what comes back. Whatever a person, a file or a model
// wrote becomes text here (textContent), never markup.
"use strict";
(async () => {
  const WORTH_SHOWING = 0.001; // but for the best, no answer less probable than this
  const TOP_K = 5, PASSAGES = 10;
  const READ_WHOLE = 20_000; // characters of files; of more the best passages are read
  const MAX_FILE = 20; // MB
  const UNKNOWN = 0.05; // share of characters from which on it is said that the model does not know them

  const $ = (selector) => document.querySelector(selector);
  const json = async (path) => (await fetch(path)).json();
  const [WORDS, server] = await Promise.all([json("words.json"), json("start.json")]);
  const files = []; // {name, pages: [{page, text}]}
  let language = navigator.languages.map((name) => name.slice(0, 2)).find((name) => name in WORDS) ?? "en";
  let state = { kind: "waiting" }; // what #answering shows
  let running = null; // an AbortController while a question is answered

  const word = (name, ...values) => WORDS[language][name].replace(/\{(\d)\}/g, (_, place) => values[place]);
  const number = (value) => value.toLocaleString(language);
  const percent = (value, digits = 1) => `${(100 * value).toFixed(digits)}%`;
  const hasWord = (text) => /[^\p{Z}\p{C}\p{M}\ufffd]/u.test(text);

  function make(tag, properties = {}, ...children) {
    const { dataset = {}, ...others } = properties;
    const element = Object.assign(document.createElement(tag), others);
    Object.assign(element.dataset, dataset);
    element.append(...children);
    return element;
  }

  // ---- asking

  const folderAsked = () => server.folder !== null && $("[name=source]:checked").value === "folder";

  // What is asked: the address, what is sent, and `texts`, as the answers' documents count them.
  function whatToAsk() {
    const question = $("#question").value;
    const length = [...question].length;
    if (!hasWord(question)) return { problem: word("no_question") };
    if (length > server.limits.question)
      return { problem: word("long_question", number(length), number(server.limits.question)) };
    const asked = { question, top_k: TOP_K, min_confidence: 0 };
    if (folderAsked()) return { path: "ask", body: { ...asked, passages: PASSAGES }, texts: null };
    const texts = files.length
      ? files.flatMap((file) => file.pages.map((page) => ({ name: file.name, ...page })))
      : [{ name: "", page: null, text: $("#context").value }];
    const total = texts.reduce((sum, text) => sum + [...text.text].length, 0);
    const most = files.length ? server.limits.documents : server.limits.context;
    if (!texts.some((text) => hasWord(text.text))) return { problem: word("no_context") };
    if (total > most) return { problem: word("long_context", number(total), number(most)) };
    if (!files.length) return { path: "answer", body: { ...asked, context: texts[0].text }, texts };
    const passages = total > READ_WHOLE ? PASSAGES : null;
    return { path: "answer", body: { ...asked, documents: texts.map(({ text }) => ({ text })), passages }, texts };
  }

  async function ask() {
    if (running) return;
    const { problem, path, body, texts } = whatToAsk();
    if (problem) return show({ kind: "problem", text: () => problem });
    running = new AbortController();
    show({ kind: "progress", done: 0, windows: 0, question: body.question });
    try {
      const result = await answerOf(path, body, running.signal);
      show({ kind: "result", texts, chosen: result.answers.findIndex((answer) => answer.text), ...result });
    } catch (error) {
      if (error.name === "AbortError") show({ kind: "problem", text: () => word("stopped") });
      else show({ kind: "problem", text: () => error.status === 503 ? word("busy") : error.detail ?? word("unreachable") });
    } finally {
      running = null;
      drawButton();
    }
  }

  // The server says line by line how far it is; the last line is the answer.
  async function answerOf(path, body, signal) {
    const headers = { "Content-Type": "application/json", Accept: "application/x-ndjson" };
    const response = await fetch(path, { method: "POST", headers, body: JSON.stringify(body), signal });
    if (!response.ok) throw { status: response.status, ...(await response.json().catch(() => ({}))) };
    let rest = "", last = null;
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    for (let part = await reader.read(); !part.done; part = await reader.read()) {
      const lines = (rest + part.value).split("\n");
      rest = lines.pop();
      for (const line of lines) {
        last = JSON.parse(line);
        if ("windows" in last) {
          Object.assign(state, last);
          drawProgress();
        }
      }
    }
    if (!last?.result) throw last ?? {};
    return last.result;
  }

  // ---- showing

  function show(next) {
    state = next;
    draw();
    const panel = $("#answering");
    if (state.kind !== "waiting" && panel.getBoundingClientRect().top > innerHeight * 0.6)
      panel.scrollIntoView({ block: "start", behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth" });
  }

  function draw() {
    const parts = {
      waiting: () => [make("p", { className: "waiting", textContent: word("waiting") })],
      problem: () => [make("p", { className: "problem", role: "alert", textContent: state.text() })],
      progress: () => [asked(), make("p", { className: "progress-words" }), make("progress")],
      result: drawResult,
    }[state.kind]();
    $("#answering").replaceChildren(...parts);
    $("#answering").dataset.kind = state.kind;
    if (state.kind === "progress") drawProgress();
    if (state.kind === "result") mark();
    drawButton();
  }

  const asked = () => make("h2", { className: "asked", dir: "auto", textContent: state.question });

  function drawButton() {
    $("#ask").hidden = running !== null;
    $("#stop").hidden = running === null;
  }

  function drawProgress() {
    const bar = $("#answering progress");
    if (!bar) return;
    const { done, windows } = state;
    const waits = folderAsked() ? "searching" : "queued";
    $(".progress-words").textContent = windows ? word("reading", number(done), number(windows)) : word(waits);
    if (windows) Object.assign(bar, { value: done, max: windows });
  }

  // Of an answer: where it is from, and the text it is in. The server counts in characters, as [...text] does.
  function documentOf(answer) {
    if (state.texts) return state.texts[answer.document ?? 0];
    return { ...answer.document, name: answer.document.file };
  }

  function placeOf(answer) {
    const { name, page, line, text } = documentOf(answer);
    if (!name || page) return name && word("place_page", name, page);
    return word("place_line", name, line ?? 1 + [...text].slice(0, answer.start).filter((one) => one === "\n").length);
  }

  function drawResult() {
    const [best] = state.answers;
    const found = state.answers.filter((answer, place) => answer.text && (place === 0 || answer.probability >= WORTH_SHOWING));
    const isAbsent = state.answerable !== null && state.answerable < 0.5;
    const isUnsure = best.text && best.probability < server.min_confidence;
    const parts = [asked(), make("h3", { textContent: word("answer") })];
    if (isAbsent || isUnsure || !best.text) {
      const many = !state.texts || state.texts.length > 1;
      const said = isAbsent ? (many ? "absent_many" : "absent") : "no_answer";
      parts.push(make("p", { className: "best none", textContent: word(said) }));
      if (isUnsure && !isAbsent)
        parts.push(make("p", { textContent: word("unsure", percent(server.min_confidence, 0)) }));
    } else parts.push(make("p", { className: "best", dir: "auto", textContent: best.text }));
    if (best.text && placeOf(best)) parts.push(make("p", { className: "source", dir: "auto", textContent: placeOf(best) }));
    if (state.unknown_share >= UNKNOWN)
      parts.push(make("p", { className: "problem", textContent: word("unknown", percent(state.unknown_share, 0)) }));
    if (found.length) {
      const rows = found.map((answer, place) => {
        const bar = make("span", { className: "bar" });
        bar.style.setProperty("--share", answer.probability.toFixed(4));
        const row = make(
          "button", { type: "button", dataset: { answer: place } },
          make("span", { className: "text", dir: "auto", textContent: answer.text }),
          make("span", { className: "share", textContent: percent(answer.probability) }),
          bar,
        );
        if (placeOf(answer)) row.append(make("span", { className: "place", dir: "auto", textContent: placeOf(answer) }));
        return make("li", {}, row);
      });
      const list = make("ol", {}, ...rows);
      list.setAttribute("aria-label", word("answers"));
      const passage = make("div", { className: "passage", tabIndex: 0, role: "region", dir: "auto" });
      passage.setAttribute("aria-label", word("passage"));
      parts.push(passage, correction(), make("h3", { textContent: word("confidence") }), list);
    } else if (!state.texts) parts.push(make("p", { textContent: word("nothing") }));
    parts.push(make("p", { className: "facts", textContent: word("seconds", state.seconds.toFixed(2)) }));
    return parts;
  }

  // The text of the chosen answer, with all answers in it marked, and the chosen one in the middle of the pane.
  function mark() {
    const passage = $("#answering .passage");
    if (!passage) return;
    const chosen = state.answers[state.chosen];
    const { text } = documentOf(chosen);
    const characters = [...text];
    const here = state.answers
      .map((answer, place) => ({ ...answer, place }))
      .filter((answer) => answer.text && documentOf(answer).text === text &&
        (answer.place === state.chosen || answer.probability >= WORTH_SHOWING))
      .sort((one, other) => (other.place === state.chosen) - (one.place === state.chosen) || one.place - other.place);
    const apart = []; // one that overlaps another can't be marked
    for (const answer of here)
      if (apart.every((other) => answer.end <= other.start || other.end <= answer.start)) apart.push(answer);
    const pieces = [];
    let place = 0;
    for (const answer of apart.sort((one, other) => one.start - other.start)) {
      pieces.push(characters.slice(place, answer.start).join(""));
      pieces.push(make("mark", {
        dataset: { answer: answer.place }, className: answer.place === state.chosen ? "chosen" : "",
        textContent: characters.slice(answer.start, answer.end).join(""),
      }));
      place = answer.end;
    }
    passage.replaceChildren(...pieces, characters.slice(place).join(""));
    for (const row of document.querySelectorAll("#answering button[data-answer]")) {
      const isChosen = Number(row.dataset.answer) === state.chosen;
      row.classList.toggle("chosen", isChosen);
      row.setAttribute("aria-pressed", isChosen);
    }
    const target = passage.querySelector("mark.chosen");
    const offset = target.getBoundingClientRect().top - passage.getBoundingClientRect().top;
    passage.scrollTop += offset - (passage.clientHeight - target.offsetHeight) / 2;
  }

  // ---- correcting an answer: the place that is selected in the text, or the chosen answer

  function correction() {
    const box = make("div", { className: "correction" });
    const { correcting } = state;
    if (typeof correcting === "object" && correcting.saved)
      box.append(make("p", { role: "status", textContent: word("saved", correcting.saved.file, number(correcting.saved.corrections)) }));
    else if (correcting) {
      const problem = correcting.problem ? [make("p", { className: "problem", role: "alert", textContent: correcting.problem })] : [];
      box.append(
        make("p", { textContent: word("correct_how") }), ...problem,
        make("button", { type: "button", className: "save", textContent: word("save_nothing"), onclick: save }), " ",
        make("button", { type: "button", textContent: word("cancel"), onclick: () => setCorrecting(null) }),
      );
    } else box.append(make("button", { type: "button", className: "correct", textContent: word("correct"), onclick: () => setCorrecting({}) }));
    return box;
  }

  function setCorrecting(correcting) {
    state.correcting = correcting;
    $(".correction").replaceWith(correction());
    drawSave();
    $(".correction button")?.focus();
  }

  // The selected piece of the text: start and end in characters, without white space at its ends; else the chosen answer.
  function selected() {
    const passage = $("#answering .passage");
    const selection = getSelection();
    const range = selection.rangeCount ? selection.getRangeAt(0) : null;
    if (!range || range.collapsed || !passage.contains(range.commonAncestorContainer)) return state.correcting.place;
    const before = document.createRange();
    before.selectNodeContents(passage);
    before.setEnd(range.startContainer, range.startOffset);
    const text = range.toString();
    const start = [...before.toString()].length + [...text].length - [...text.trimStart()].length;
    const end = start + [...text.trim()].length;
    return end > start ? { start, end } : state.correcting.place;
  }

  function drawSave() {
    const button = $(".correction .save");
    if (!button) return;
    const place = (state.correcting.place = selected());
    const text = place ? [...$("#answering .passage").textContent].slice(place.start, place.end).join("") : "";
    const short = [...text].length > 60 ? `${[...text].slice(0, 57).join("")}…` : text;
    button.textContent = place ? word("save", short) : word("save_nothing");
    button.disabled = !place;
  }

  async function save() {
    const document_ = documentOf(state.answers[state.chosen]);
    const body = { question: state.question, context: $("#answering .passage").textContent, title: document_.name, ...state.correcting.place };
    const headers = { "Content-Type": "application/json" };
    let correcting;
    try {
      const response = await fetch("corrections", { method: "POST", headers, body: JSON.stringify(body) });
      const told = await response.json();
      correcting = response.ok ? { saved: told } : { ...state.correcting, problem: told.detail };
    } catch {
      correcting = { ...state.correcting, problem: word("unreachable") };
    }
    setCorrecting(correcting);
  }

  // ---- files: the server gives their text back, and keeps nothing

  async function open(list) {
    const failed = [];
    const status = $("#file-status");
    for (const file of list) {
      status.textContent = word("reading_file", file.name);
      if (file.size > MAX_FILE * 1e6) {
        failed.push(word("too_large", file.name, MAX_FILE));
        continue;
      }
      try {
        const response = await fetch(`text?name=${encodeURIComponent(file.name)}`, { method: "POST", body: file });
        const told = await response.json();
        if (response.ok) files.push({ name: file.name, pages: told });
        else failed.push(`${file.name}: ${told.detail}`);
      } catch {
        failed.push(`${file.name}: ${word("unreachable")}`);
      }
    }
    $("#file").value = ""; // so that the same file can be chosen again
    drawFiles();
    status.textContent = failed.join(" ") || word("file_hint", server.kinds.join(", "));
    status.classList.toggle("failed", failed.length > 0);
  }

  function drawFiles() {
    const rows = files.map((file, place) => {
      const button = make("button", { type: "button", textContent: "×", onclick: () => { files.splice(place, 1); drawFiles(); } });
      button.setAttribute("aria-label", word("remove", file.name));
      return make("li", {}, make("span", { dir: "auto", textContent: file.name }), button);
    });
    $("#files").replaceChildren(...rows);
    $("#files").hidden = files.length === 0;
    $("#context").hidden = files.length > 0;
  }

  // ---- words

  function speak() {
    document.documentElement.lang = language;
    document.title = word("title");
    for (const element of document.querySelectorAll("[data-word]")) element.textContent = word(element.dataset.word);
    $("#context").placeholder = word("context_hint");
    $("#question").placeholder = word("question_hint");
    $("#file-status").textContent = word("file_hint", server.kinds.join(", "));
    $("#file-status").classList.remove("failed");
    $(`#language [value=${language}]`).checked = true;
    if (server.folder) $("#folder-name").textContent = word("folder", server.folder.name, number(server.folder.files));
    if (server.languages.length) {
      const names = new Intl.DisplayNames([language], { type: "language" });
      const known = server.languages.map((name) => { try { return names.of(name); } catch { return name; } });
      $("[data-word=about]").textContent += ` ${word("knows", known.join(", "))}`;
    }
    $("#model").textContent = server.model;
    drawFiles();
    draw();
  }

  // ---- what a person does

  $("#source").hidden = server.folder === null;
  $("#examples").hidden = server.examples.length === 0;
  $("#file").accept = server.kinds.join(",");
  const drawSource = () => { $("#texts").hidden = folderAsked(); };
  $("#source").addEventListener("change", drawSource);
  for (const example of server.examples)
    $("#examples").append(make("button", { type: "button", textContent: example.question, onclick: () => {
      if (server.folder) $("[name=source][value=texts]").checked = true;
      files.length = 0;
      drawSource();
      drawFiles();
      $("#context").value = example.context;
      $("#question").value = example.question;
      ask();
    } }));
  $("#asking").addEventListener("submit", (event) => {
    event.preventDefault();
    ask();
  });
  $("#stop").addEventListener("click", () => running?.abort());
  $("#language").addEventListener("change", (event) => {
    language = event.target.value;
    speak();
  });
  $("#context").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) ask();
  });
  $("#file").addEventListener("change", (event) => open([...event.target.files]));
  addEventListener("dragover", (event) => event.preventDefault());
  addEventListener("drop", (event) => {
    event.preventDefault();
    if (!event.dataTransfer.files.length) return;
    if (server.folder) $("[name=source][value=texts]").checked = true;
    drawSource();
    open([...event.dataTransfer.files]);
  });
  $("#answering").addEventListener("click", (event) => {
    const row = event.target.closest("button[data-answer]");
    if (!row) return;
    state.chosen = Number(row.dataset.answer);
    mark();
    if (state.correcting && !state.correcting.saved) {
      getSelection().removeAllRanges();
      const { start, end } = state.answers[state.chosen];
      state.correcting.place = { start, end };
      drawSave();
    }
  });
  document.addEventListener("selectionchange", () => { if (state.correcting && !state.correcting.saved) drawSave(); });

  speak();
  drawSource();
  $("main").hidden = false;
})();
