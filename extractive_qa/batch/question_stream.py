"""Questions out of a stream of records, in groups that fit in memory. They need no answers. A record that is no
question does not stop the others: it comes with its fault."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from extractive_qa.data.examples import check_question
from extractive_qa.data.formats import Record

# A group ends at whichever comes first, so where groups end is a function of the file alone.
GROUP_QUESTIONS = 128
GROUP_CHARACTERS = 1_000_000


@dataclass(frozen=True)
class Question:
    """A record that was checked: `example` with id, question and context, or its `fault` and how its `text` begins."""

    number: int  # of the record in its file, from 1
    place: str  # "line 3", "record 3"
    example: dict
    fault: str
    text: str
    end: int  # bytes of the file up to its end


def check_questions(records: Iterable[Record | None]) -> Iterator[Question | None]:
    """A Question for each record; None where the records have None."""
    seen: set[str] = set()  # ids: all that grows with the file
    for record in records:
        if record is None:
            yield None
            continue
        example, faults = check_question(record, seen)
        text = record.beginning() if faults else ""
        yield Question(record.number, record.place, {} if faults else example, "; ".join(faults), text, record.end)


def grouped(questions: Iterable[Question | None]) -> Iterator[list[Question]]:
    """Groups of questions. None among them ends a group: more would have to be waited for."""
    group, characters = [], 0
    for question in questions:
        if question is not None:
            group.append(question)
            characters += sum(map(len, question.example.values()))
        if group and (question is None or len(group) == GROUP_QUESTIONS or characters >= GROUP_CHARACTERS):
            yield group
            group, characters = [], 0
    if group:
        yield group
