"""The JSON interface of `predict.py web`, and the page that uses it. Made with FastAPI (requirements-web.txt).

Who may ask at all: request_filter.py. One model answers one question after another: turns.py.
"""

import json
import logging
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated

from fastapi import FastAPI, HTTPException, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, Response, StreamingResponse
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException as StarletteHTTPException

from extractive_qa.documents.index import DocumentIndex, best_passages
from extractive_qa.documents.reading import KINDS, read_content
from extractive_qa.errors import QAError
from extractive_qa.text import has_text, replace_surrogates, shown
from extractive_qa.web.corrections import save_correction
from extractive_qa.web.forms import (
    MAX_CONTEXT,
    MAX_DOCUMENTS,
    MAX_QUESTION,
    Answered,
    Correction,
    Health,
    Page,
    Question,
    QuestionOfFolder,
    QuestionOfTexts,
    Saved,
    problems,
)
from extractive_qa.web.request_filter import RequestFilter
from extractive_qa.web.turns import BusyError, Turns

logger = logging.getLogger(__name__)

MAX_WAITING = 16  # questions that wait while one is answered; the next is refused
FOLDER = Path(__file__).parent
FILES = {"/": "page.html", "/page.css": "page.css", "/page.js": "page.js", "/words.json": "words.json"}
LINES = "application/x-ndjson"  # what is accepted by whoever wants to see how far it is
DESCRIPTION = """Questions answered from texts, each answer an exact piece of one, with how likely it is right.

With `Accept: application/x-ndjson`, `/answer` and `/ask` say how far they are, a JSON object a line: `{"done": 3,
"windows": 40}` at least once a second, then `{"result": {...}}`, or `{"detail": "...", "status": 503}`. Closing the
connection stops the work."""


def make_app(
    reader, index: DocumentIndex | None, corrections: Path, examples: Sequence[dict] = (), min_confidence: float = 0.0,
    seconds: float = 300.0, names: frozenset[str] = frozenset(), token: str | None = None, model: str = "",
) -> RequestFilter:  # fmt: skip
    """The page and its interface as an ASGI application, behind the request filter; `turns` ends what is running.

    reader: a Reader; index: of the folder that can be asked; corrections: the SQuAD file that they go to. examples:
    questions to try, with their contexts. seconds: how long a question may take. names, token: as in RequestFilter.
    model: what answers, in words.
    """
    turns = Turns(MAX_WAITING, seconds)

    @asynccontextmanager
    async def lifespan(_):
        yield
        turns.stop()

    app = FastAPIOffline(
        title="Questions answered from texts", description=DESCRIPTION, version="1", redoc_url=None,
        swagger_ui_oauth2_redirect_url="/docs/redirect", lifespan=lifespan,
        swagger_ui_parameters={"validatorUrl": None},
    )  # fmt: skip
    tell_in_one_form(app)
    folder = index and {"name": index.folder.resolve().name, "files": index.files, "passages": len(index)}
    serve_page(app, {
        "model": model, "languages": reader.languages, "folder": folder, "min_confidence": min_confidence,
        "corrections": shown(corrections), "kinds": list(KINDS), "examples": list(examples),
        "limits": {"context": MAX_CONTEXT, "documents": MAX_DOCUMENTS, "question": MAX_QUESTION},
    })  # fmt: skip
    answer_questions(app, reader, index, turns, min_confidence)
    take_files(app, turns, corrections)
    filtered = RequestFilter(app, names, token)
    filtered.turns = turns
    return filtered


def serve_page(app: FastAPI, start: dict) -> None:
    """The page's own files, and `start`, what it needs to know before the first question."""
    for path, name in FILES.items():
        app.get(path, include_in_schema=False)(lambda name=name: FileResponse(FOLDER / name))
    app.get("/start.json", include_in_schema=False)(lambda: start)


