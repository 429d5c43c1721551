"""Fits a model's calibrator: the questions of a file, asked in the situations that people ask in.

own          the context that the question belongs to
long         that one among its neighbours, as one text
passages     the best of the file by BM25, as a retriever gives them; mostly the own one is among them
absent       the best of the file by BM25 that holds none of the question's answers

A confidence that is right in one of these alone misleads in the others, so one calibrator learns from all four.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from extractive_qa.metrics import choose_f1_unit, exact_match_score
from extractive_qa.postprocessing.calibration import calibration_error
from extractive_qa.postprocessing.confidence import apply_calibrator, fit_calibrator
from extractive_qa.progress import NoProgress
from extractive_qa.reader import Reader
from extractive_qa.settings import DEFAULT_SETTINGS
from extractive_qa.training.augmentation import among_neighbours
from extractive_qa.training.negatives import best_contexts, forms, is_in

SITUATIONS = ("own", "long", "passages", "absent")
OWN, LONG, SEVERAL, ABSENT = range(len(SITUATIONS))
MOST_QUESTIONS = 300  # of a file, drawn: each is read in some ten windows
NEIGHBOURS = 4  # contexts of a long text
PASSAGES = 5
DEPTH = 50  # contexts by BM25 among which one without the answer is looked for
AT_ONCE = 32  # questions
# texts without the answer to each that holds it, as far as a confidence goes: people mostly ask where they expect one,
# and the more of them it is fitted to, the lower it is where the answer is there (docs/RESULTS.md)
ABSENT_SHARE = 0.25


@dataclass(frozen=True)
class Judged:
    """What a model made of questions in their situations, R rows in all: the calibrator's features, float (R, F);
    whether the best answer is right, and whether there is any, bool (R,); the rows' situations, int (R,), and
    questions, int (R,), numbers of examples."""

    features: np.ndarray
    right: np.ndarray
    answerable: np.ndarray
    situation: np.ndarray
    question: np.ndarray


def make_situations(examples: Sequence[dict], contexts: Sequence[str]) -> list[tuple[int, int, list[str], bool]]:
    """(situation, number of the example, its texts, whether one of these holds an answer), for each example in each
    situation that the contexts of the file allow. A question that has no answer is asked of its own context alone."""
    rows, in_forms = [], [forms(context) for context in contexts]
    ranking = best_contexts([example["question"] for example in examples], contexts, DEPTH)
    place_of = {context: place for place, context in enumerate(contexts)}
    for number, (example, best) in enumerate(zip(examples, map(np.ndarray.tolist, ranking), strict=True)):
        references = [forms(text) for text in example["answers"]["text"]]
        rows.append((OWN, number, [example["context"]], bool(references)))
        if not references or len(contexts) < 2:
            continue
        first = place_of[example["context"]] - number % NEIGHBOURS  # the own one is the first, the second ...
        rows.append((LONG, number, [among_neighbours(example, contexts, first, NEIGHBOURS)[0]["context"]], True))
        holds = [any(is_in(reference, in_forms[context]) for reference in references) for context in best]
        if best:
            texts = [contexts[context] for context in best[:PASSAGES]]
            rows.append((SEVERAL, number, texts, any(holds[:PASSAGES])))
        absent = next((context for context, held in zip(best, holds, strict=True) if not held), None)
        if absent is not None:
            rows.append((ABSENT, number, [contexts[absent]], False))
    return rows


def judge(
    reader: Reader, examples: Sequence[dict], contexts: Sequence[str], progress: Callable = NoProgress,
    before_each: Callable[[], object] = lambda: None,
) -> Judged:  # fmt: skip
    """Asks the examples in all situations. progress: called like tqdm. before_each: called between batches."""
    rows, unit = make_situations(examples, contexts), choose_f1_unit(examples)
    features, right = [], []
    settings = reader.settings
    reader.settings = settings | {"handle_impossible_answer": False}  # the best span is judged, whatever [CLS] says
    try:
        with progress(desc="fitting confidences", total=len(rows), unit=" questions", leave=False) as bar:
            for first in range(0, len(rows), AT_ONCE):
                before_each()
                some = rows[first : first + AT_ONCE]
                asked = [(examples[number]["question"], texts) for _, number, texts, _ in some]
                collector, _, joined = reader.collect_documents(asked, ranked=True)
                answers = collector.answers(joined)
                features.append(collector.features_of_questions(len(some)))
                for (situation, number, _, _), found in zip(some, answers, strict=True):
                    references = examples[number]["answers"]["text"]
                    text = found[0]["text"] if found else ""
                    is_right = bool(references) and exact_match_score(text, references, unit) == 1
                    right.append(situation != ABSENT and is_right)
                bar.update(len(some))
    finally:
        reader.settings = settings
    columns = [np.array([row[i] for row in rows], dtype=int) for i in (0, 1)]
    answerable = np.array([row[3] for row in rows], dtype=bool)
    right = np.array(right, dtype=bool)
    return Judged(np.concatenate(features), right, answerable | right, *columns)


def fit(judged: Judged, rows: np.ndarray, earlier: dict | None) -> dict:
    """The calibrator for some of the rows, bool (R,). For whether any answer is there all situations count the same;
    for whether an answer is right those without one count as ABSENT_SHARE says."""
    counts = np.bincount(judged.situation[rows], minlength=len(SITUATIONS))
    weights = counts.mean() / counts[judged.situation[rows]]
    weights = np.stack([np.where(judged.situation[rows] == ABSENT, ABSENT_SHARE, 1) * weights, weights])
    return fit_calibrator(judged.features[rows], judged.right[rows], judged.answerable[rows], weights, earlier)


def errors(judged: Judged, rows: np.ndarray, calibrator: dict) -> dict[str, dict[str, float]]:
    """How well a calibrator fits some of the rows, bool (R,), in each situation that they are of: `confidence` (mean),
    `right` (share), `error` (expected calibration error) and `answerable` (mean), all in [0, 1], and `questions`."""
    confidence, answerable = apply_calibrator(calibrator, judged.features)
    found = {}
    for number, name in enumerate(SITUATIONS):
        if (some := rows & (judged.situation == number)).any():
            found[name] = {
                "questions": int(some.sum()), "confidence": float(confidence[some].mean()),
                "right": float(judged.right[some].mean()),
                "error": calibration_error(confidence[some], judged.right[some]),
                "answerable": float(answerable[some].mean()),
            }  # fmt: skip
    return found


def calibrate(
    reader: Reader, examples: Sequence[dict], measured: Sequence[dict] = (), progress: Callable = NoProgress,
    before_each: Callable[[], object] = lambda: None,
) -> tuple[dict, dict]:  # fmt: skip
    """The calibrator that fits `examples` best, or MOST_QUESTIONS of them that are drawn; and what `errors` says of it
    on `measured`, with no text in common, or on the same questions where there are none. The reader has it from now
    on."""
    judged = [judge(reader, *draw(some), progress, before_each) for some in (examples, measured) if some]
    calibrator = fit(judged[0], np.ones(len(judged[0].right), dtype=bool), reader.settings["calibrator"])
    reader.settings |= fitted_settings(calibrator)
    return calibrator, errors(judged[-1], np.ones(len(judged[-1].right), dtype=bool), calibrator)


def fitted_settings(calibrator: dict) -> dict:
    """What a calibrator means for reader.json: an older calibration goes."""
    return {name: DEFAULT_SETTINGS[name] for name in ("temperature", "references")} | {"calibrator": calibrator}


def draw(examples: Sequence[dict]) -> tuple[list[dict], list[str]]:
    """Up to MOST_QUESTIONS of the examples, drawn with a fixed seed, in their order; and all contexts."""
    numbers = random.Random(0).sample(range(len(examples)), min(MOST_QUESTIONS, len(examples)))
    contexts = list(dict.fromkeys(example["context"] for example in examples))
    return [examples[number] for number in sorted(numbers)], contexts


def describe(found: dict[str, dict[str, float]]) -> str:
    """A line for each situation out of what `errors` gives."""
    names = dict(zip(SITUATIONS, ("own text", "longer text", f"{PASSAGES} passages", "text without it"), strict=True))
    return "\n".join(
        f"{names[situation] + ':':<16} {one['confidence']:4.0%} sure, {one['right']:4.0%} right, calibration error "
        f"{one['error']:.3f}; {one['answerable']:4.0%} that an answer is there"
        for situation, one in found.items()
    )
