"""Exact match and F1 as SQuAD v1.1's official script defines them, through the library `evaluate`.

Source of the definition: Rajpurkar et al., 2016 (arXiv 1606.05250), and the evaluation script published with the data:
lower-case, drop ASCII punctuation, drop the articles a, an, the, collapse white space; then equality, or the harmonic
mean of precision and recall over the bags of words; of several references the best counts.

Chinese, Japanese, Thai, Lao, Khmer, Burmese and Tibetan have no space between words: an answer would be one word. There
the unit is the character, as in MLQA's official script for Chinese (Lewis et al., 2020, arXiv 1910.07475, function
mixed_segmentation): lower-case, drop all of Unicode's punctuation but no articles; each character of these scripts is a
unit, and what is between them is split at white space, so that a Latin word or a number stays whole; then as above. A
vowel sign or an accent (Unicode's category M) belongs to the character before it. CMRC 2018's script cuts answers in
much the same way and then takes the longest common substring, where SQuAD and MLQA take the bag; XQuAD is scored with
SQuAD's own script, by words. Korean has spaces: it is counted by words, by character only where that is asked for.
"""

import re
import string
import sys
import tempfile
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from extractive_qa.arguments import IDS, choice, require_fields, require_kind, require_text, several
from extractive_qa.text import WITHOUT_SPACES, mostly_without_spaces, replace_surrogates, short_repr

PUNCTUATION = str.maketrans("", "", string.punctuation)
ARTICLES = re.compile(r"\b(a|an|the)\b")
BY_CHARACTER = re.compile(WITHOUT_SPACES.pattern + "|[\u1100-\u11ff\uac00-\ud7af]")  # and Hangul
F1_UNITS = ("auto", "word", "character")
COUNTS_CHARACTERS = "EM and F1 count characters: the references are mostly of scripts without spaces between words"


def choose_f1_unit(examples: Sequence[dict], f1_unit: str = "auto") -> str:
    """What EM and F1 of `examples` count: "word" or "character". "auto": characters where the references of all
    examples together are mostly of scripts without spaces. Raises ValueError where f1_unit is none of F1_UNITS,
    TypeError where it is no str."""
    choice("f1_unit", f1_unit, F1_UNITS)
    if f1_unit != "auto":
        return f1_unit
    references = (text for example in examples for text in example["answers"]["text"])
    return "character" if mostly_without_spaces(references) else "word"


def normalize_answer(text: str, f1_unit: str = "word") -> str:
    """The form in which answers are compared: units ("word" or "character") with one space between two."""
    if f1_unit == "word":
        return " ".join(ARTICLES.sub(" ", text.lower().translate(PUNCTUATION)).split())
    units, in_word = [], False
    for char in text.lower().translate(PUNCTUATION):
        kind = unicodedata.category(char)[0]
        if char.isspace():
            in_word = False
        elif kind == "M" and units:
            units[-1] += char
        elif kind != "P":
            is_unit = bool(BY_CHARACTER.match(char))
            if in_word and not is_unit:
                units[-1] += char
            else:
                units.append(char)
            in_word = not is_unit
    return " ".join(units)


def exact_match_score(prediction: str, references: Sequence[str], f1_unit: str = "word") -> float:
    """1.0 where the prediction equals one of the references after normalization, else 0.0. A question without any
    reference has no answer, as in SQuAD 2: there "" is right. f1_unit: as for normalize_answer."""
    given = normalize_answer(prediction, f1_unit)
    return float(any(given == normalize_answer(reference, f1_unit) for reference in references or [""]))


def f1_score(prediction: str, references: Sequence[str], f1_unit: str = "word") -> float:
    """The best F1 over the references, in [0, 1], of the units shared with the prediction. Without any reference: as
    exact_match_score."""
    if not references:
        return exact_match_score(prediction, references, f1_unit)
    given = normalize_answer(prediction, f1_unit).split()
    return max(unit_f1(given, normalize_answer(reference, f1_unit).split()) for reference in references)


def unit_f1(prediction: list[str], reference: list[str]) -> float:
    shared = sum((Counter(prediction) & Counter(reference)).values())
    if shared == 0:
        return 0.0  # as the official script: also where both are empty
    precision, recall = shared / len(prediction), shared / len(reference)
    return 2 * precision * recall / (precision + recall)


def exact_matches(predictions: Mapping[str, str], examples: Sequence[dict], f1_unit: str = "auto") -> list[bool]:
    """Whether each example's prediction is an exact match; one without a prediction is none. As compute_metrics."""
    unit = choose_f1_unit(examples, f1_unit)
    pairs = ((predictions.get(example["id"]), example["answers"]["text"]) for example in examples)
    return [given is not None and exact_match_score(given, references, unit) == 1 for given, references in pairs]


