"""What the JSON interface takes and gives. FastAPI checks requests by these, and describes them at /docs."""

from typing import Annotated, Any

from pydantic import BaseModel, Field

MAX_CONTEXT, MAX_DOCUMENTS, MAX_QUESTION = 200_000, 2_000_000, 1_000  # characters that are read; that are searched
MOST_DOCUMENTS, MOST_ANSWERS, MOST_PASSAGES = 1_000, 20, 100


# ---- what is sent

Name = Annotated[str, Field(max_length=1_000)]
Text = Annotated[str, Field(max_length=MAX_DOCUMENTS)]


class Document(BaseModel):
    text: Text
    name: Name = ""


class Question(BaseModel):
    question: str = Field(max_length=MAX_QUESTION, examples=["Who built the mill?"])
    top_k: int = Field(1, ge=1, le=MOST_ANSWERS, description="how many answers, best first")
    min_confidence: float | None = Field(None, ge=0, le=1, description="below it: no answer; null: the server's own")


class QuestionOfTexts(Question):
    """A question, and a context or documents."""

    context: str | None = Field(None, max_length=MAX_CONTEXT, examples=["The mill was built by Ada Miller in 1843."])
    documents: list[Document] | None = Field(None, min_length=1, max_length=MOST_DOCUMENTS)
    passages: int | None = Field(
        None, ge=1, le=MOST_PASSAGES, description="of the documents that are read, best first by BM25; null: everything"
    )


class QuestionOfFolder(Question):
    """A question about the folder of documents."""

    passages: int = Field(10, ge=1, le=MOST_PASSAGES, description="that are read, best first by BM25")


class Correction(BaseModel):
    """The right place of an answer in its context: characters, end exclusive."""

    question: str = Field(max_length=MAX_QUESTION)
    context: str = Field(max_length=MAX_CONTEXT)
    start: int = Field(ge=0)
    end: int = Field(ge=1)
    title: Name = ""


# ---- what comes back


class Answer(BaseModel):
    text: str
    start: int = Field(description="in characters (Unicode code points) of the text it is from")
    end: int = Field(description="exclusive: text[start:end] is the answer")
    probability: float = Field(description="how likely it is right, 0 to 1")
    document: Any = Field(
        None, description="/answer: the number of the document, from 0; /ask: its file, page, line and passage (text)"
    )


class Answered(BaseModel):
    question: str
    answered: bool = Field(description="false: no answer is as sure as min_confidence")
    answerable: float | None = Field(description="how likely there is an answer at all; null: the model can't tell")
    answers: list[Answer]
    seconds: float = Field(description="that it took, waiting included")
    unknown_share: float = Field(description="of the text's characters, 0 to 1, that the model does not know")


class Health(BaseModel):
    status: str
    model: str
    device: str
    precision: str
    documents: int | None = Field(description="files in the folder; null: there is none")
    waiting: int = Field(description="questions that are asked now")


class Page(BaseModel):
    page: int | None
    text: str


class Saved(BaseModel):
    file: str
    corrections: int


class Problem(BaseModel):
    detail: str


def problems(*statuses: int) -> dict:
    """What the description of the interface says of errors."""
    return {status: {"model": Problem} for status in statuses}