def answer_questions(app: FastAPI, reader, index: DocumentIndex | None, turns: Turns, min_confidence: float) -> None:
    """/answer, /ask and /health. min_confidence: where a question names none."""

    @app.get("/health")
    def health() -> Health:
        """Whether it answers, and with what."""
        return Health(
            status="ok", model=shown(reader.model_dir), device=reader.backend.describe(),
            precision=reader.backend.precision, documents=index and index.files, waiting=turns.inside,
        )  # fmt: skip

    @app.post("/answer", response_model=Answered, responses=problems(400, 422, 500, 503))
    async def answer(asked: QuestionOfTexts, request: Request):
        """The answers to a question in a context, or in several documents, which are compared on one scale."""
        question, texts = words(asked.question, "question"), texts_of(asked)

        def work(each_batch: Callable) -> tuple[list[dict], str]:
            if asked.documents is None:
                once = [{"question": question, "context": texts[0]}]
                return next(reader.answer_all(once, asked.top_k, least(asked), each_batch)), texts[0]
            return answer_texts(reader, question, texts, asked, least(asked), each_batch)

        return await respond(request, question, work)

    @app.post("/ask", response_model=Answered, responses=problems(400, 404, 422, 500, 503))
    async def ask(asked: QuestionOfFolder, request: Request):
        """The answers to a question in the server's folder of documents: of the best passages by BM25."""
        question = words(asked.question, "question")
        if index is None:
            raise HTTPException(404, "There is no folder of documents. Start with: predict.py web --documents DIR")

        def work(each_batch: Callable) -> tuple[list[dict], str]:
            (found,) = index.answers(reader, [question], asked.passages, asked.top_k, least(asked), each_batch)
            return found, "\n".join(answer["document"]["text"] for answer in found if answer["document"])

        return await respond(request, question, work)

    def least(asked: Question) -> float:
        return min_confidence if asked.min_confidence is None else asked.min_confidence

    async def respond(request: Request, question: str, work: Callable) -> Answered | Response:
        """The answers, or the lines that tell how far they are, where these are accepted."""
        began = time.perf_counter()
        try:
            events = turns.take(work)
            if LINES in request.headers.get("accept", ""):
                return StreamingResponse(lines_of(events, question, reader, began), media_type=LINES)
            async for event in events:
                last = event
                if await request.is_disconnected():
                    await events.aclose()
                    return Response(status_code=503)  # nobody reads it
        except BusyError as error:
            raise HTTPException(503, str(error), {"retry-after": "5"}) from None
        except QAError as error:  # the model can't answer
            raise HTTPException(500, str(error)) from None
        return make_answered(last, question, reader, began)


def take_files(app: FastAPI, turns: Turns, corrections: Path) -> None:
    """/text, which gives back the text of a file, and /corrections, which writes to the SQuAD file `corrections`."""

    @app.post("/text", responses=problems(415, 422, 503), openapi_extra={"requestBody": RAW_BODY})
    async def text(request: Request, name: Annotated[str, Query(max_length=255)]) -> list[Page]:
        """The text of a file (txt, md, html, pdf, docx), whose content is sent as it is. It is not kept."""
        content = await request.body()
        if Path(name).suffix.lower() not in KINDS:
            raise HTTPException(415, f"Expected a file of {', '.join(KINDS)}.")
        try:
            pages = [event async for event in turns.take(lambda _: read_content(Path(name), content))][-1]
        except QAError as error:
            raise HTTPException(422, replace_surrogates(str(error))) from None
        except BusyError as error:
            raise HTTPException(503, str(error)) from None
        return [Page(page=page, text=text) for page, text in pages]

    @app.post("/corrections", responses=problems(400, 409, 422))
    async def correct(correction: Correction) -> Saved:
        """Saves the right answer to a question as a SQuAD record, for training: train.py --train_file FILE."""
        question, context = words(correction.question, "question"), words(correction.context, "context")
        if not has_text(context[correction.start : correction.end]) or correction.end > len(context):
            raise HTTPException(422, "Expected start and end, in characters, around a piece of the context.")
        try:
            count = save_correction(
                corrections, question, context, correction.start, correction.end, replace_surrogates(correction.title)
            )
        except QAError as error:
            raise HTTPException(409, str(error)) from None
        return Saved(file=shown(corrections), corrections=count)


