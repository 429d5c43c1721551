"""Exact match and F1 as SQuAD v1.1's official script defines them, through the library `evaluate`.

Source of the definition: Rajpurkar et al., 2016 (arXiv 1606.05250), and the evaluation script published with the data:
lower-case, drop ASCII punctuation, drop the articles a, an, the, collapse white space; then equality, or the harmonic
mean of precision and recall over the bags of words; of several references the best counts.
"""

import re
import string
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

PUNCTUATION = str.maketrans("", "", string.punctuation)
ARTICLES = re.compile(r"\b(a|an|the)\b")


def normalize_answer(text: str) -> str:
    """The form in which answers are compared."""
    return " ".join(ARTICLES.sub(" ", text.lower().translate(PUNCTUATION)).split())


def exact_match_score(prediction: str, references: Sequence[str]) -> float:
    """1.0 where the prediction equals one of the references after normalization, else 0.0. A question without any
    reference has no answer, as in SQuAD 2: there "" is right."""
    references = references or [""]
    return float(any(normalize_answer(prediction) == normalize_answer(reference) for reference in references))


def f1_score(prediction: str, references: Sequence[str]) -> float:
    """The best F1 over the references, in [0, 1], of the words shared with the prediction. Without any reference: as
    exact_match_score."""
    if not references:
        return exact_match_score(prediction, references)
    return max(word_f1(normalize_answer(prediction).split(), normalize_answer(r).split()) for r in references)


def word_f1(prediction: list[str], reference: list[str]) -> float:
    shared = sum((Counter(prediction) & Counter(reference)).values())
    if shared == 0:
        return 0.0  # as the official script: also where both are empty
    precision, recall = shared / len(prediction), shared / len(reference)
    return 2 * precision * recall / (precision + recall)


def exact_matches(predictions: Mapping[str, str], examples: Sequence[dict]) -> list[bool]:
    """Whether each example's prediction is an exact match; one without a prediction is none. As compute_metrics."""
    return [
        example["id"] in predictions and exact_match_score(predictions[example["id"]], example["answers"]["text"]) == 1
        for example in examples
    ]


def compute_metrics(predictions: Mapping[str, str], examples: Sequence[dict]) -> dict:
    """`{"exact_match", "f1", "total"}`, percentages over all examples; an example without prediction counts as 0. Where
    some have no answer, also the official SQuAD 2 script's `HasAns_exact`, `HasAns_f1`, `HasAns_total`, `NoAns_...`.

    predictions: {id: text}. examples: as extractive_qa.data.examples.read_examples gives them.
    """
    scores = mean_scores(predictions, examples)
    groups = {"HasAns": [], "NoAns": []}
    for example in examples:
        groups["HasAns" if example["answers"]["text"] else "NoAns"].append(example)
    if groups["NoAns"]:
        for name, some in groups.items():
            found = mean_scores(predictions, some)
            scores |= {f"{name}_exact": found["exact_match"], f"{name}_f1": found["f1"], f"{name}_total": len(some)}
    return scores


def mean_scores(predictions: Mapping[str, str], examples: Sequence[dict]) -> dict:
    """`{"exact_match", "f1", "total"}` as compute_metrics gives them."""
    references = [example["answers"]["text"] for example in examples]
    given = [predictions.get(example["id"]) for example in examples]
    answered = [(p, r) for p, r in zip(given, references, strict=True) if p is not None]
    total = len(examples)
    if not answered:
        return {"exact_match": 0.0, "f1": 0.0, "total": total}
    # the metric keeps its rows in a cache file and a lock file: in a folder that goes with us
    with tempfile.TemporaryDirectory() as folder:
        metric = squad_metric(folder)
        scores = metric.compute(predictions=[p for p, _ in answered], references=[r for _, r in answered])
        del metric  # closes the file, which Windows won't delete otherwise
    share = len(answered) / total
    return {"exact_match": scores["exact_match"] * share, "f1": scores["f1"] * share, "total": total}


def squad_metric(cache_dir: str):
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
                "exact_match": 100.0 * sum(exact_match_score(p, r) for p, r in pairs) / len(pairs),
                "f1": 100.0 * sum(f1_score(p, r) for p, r in pairs) / len(pairs),
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
