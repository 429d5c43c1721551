"""Training questions with more text around their context, so that a model learns to pass over what does not answer."""

import random
from collections.abc import Sequence

import numpy as np

MOST_JOINED = 4  # contexts, the question's own among them


def join_contexts(examples: Sequence[dict], share: float, seed: int) -> tuple[list[dict], np.ndarray]:
    """The examples, a `share` of them asked of two to four neighbouring contexts in place of their own, as if these
    followed one another in one text. Neighbours are those next to it in `examples`: of SQuAD the paragraphs of the same
    article. A question without an answer keeps its context: a neighbour might have the answer.

    Returns them in their order, and int64 (Q,) how many characters stand before each one's own context now.
    """
    draw = random.Random(seed)
    contexts = list(dict.fromkeys(example["context"] for example in examples))
    place_of = {context: place for place, context in enumerate(contexts)}
    joined, moved = list(examples), np.zeros(len(examples), dtype=np.int64)
    for number, example in enumerate(examples):
        if draw.random() < share and example["answers"]["text"]:
            count = draw.randint(2, MOST_JOINED)
            first = place_of[example["context"]] - draw.randrange(count)
            joined[number], moved[number] = among_neighbours(example, contexts, first, count)
    return joined, moved


def among_neighbours(example: dict, contexts: Sequence[str], first: int, count: int) -> tuple[dict, int]:
    """The example asked of `count` contexts from number `first` on, or those nearest to them where that passes either
    end; and how many characters stand before its own context."""
    first = max(0, min(first, len(contexts) - count))
    some = contexts[first : first + count]
    moved = sum(len(context) + 1 for context in some[: some.index(example["context"])])
    answers = example["answers"]
    starts = [start + moved for start in answers["answer_start"]]
    return example | {"context": "\n".join(some), "answers": answers | {"answer_start": starts}}, moved