RAW_BODY = {
    "required": True,
    "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
}


def words(text: str, name: str) -> str:
    """`text` without lone surrogates; an error where it holds no word."""
    if not has_text(text):
        raise HTTPException(422, f"The {name} must hold a word.")
    return replace_surrogates(text)


def texts_of(asked: QuestionOfTexts) -> list[str]:
    """The context, or the documents, without lone surrogates; an error where there are both, neither, or too much."""
    if (asked.context is None) == (asked.documents is None):
        raise HTTPException(422, "Expected either context or documents.")
    if asked.context is not None:
        return [words(asked.context, "context")]
    texts = [document.text for document in asked.documents]
    words(" ".join(texts), "documents")
    if (length := sum(map(len, texts))) > (limit := MAX_DOCUMENTS if asked.passages else MAX_CONTEXT):
        more = "" if asked.passages else ' With "passages": 10 the best of them are read, which may be more.'
        raise HTTPException(422, f"The documents have {length:,} characters, expected at most {limit:,} in all.{more}")
    return list(map(replace_surrogates, texts))


def answer_texts(
    reader, question: str, texts: list[str], asked: QuestionOfTexts, min_confidence: float, each_batch: Callable
) -> tuple[list[dict], str]:
    """The answers in texts, each with the number of its text, in which places are; and what was read."""
    passages = [{"text": text, "document": number, "start": 0} for number, text in enumerate(texts)]
    if asked.passages:
        passages = best_passages(question, texts, asked.passages) or [{"text": ""}]
    ranked = asked.passages is not None
    found = reader.answer_documents(question, passages, asked.top_k, min_confidence, ranked, each_batch)
    found = found if asked.top_k > 1 else [found]
    for answer in found:
        if passage := answer["document"]:
            answer["start"], answer["end"] = answer["start"] + passage["start"], answer["end"] + passage["start"]
            answer["document"] = passage["document"]
    return found, "\n".join(passage["text"] for passage in passages)


def make_answered(event: tuple, question: str, reader, began: float) -> Answered:
    answers, text = event
    return Answered(
        question=question, answered=answers[0]["text"] != "", answerable=answers[0]["answerable"], answers=answers,
        seconds=round(time.perf_counter() - began, 3), unknown_share=reader.unknown_share(text),
    )  # fmt: skip


async def lines_of(events: AsyncIterator, question: str, reader, began: float) -> AsyncIterator[str]:
    """How far it is, line by line, and at last the answers, or what went wrong."""
    try:
        async for event in events:
            if isinstance(event[0], int):
                line = {"done": event[0], "windows": event[1]}
            else:
                line = {"result": make_answered(event, question, reader, began).model_dump()}
            yield json.dumps(line) + "\n"
    except (BusyError, QAError) as error:
        yield json.dumps({"detail": str(error), "status": 503 if isinstance(error, BusyError) else 500}) + "\n"
    except Exception:  # the answer has begun: it is too late for a status
        logger.exception("a question could not be answered")
        yield json.dumps({"detail": "Something went wrong on the server, which says what.", "status": 500}) + "\n"
    finally:
        await events.aclose()


def tell_in_one_form(app: FastAPI) -> None:
    """Every error is {"detail": text}. What was sent is not repeated in it."""

    @app.exception_handler(RequestValidationError)
    async def refuse(request: Request, error: RequestValidationError) -> JSONResponse:
        if request.headers.get("content-type", "").partition(";")[0] != "application/json":
            return JSONResponse({"detail": "Expected JSON: send Content-Type: application/json."}, 422)
        found = (f"{'.'.join(map(str, one['loc'][1:])) or 'the request'}: {one['msg']}" for one in error.errors())
        return JSONResponse({"detail": replace_surrogates("; ".join(found))}, 422)

    @app.exception_handler(StarletteHTTPException)
    async def tell(_, error: StarletteHTTPException) -> JSONResponse:
        return JSONResponse({"detail": error.detail}, error.status_code, error.headers)
