"""The web page of `predict.py web`: a text, a question, the answer marked in its text. Made with Gradio, an extra
(requirements-web.txt) that is imported when the page is served; words and results are made without it.

Nothing in the page comes from elsewhere, and nothing of it goes there. What may be asked of its server:
request_filter.py."""

import importlib.util
import ipaddress
import json
import logging
import socket
import time
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path
from string import Template

from extractive_qa.errors import QAError
from extractive_qa.postprocessing.confidence import is_absent
from extractive_qa.preprocessing.unknown import WORTH_SAYING
from extractive_qa.text import has_text, replace_surrogates, shown
from extractive_qa.web.request_filter import RequestFilter

logger = logging.getLogger(__name__)

MAX_CONTEXT, MAX_QUESTION = 200_000, 1_000  # characters
MAX_FILE = 1_000_000  # bytes
MAX_WAITING = 16  # questions that wait while one is answered; the next is refused
ANSWERS, WORTH_SHOWING = 5, 0.001  # at most so many, and but for the best none less probable than this
FOLDER = Path(__file__).parent
LANGUAGES = {"English": "en", "中文": "zh"}
# the page's texts in both languages: words.json, with the limits put in
LIMITS = {"MAX_CONTEXT": f"{MAX_CONTEXT:,}", "MAX_QUESTION": f"{MAX_QUESTION:,}", "MAX_MB": f"{MAX_FILE / 1e6:g}"}
WORDS = json.loads(Template((FOLDER / "words.json").read_text(encoding="utf-8")).substitute(LIMITS))


def choose_language(accepted: str) -> str:
    """The language of WORDS that an Accept-Language header likes best; English where it names neither."""
    liked = []
    for place, entry in enumerate(accepted.split(",")):
        name, _, weight = entry.replace(" ", "").partition(";q=")
        try:
            liked.append((-float(weight or 1), place, name.lower().split("-")[0]))
        except ValueError:
            continue  # no weight that we know: as if it were not there
    return next((name for weight, _, name in sorted(liked) if name in WORDS and weight < 0), "en")


def find_problem(question: str, context: str) -> tuple[str, int] | None:
    """What keeps a question from being asked: a name of WORDS and a number of characters. None where all is well."""
    for name, text, limit in (("question", question, MAX_QUESTION), ("context", context, MAX_CONTEXT)):
        if len(text) > limit:
            return f"long_{name}", len(text)
        if not has_text(text):
            return f"no_{name}", len(text)
    return None


def ask(reader, question: str, context: str) -> dict:
    """What there is to show: `context`, `answers`, `seconds`, and `unknown`, the share of its characters that the model
    does not know; or `problem`, as find_problem gives it; or `error`, a text, where the model can't answer."""
    question, context = replace_surrogates(question or ""), replace_surrogates(context or "")
    if problem := find_problem(question, context):
        return {"problem": problem}
    began = time.perf_counter()
    try:
        answers = next(reader.answer_all([{"question": question, "context": context}], ANSWERS))
    except QAError as error:
        return {"error": str(error)}
    shown_answers = answers[:1] + [answer for answer in answers[1:] if answer["probability"] >= WORTH_SHOWING]
    seconds = time.perf_counter() - began
    return {"context": context, "answers": shown_answers, "seconds": seconds, "unknown": reader.unknown_share(context)}


# ---- HTML: whatever came from a person, a file or a model goes through `escape`


def heading(language: str, spoken: bool = False) -> str:
    """spoken: the server has chosen the language, so the page is not drawn again."""
    words = WORDS[language]
    state = " data-spoken" if spoken else ""
    return f'<header id="heading" lang="{language}"{state}><h1>{words["title"]}</h1><p>{words["about"]}</p></header>'


def file_button(language: str) -> str:
    words = WORDS[language]
    return (
        f'<label class="file"><input id="file" type="file" accept=".txt,text/plain" data-limit="{MAX_FILE}" '
        f'data-too-large="{words["too_large"]}" data-not-utf8="{words["not_utf8"]}" '
        f'data-unreadable="{words["unreadable"]}"><span>{words["file"]}</span></label>'
        f'<span id="file-status" role="status">{words["file_hint"]}</span>'
    )


