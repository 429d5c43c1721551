"""What an evaluation writes and reads again: predictions.json, the official format, and nbest_predictions.json."""

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from extractive_qa.errors import QAError
from extractive_qa.files.atomic import atomic_file
from extractive_qa.files.reading import read_json, read_json_object
from extractive_qa.report.outcomes import Outcomes, collect_outcomes
from extractive_qa.text import printable, replace_surrogates

logger = logging.getLogger(__name__)

PREDICTIONS, NBEST = "predictions.json", "nbest_predictions.json"


def read_predictions(path: Path, examples: Sequence[dict], complete: bool = False) -> dict[str, str]:
    """{id: text} of a file in the official format. Questions without a prediction are counted in a warning, or refused
    where the file must be `complete`.

    Raises QAError where the file is of another format, or answers none of the `examples`.
    """
    predictions = read_json(path, "a JSON object {id: text}")
    if not isinstance(predictions, dict):
        raise QAError(f"{path} is not of the official format. Expected one JSON object {{id: text}}.")
    for identifier, text in predictions.items():
        if not isinstance(text, str):
            raise QAError(
                f"{path} is not of the official format: the prediction for {printable(identifier, 80)!r} is no text, "
                f"but {text!r:.40}. Expected one JSON object {{id: text}}."
            )
    # as the questions were read
    predictions = {replace_surrogates(identifier): replace_surrogates(text) for identifier, text in predictions.items()}
    missing = [example["id"] for example in examples if example["id"] not in predictions]
    if len(missing) == len(examples):
        found = f"its first id is {next(iter(predictions), 'missing')!r:.80}"
        raise QAError(
            f"{path} answers none of the questions scored: {found}. Expected ids of --eval_file, like "
            f"{examples[0]['id']!r:.80}. Name the file with the same questions: --eval_file"
        )
    if missing and complete:
        raise QAError(
            f"{path} lacks {len(missing)} of the {len(examples)} questions scored, the first is "
            f"{printable(missing[0], 80)!r}. Expected a run on the same questions (--eval_file, --max_samples)."
        )
    if missing:
        logger.warning(f"{len(missing)} of {len(examples)} questions have no prediction and count as wrong")
    return predictions


@contextmanager
def nbest_file(path: Path) -> Iterator[Callable[[dict, list[dict]], None]]:
    """A function that is called with each example and its answers, as a Reader gives them, and writes them to
    {id: answers}, a question a line. The file is there whole when the block ends, or not at all. Raises OSError."""
    with atomic_file(path) as file:

        def write(example: dict, answers: list[dict]) -> None:
            line = f"{json.dumps(example['id'])}: {json.dumps(answers)}"
            file.write((("{\n" if file.tell() == 0 else ",\n") + line).encode())

        yield write
        file.write(b"\n}\n")


def read_answers(predictions_file: Path, predictions: Mapping[str, str], examples: Sequence[dict]) -> dict | None:
    """{id: best answer} with start, end and probability, from the nbest_predictions.json beside a predictions file.
    None where there is none, or, with a warning, one of another run.

    Raises QAError where its answers are not in the contexts of `examples`.
    """
    path = predictions_file.with_name(NBEST)
    if not path.exists():
        return None
    nbest = read_json_object(path, "the answers that evaluate.py writes", "Delete it to do without confidences.")
    answers = {}
    for example in examples:
        match nbest.get(example["id"]):
            case [{"text": str(text), "start": int(start), "end": int(end), "probability": int(p) | float(p)}, *_]:
                if text != predictions.get(example["id"]) or not 0 <= p <= 1:
                    break
                if example["context"][start:end] != text:
                    raise QAError(
                        f"{path} answers other questions under the same ids: for {example['id'][:80]!r} the answer "
                        "is not where it should be in the context. Expected a run on the same --eval_file."
                    )
                answers[example["id"]] = {"text": text, "start": start, "end": end, "probability": float(p)}
            case _:
                break
    if len(answers) == len(examples):
        return answers
    logger.warning(f"{path} is not of the same run as {predictions_file.name} beside it: its confidences are ignored")
    return None


def read_run(folder: Path, examples: Sequence[dict], f1_unit: str = "auto") -> Outcomes:
    """How another run answered the same questions. folder: what it had as --output_dir. Raises QAError as
    read_predictions does, and where it answers only some of them."""
    path = folder / PREDICTIONS
    predictions = read_predictions(path, examples, complete=True)
    return collect_outcomes(examples, predictions, read_answers(path, predictions, examples), f1_unit=f1_unit)
