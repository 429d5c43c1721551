"""Questions out of a stream of records, in groups that fit in memory. They need no answers. A record that is no
question does not stop the others: it comes with its fault."""

from collections.abc import Iterable, Iterator

from extractive_qa.data.examples import Ids, check_question
from extractive_qa.data.formats import Record

# A group ends at whichever comes first, so where groups end is a function of the file alone.
GROUP_QUESTIONS = 128
GROUP_CHARACTERS = 1_000_000


def check_questions(
    records: Iterable[Record | None], ids: Ids, names: Iterable[str] = ("question", "context")
) -> Iterator[Record | None]:
    """Each record as it was checked: its content with the id and the texts `names` alone, or {}, its faults and how its
    text begins; None where the records have None. ids: all that grows with the file."""
    for record in records:
        if record is None:
            yield None
            continue
        example, faults = check_question(record, ids, names)
        text = record.beginning() if faults else ""
        yield record._replace(content={} if faults else example, fault="; ".join(faults), text=text)


def grouped(questions: Iterable[Record | None], most: int | None = None) -> Iterator[list[Record]]:
    """Groups of questions, up to `most` each. None among them ends a group: more would have to be waited for."""
    most = min(GROUP_QUESTIONS, most or GROUP_QUESTIONS)
    group, characters = [], 0
    for question in questions:
        if question is not None:
            group.append(question)
            characters += sum(map(len, question.content.values()))
        if group and (question is None or len(group) == most or characters >= GROUP_CHARACTERS):
            yield group
            group, characters = [], 0
    if group:
        yield group