def mark_answers(context: str, answers: Sequence[dict]) -> str:
    """The context as HTML with each answer in a <mark>, numbered from 1, the best one."""
    pieces, place = [], 0
    for number, answer in sorted(enumerate(answers, start=1), key=lambda item: item[1]["start"]):
        if place <= answer["start"] < answer["end"]:  # one that overlaps another could not be marked
            pieces += [escape(context[place : answer["start"]]), f'<mark data-answer="{number}">']
            pieces += [escape(context[answer["start"] : answer["end"]]), "</mark>"]
            place = answer["end"]
    return "".join([*pieces, escape(context[place:])])


def render(result: dict | None, language: str, model: str, min_confidence: float = 0.0) -> str:
    """The result as HTML. result: as `ask` gives it, None before the first. model: what answers, in words.

    Below `min_confidence` no answer counts as found; what was found stays to be seen.
    """
    words = WORDS[language]
    model_line = f'<span class="model">{escape(model)}</span>'
    if result is None:
        return f'<p class="waiting">{words["waiting"]}</p><p class="facts">{model_line}</p>'
    if "answers" not in result:
        name, length = result.get("problem", ("", 0))
        message = words[name].format(length) if name else result["error"]
        return f'<p class="result problem" role="alert">{escape(message)}</p><p class="facts">{model_line}</p>'
    answers = result["answers"]
    absent = is_absent(answers[0]["answerable"])
    sure = answers[0]["probability"] >= min_confidence and answers[0]["text"] and not absent
    best = f'<p class="best" dir="auto">{escape(answers[0]["text"])}</p>'
    if not sure:
        best = f'<p class="best none">{words["absent" if absent else "no_answer"]}</p>'
        if answers[0]["text"] and not absent:  # else that there is none is the model's answer
            best += f"<p>{words['unsure'].format(min_confidence)}</p>"
    if result["unknown"] >= WORTH_SAYING:
        best += f'<p class="problem">{words["unknown"].format(result["unknown"])}</p>'
    rows = "".join(
        f'<li><button type="button" data-answer="{number}">'
        f'<span class="text" dir="auto">{escape(answer["text"])}</span>'
        f'<span class="share">{answer["probability"]:.1%}</span>'
        f'<span class="bar" style="--share: {answer["probability"]:.4f}"></span></button></li>'
        for number, answer in enumerate(answers, start=1)
    )
    return (
        f'<section class="result{"" if sure else " unsure"}"><h2>{words["answer"]}</h2>{best}'
        f'<h2>{words["confidence"]}</h2><ol aria-label="{words["answers"]}">{rows}</ol>'
        f'<div class="passage" tabindex="0" role="region" dir="auto" aria-label="{words["passage"]}">'
        f"{mark_answers(result['context'], answers)}</div>"
        f'<p class="facts">{words["seconds"].format(result["seconds"])} · {model_line}</p></section>'
    )


def describe(reader) -> str:
    """Which model answers, and where it computes."""
    precision = {"no": "fp32"}.get(reader.backend.precision, reader.backend.precision)
    return f"{shown(reader.model_dir)} · {reader.backend.describe()} · {precision}"


# ---- Gradio and the server