def compute_metrics(predictions: Mapping[str, str], examples: Sequence[dict], f1_unit: str = "auto") -> dict:
    """`{"exact_match", "f1", "total"}`, percentages over all examples; an example without prediction counts as 0. Where
    some have no answer, also the official SQuAD 2 script's `HasAns_exact`, `HasAns_f1`, `HasAns_total`, `NoAns_...`.

    predictions: {id: text}. examples: as extractive_qa.data.examples.read_examples gives them. f1_unit: what is
    counted, "word", "character" or "auto", as choose_f1_unit decides it. Raises TypeError where one of them is of
    another kind, ValueError where an example has no id or answers, or f1_unit is none of these.
    """
    require_kind("predictions", predictions, Mapping, "a dict {id: text}")
    for identifier, text in predictions.items():
        require_kind(f"the prediction of {short_repr(identifier)}", text, (str, type(None)), "str")
    examples = [
        with_references(number, example) for number, example in enumerate(several("examples", examples, "a list"))
    ]
    unit = choose_f1_unit(examples, f1_unit)
    scores = mean_scores(predictions, examples, unit)
    groups = {"HasAns": [], "NoAns": []}
    for example in examples:
        groups["HasAns" if example["answers"]["text"] else "NoAns"].append(example)
    if groups["NoAns"]:
        for name, some in groups.items():
            found = mean_scores(predictions, some, unit)
            scores |= {f"{name}_exact": found["exact_match"], f"{name}_f1": found["f1"], f"{name}_total": len(some)}
    return scores


def with_references(number: int, example: object) -> dict:
    """An example's id and answers, checked."""
    name = f"example {number}"
    require_fields(name, example, (), ("id", "answers"))
    require_kind(f"id of {name}", example["id"], IDS, "str")
    require_fields(f"answers of {name}", example["answers"], (), ("text",))
    texts = list(several(f"answers of {name}", example["answers"]["text"], "a list of str"))
    for text in texts:
        require_text(f"an answer of {name}", text)
    return {"id": example["id"], "answers": {"text": texts}}


def mean_scores(predictions: Mapping[str, str], examples: Sequence[dict], f1_unit: str) -> dict:
    """`{"exact_match", "f1", "total"}` as compute_metrics gives them."""
    references = [list(map(replace_surrogates, example["answers"]["text"])) for example in examples]
    given = [predictions.get(example["id"]) for example in examples]
    answered = [(replace_surrogates(p), r) for p, r in zip(given, references, strict=True) if p is not None]
    total = len(examples)
    if not answered:
        return {"exact_match": 0.0, "f1": 0.0, "total": total}
    # the metric keeps its rows in a cache file and a lock file: in a folder that goes with us
    with tempfile.TemporaryDirectory() as folder:
        metric = squad_metric(folder, f1_unit)
        scores = metric.compute(predictions=[p for p, _ in answered], references=[r for _, r in answered])
        del metric  # closes the file, which Windows won't delete otherwise
    share = len(answered) / total
    return {"exact_match": scores["exact_match"] * share, "f1": scores["f1"] * share, "total": total}


def squad_metric(cache_dir: str, f1_unit: str):
    """A metric of the library `evaluate`, nothing of it from the Hub: references are lists of texts, scores percent."""
    evaluate = import_evaluate()
    import datasets

    text = datasets.Value("string")
    features = datasets.Features({"predictions": text, "references": datasets.Sequence(text)})

    class Squad(evaluate.Metric):
        def _info(self):
            return evaluate.MetricInfo(description=__doc__, citation="Rajpurkar et al., 2016", features=features)

        def _compute(self, predictions, references):
            pairs = list(zip(predictions, references, strict=True))
            return {
                "exact_match": 100.0 * sum(exact_match_score(p, r, f1_unit) for p, r in pairs) / len(pairs),
                "f1": 100.0 * sum(f1_score(p, r, f1_unit) for p, r in pairs) / len(pairs),
            }

    return Squad(cache_dir=cache_dir, keep_in_memory=True)


def import_evaluate():
    """The library `evaluate`. A script of that name would be found first, so folders that hold an evaluate.py are
    hidden from sys.path for the length of this import."""
    path = list(sys.path)
    sys.path[:] = [entry for entry in path if not (Path(entry or ".") / "evaluate.py").is_file()]
    try:
        import evaluate
    finally:
        sys.path[:] = path
    return evaluate
