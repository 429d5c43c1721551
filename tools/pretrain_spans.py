"""Questions out of raw text, without any model: what stands twice in a passage is asked for once.

    python tools/pretrain_spans.py texts/ spans.jsonl                                       # every .txt below texts/
    python train.py --train_file spans.jsonl --num_train_epochs 1 --output_dir output/spans
    python train.py --model_dir output/spans/final_model --output_dir output/after_spans    # then the real questions

Recurring-span selection (Ram et al. 2021, https://arxiv.org/abs/2101.00438), as questions: words that stand at exactly
two places of a passage are blanked in one of the two sentences. That sentence becomes the question, with "what" for
the blank; the rest of the passage is the context and the words in it the answer. Paragraphs are separated by blank
lines; a passage is as many of them, one after another, as have --words words. What is drawn depends on --seed and the
texts alone. Exit codes: 0 done, 2 something to mend, 130 interrupted.
"""

import argparse
import json
import random
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from utils import console
from utils.console import UserError
from utils.files import make_room, read_text, require_file, write_whole, writing

LONGEST = 8  # words of a span
WORD = re.compile(r"\w+(?:[-'’.,]\w+)*")
SENTENCE = re.compile(r"(?<=[.!?])[\"”')\]]*\s+(?=[\"“'(\[]*[A-Z0-9])")
# words that name nothing: a span neither begins nor ends with one
EMPTY_WORDS = (
    "a about after all also an and any are as at be became because been before being between both but by can could "
    "did do does during each either first for from had has have he her his how however i if in into is it its last "
    "later like made many may more most much must new no not of on one only or other our out over own s same second "
    "several she should since so some such than that the their them then there these they this those three through to "
    "too two under until up us used was we were what when where which while who whom whose why will with within would "
    "you"
)
EMPTY = frozenset(EMPTY_WORDS.split())


def passages(text: str, words: int) -> Iterator[str]:
    """Neighbouring paragraphs of about `words` words together."""
    passage = ""
    for paragraph in re.split(r"\n\s*\n", text):
        passage = f"{passage} {' '.join(paragraph.split())}".strip()
        if len(passage.split()) >= words:
            yield passage
            passage = ""
    if passage:
        yield passage


def recurring_spans(passage: str) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Both places (characters) of every span of words that stands at exactly two places, the longest spans only."""
    words = [(match.start(), match.end(), match[0].lower()) for match in WORD.finditer(passage)]
    found, covered = [], set()
    for length in range(min(LONGEST, len(words)), 0, -1):
        places = defaultdict(list)
        for first in range(len(words) - length + 1):
            span = words[first : first + length]
            # words of one clause, with something named at both ends
            if span[0][2] in EMPTY or span[-1][2] in EMPTY or not any(len(word) > 2 for _, _, word in span):
                continue
            if length > 1 and re.search(r"[.;:!?()\[\]\"“”]", passage[span[0][0] : span[-1][1]]):
                continue
            places[tuple(word for _, _, word in span)].append(first)
        for firsts in places.values():
            taken = [range(first, first + length) for first in firsts]
            if len(firsts) == 2 and not any(covered.issuperset(words_of) for words_of in taken):
                found.append(tuple((words[part[0]][0], words[part[-1]][1]) for part in taken))
            if len(firsts) >= 2:
                covered.update(*taken)
    return found


def ask(passage: str, asked: tuple[int, int], answer: tuple[int, int]) -> dict | None:
    """The question for the span `asked`, answered by the span `answer` of the same passage: question, context, answers.
    None where both stand in one sentence, or the sentence says too little."""
    ends = [match.start() for match in SENTENCE.finditer(passage)] + [len(passage)]
    end = next(place for place in ends if place >= asked[1])
    begin = max([0, *(match.end() for match in SENTENCE.finditer(passage) if match.end() <= asked[0])])
    if begin <= answer[0] < end:
        return None
    question = f"{passage[begin : asked[0]]}what{passage[asked[1] : end]}".strip().rstrip(".!?") + "?"
    if not 5 <= len(question.split()) <= 40:
        return None
    before, after = passage[:begin], passage[end:].lstrip()
    context = before + after
    start = answer[0] if answer[0] < begin else answer[0] - (len(passage) - len(context))
    text = context[start : start + answer[1] - answer[0]]
    return {"question": question, "context": context, "answers": {"text": [text], "answer_start": [start]}}


def questions(text: str, words: int, most: int, draw: random.Random) -> Iterator[dict]:
    """At most `most` questions for each passage of a text."""
    for passage in passages(text, words):
        spans = recurring_spans(passage)
        draw.shuffle(spans)
        asked = []
        for places in spans:
            question = ask(passage, *draw.sample(places, 2))
            if question and len(asked) < most:
                asked.append(question)
        yield from asked


def texts_below(folder: Path) -> Iterator[tuple[str, str]]:
    """(name, text) of every .txt file below a folder. Raises UserError where there is none, or one can't be read."""
    try:
        paths = sorted(path for path in folder.rglob("*.txt") if not path.is_dir())
        if not paths:
            raise UserError(f"no .txt file below {folder}. Expected a folder of raw texts.")
        for path in console.progress(paths, desc="reading", unit=" texts"):
            require_file(path, "a text in UTF-8")
            yield path.stem, read_text(path)
    except OSError as error:
        raise UserError(f"{error.filename} can't be read: {error.strerror}. Expected a text in UTF-8.") from None


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=console.HelpFormatter,
        usage="python tools/pretrain_spans.py FOLDER OUTPUT [options]",
    )  # fmt: skip
    add = parser.add_argument
    add("folder", type=Path, help="every .txt file below it is read, in UTF-8")
    add("output", type=Path, help="JSON Lines for train.py --train_file")
    add("--words", type=int, default=100, help="words of a passage, at least, where the text has as many")
    add("--max_questions", type=int, default=12, help="of one passage")
    add("--seed", type=int, default=42, help="of what is asked")
    args = parser.parse_args(argv)
    if args.words < 1 or args.max_questions < 1:
        raise UserError(f"--words {args.words} and --max_questions {args.max_questions}: expected at least 1 of each.")
    make_room(args.output, "OUTPUT")
    if args.output.exists():
        raise UserError(f"{args.output} exists. Give another name, or delete it first.")
    draw = random.Random(args.seed)
    lines = []
    for count, (name, text) in enumerate(texts_below(args.folder), 1):  # noqa: B007 - how many there were
        for question in questions(text, args.words, args.max_questions, draw):
            lines.append(json.dumps({"id": f"{name}-{len(lines)}"} | question, ensure_ascii=False) + "\n")
    if not lines:
        raise UserError(f"nothing stands twice in a passage of the {count:,} texts of {args.folder}.")
    with writing(args.output, "OUTPUT"):
        write_whole(args.output, "".join(lines).encode("utf-8"))
    print(f"{len(lines):,} questions from {count:,} texts: {console.shown(args.output)}")


if __name__ == "__main__":
    console.run(main)