def build(reader, examples: Sequence[dict], min_confidence: float = 0.0):
    """The page as gradio.Blocks. examples: questions to try, with their contexts."""
    import gradio as gr

    model = describe(reader)

    def answer(question: str, context: str, language: str):
        result = ask(reader, question, context)
        return result, render(result, language, model, min_confidence)

    def try_example(number: int, language: str):
        example = examples[number]
        return example["context"], example["question"], *answer(example["question"], example["context"], language)

    def speak(language: str, result: dict | None):
        words = WORDS[language]
        return (
            heading(language, spoken=True),
            gr.update(label=words["language"]),
            gr.update(label=words["context"], placeholder=words["context_hint"]),
            file_button(language),
            gr.update(label=words["question"], placeholder=words["question_hint"]),
            words["ask"],
            f"<p>{words['examples']}</p>",
            render(result, language, model, min_confidence),
        )

    def greet(request: gr.Request):
        language = choose_language(request.headers.get("accept-language", ""))
        return language, *speak(language, None)

    words = WORDS["en"]
    html = {"js_on_load": None, "apply_default_css": False}
    with gr.Blocks(title="Ask a text", analytics_enabled=False, fill_width=True) as page:
        result = gr.State(None)
        with gr.Row(elem_id="top"):
            top = gr.HTML(heading("en"), **html)
            language = gr.Radio(list(LANGUAGES.items()), value="en", label=words["language"], elem_id="language")
        with gr.Row(elem_id="columns"):
            with gr.Column(elem_id="asking"):
                context = gr.Textbox(
                    label=words["context"], placeholder=words["context_hint"], lines=12, max_lines=12,
                    max_length=MAX_CONTEXT, elem_id="context",
                )  # fmt: skip
                file = gr.HTML(file_button("en"), elem_id="opening", **html)
                question = gr.Textbox(
                    label=words["question"], placeholder=words["question_hint"], max_lines=1,
                    max_length=MAX_QUESTION, elem_id="question",
                )  # fmt: skip
                button = gr.Button(words["ask"], variant="primary", elem_id="ask")
                with gr.Column(elem_id="examples"):
                    examples_label = gr.HTML(f"<p>{words['examples']}</p>", **html)
                    chips = [gr.Button(example["question"], size="sm") for example in examples]
            with gr.Column(elem_id="answering"):
                panel = gr.HTML(render(None, "en", model), elem_id="answer", **html)

        # one question at a time; a change of language need not wait for it
        private = {"api_visibility": "private"}
        queued = {"concurrency_id": "reader", "concurrency_limit": 1, "show_progress": "minimal", **private}
        told = {"concurrency_id": "words", "concurrency_limit": 4, "show_progress": "hidden", **private}
        texts = [top, language, context, file, question, button, examples_label, panel]
        gr.on([button.click, question.submit], answer, [question, context, language], [result, panel],
              show_progress_on=panel, **queued)  # fmt: skip
        for number, chip in enumerate(chips):
            chip.click(
                lambda language, number=number: try_example(number, language), language,
                [context, question, result, panel], show_progress_on=panel, **queued,
            )  # fmt: skip
        language.input(speak, [language, result], texts, **told)
        page.load(greet, None, [language, *texts], **told)
    return page.queue(max_size=MAX_WAITING, default_concurrency_limit=1, api_open=False)


def make_app(page, names: frozenset[str] = frozenset()) -> RequestFilter:
    """The page as an ASGI application, behind its request filter. names: host names under which it is known."""
    import gradio as gr
    from fastapi import FastAPI
    from fastapi.responses import FileResponse

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.get("/page.js")(lambda: FileResponse(FOLDER / "page.js", media_type="text/javascript"))
    sans = ["system-ui", "Segoe UI", "PingFang SC", "Microsoft YaHei", "Noto Sans CJK SC", "sans-serif"]
    # of Gradio's own, everything that its environment variables could switch on is switched off by name
    gr.mount_gradio_app(
        app, page, "/", footer_links=[], run_history=False, allowed_paths=[], show_error=False, ssr_mode=False,
        enable_monitoring=False, pwa=False, mcp_server=False, max_file_size="1kb",
        theme=gr.themes.Base(font=sans, font_mono=["monospace"]), css_paths=[FOLDER / "page.css"],
        head='<script src="page.js" defer></script>',
    )  # fmt: skip
    return RequestFilter(app, names)


def require_gradio() -> None:
    if importlib.util.find_spec("gradio") is None:
        raise QAError("the page is made with Gradio, which is not installed. Run: pip install -r requirements-web.txt")


def listen(host: str, port: int):
    """A socket that listens. Raises QAError where the address can't be had."""
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except (OSError, OverflowError) as error:  # OverflowError: no port has that number
        reason = getattr(error, "strerror", None) or error
        raise QAError(
            f"the page can't have port {port} of {host}: {reason}. Expected one that is free. "
            "Run: python predict.py web --port 0 (any that is free)"
        ) from None


def serve(
    reader, host: str, port: int, examples: Sequence[dict], announce: Callable[[str], object],
    min_confidence: float = 0.0,
) -> None:  # fmt: skip
    """Serves the page on http://host:port (port 0: one that is free) until Ctrl-C. announce: is given its address.

    Raises QAError where the address can't be had. Gradio must be there: require_gradio.
    """
    with listen(host, port) as listening:
        import uvicorn

        names = frozenset({host.lower(), socket.gethostname().lower()})
        app = make_app(build(reader, examples, min_confidence), names)
        address, port = listening.getsockname()[:2]
        if not ipaddress.ip_address(address).is_loopback:
            logger.warning(
                f"everyone who can reach {address} can use this page: it has no password. Leave --host out to be alone"
            )
        announce(f"http://{f'[{host}]' if ':' in host else host}:{port}")
        logger.info("Open this address in a browser. Ctrl-C ends it.")
        # open pages keep a connection: they are not waited for
        config = uvicorn.Config(app, access_log=False, log_level="warning", timeout_graceful_shutdown=1)
        uvicorn.Server(config).run(sockets=[listening])
