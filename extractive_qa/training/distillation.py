"""What teachers say of the training questions, asked once and kept, and the loss that has a student learn it.

A teacher is any model folder that answers questions: `train.py --teacher_dir`. It reads each question in its own tokens
and windows. What is kept of it are the characters of the context where it would most likely begin an answer, and end
one, with their log-probabilities in half precision: about 60 bytes a question, so that a student with other tokens or
other windows learns from the same file, a subset of the questions needs no asking, and more questions only that of the
new ones. Training then needs no teacher in memory, nor on the computer: the file may be copied to another one.
"""

import gc
import hashlib
import io
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch

from extractive_qa.errors import QAError
from extractive_qa.files.atomic import open_checked, save_checked
from extractive_qa.files.manifest import sha256_of
from extractive_qa.model.folder import files_that_decide, require_model
from extractive_qa.preprocessing.batches import length_sorted_batches
from extractive_qa.preprocessing.windows import Features, prepare_validation_features
from extractive_qa.progress import NoProgress
from extractive_qa.reader import Reader

logger = logging.getLogger(__name__)

FORMAT = 3  # of what is kept: raise it with every change of it, of windows.py's windows or of the padding rule
KEPT = 8  # files: one a teacher
PLACES = 8  # a question's starts that are kept, and its ends: "no answer", and the likeliest
BATCH = 8  # windows at once: BERT-large stays under 4 GB with them
SAVED_EVERY = 2000  # questions: no more are asked again where the asking was interrupted
LEAST = -6e4  # a log-probability that half precision can hold: nothing so improbable can be learned from


@dataclass(frozen=True)
class Answers:
    """What a teacher says of N questions: the `PLACES` likeliest of each, start and end, in the order of probability
    but for the first, "no answer"."""

    keys: np.ndarray  # uint64 (N,), rising: of the questions
    places: np.ndarray  # int32 (N, 2, PLACES): characters into the context, the end exclusive; -1: no answer, or none
    scores: np.ndarray  # float16 (N, 2, PLACES): log-probabilities

    @classmethod
    def none(cls) -> "Answers":
        shape = 0, 2, PLACES
        return cls(np.zeros(0, dtype=np.uint64), np.zeros(shape, dtype=np.int32), np.zeros(shape, dtype=np.float16))

    def joined(self, keys: np.ndarray, places: np.ndarray, scores: np.ndarray) -> "Answers":
        """These and those of more questions."""
        keys, first = np.unique(np.concatenate([self.keys, keys]), return_index=True)
        return Answers(keys, np.concatenate([self.places, places])[first], np.concatenate([self.scores, scores])[first])

    def of(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """places and scores of questions that are all here."""
        rows = np.searchsorted(self.keys, keys)
        return self.places[rows], self.scores[rows]

    def save(self, path: Path) -> None:
        """Raises OSError where that can't be done."""
        content = io.BytesIO()
        np.savez_compressed(content, format=FORMAT, **vars(self))
        save_checked(path, lambda file: file.write(content.getbuffer()), KEPT)

    @classmethod
    def load(cls, path: Path) -> "Answers | None":
        """What `save` wrote; None where there is no such file, or it can't be read, is damaged or of another format."""
        if (file := open_checked(path)) is None:
            return None
        try:
            with file, np.load(io.BytesIO(file.read()), allow_pickle=False) as archive:
                arrays = dict(archive)
            return cls(**arrays) if arrays.pop("format") == FORMAT else None
        except (KeyError, TypeError, ValueError, BadZipFile):  # another kind of file
            return None


class Teachers:
    """What T teachers say of the questions of `features`: each one's places and scores, as Answers has them."""

    def __init__(self, features: Features, said: Sequence[tuple[np.ndarray, np.ndarray]], identities: list[str]):
        self.features, self.said, self.identities = features, said, identities  # identities: of their files

    def know(self, indices: Sequence[int]) -> np.ndarray:
        """Which windows they were asked of, bool (B,): not of those behind `features`."""
        return np.asarray(indices) < len(self.features)

    def probabilities(self, indices: Sequence[int], length: int, temperature: float) -> np.ndarray:
        """The mean of the teachers' probabilities of windows `indices`, float32 (2, B, length), start and end, each of
        which sums to 1: what lies outside a window is its [CLS]'s, as in the labels, and so is the token of a place.
        All 0 where they don't know a window.

        Probabilities are averaged, not their logarithms: to be taught by the mean is to be taught by each teacher in
        equal parts (the mean of the cross-entropies is that against the mean), and where they disagree every answer
        keeps its share. The mean of the logarithms lets any one teacher rule an answer out.
        """
        targets = np.zeros((2, len(indices), length), dtype=np.float32)
        for row in np.flatnonzero(self.know(indices)):
            window = self.features[indices[row]]
            context = window["offsets"][window["context_start"] : window["context_end"]]
            question = window["example_index"]
            for places, scores in self.said:
                share = np.exp(log_softmax(scores[question].astype(np.float32) / temperature)) / len(self.said)
                for side, (tokens, inside) in enumerate(tokens_at(places[question], context)):
                    np.add.at(targets[side, row], window["context_start"] + tokens[inside], share[side, inside])
                    targets[side, row, 0] += share[side, ~inside].sum()
        return targets


def tokens_at(places: np.ndarray, context: np.ndarray) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
    """For the starts and for the ends of `places`, (2, P): the tokens of a window's context, given its offsets (C, 2),
    where an answer from the start, or to the end, would be labelled, and which of them lie in the window."""
    if not len(context):
        return ((places[0], np.zeros(places.shape[1], dtype=bool)),) * 2
    begins, ends = context.T
    starts = np.searchsorted(ends, places[0], side="right"), (begins[0] <= places[0]) & (places[0] < ends[-1])
    return starts, (np.searchsorted(begins, places[1]) - 1, (begins[0] < places[1]) & (places[1] <= ends[-1]))


def distillation_losses(
    start_logits: torch.Tensor, end_logits: torch.Tensor, targets: torch.Tensor, attention_mask: torch.Tensor,
    temperature: float,
) -> torch.Tensor:  # fmt: skip
    """How far each window's answer is from its teachers', (B,): the Kullback-Leibler divergence of softmax(logits /
    temperature) from `targets` (2, B, L), the mean over start and end. Times temperature², so that its gradients are of
    the size of the labels' (Hinton et al., 2015, arXiv 1503.02531). Padding takes no part."""
    logits = torch.stack([start_logits, end_logits]).float() / temperature  # (2, B, L)
    padding = attention_mask == 0
    log_probabilities = logits.masked_fill(padding, -torch.inf).log_softmax(-1).masked_fill(padding, 0)
    divergence = torch.nn.functional.kl_div(log_probabilities, targets, reduction="none").sum(-1)  # (2, B)
    return temperature**2 * divergence.mean(0)


def log_softmax(scores: np.ndarray) -> np.ndarray:
    """Over the last axis."""
    scores = scores - scores.max(-1, keepdims=True)
    return scores - np.log(np.exp(scores).sum(-1, keepdims=True))


def teacher_predictions(
    teachers: Sequence[Path], examples: Sequence[dict], features: Features, device: str, precision: str,
    folder: Path, keep: bool = True, moved: np.ndarray | int = 0, progress: Callable = NoProgress,
) -> Teachers:  # fmt: skip
    """What `teachers`, model folders or files of answers, say of the windows `features` that were made of `examples`.

    A folder's answers are read where `folder` has them; the models of all others are asked, one in memory at a time,
    and where `keep` is set their answers are kept there. precision: "no" or "bf16". moved: int (Q,), how many
    characters stand before each example's context in the one that its windows were made of. Raises QAError for a folder
    that can't answer, and for a file that is none or lacks a question."""
    keys = question_keys(examples)
    read = [
        from_file(t, keys) if t.is_file() else from_model(t, examples, keys, device, precision, folder, keep, progress)
        for t in teachers
    ]
    gc.collect()  # a teacher that was asked may be held by frames that hold each other
    if device.startswith("cuda"):
        torch.cuda.empty_cache()
    said = [answers.of(keys) for answers, _ in read]
    moved = np.reshape(moved, (-1, 1, 1))
    said = [(np.where(places >= 0, places + moved, -1), scores) for places, scores in said]
    return Teachers(features, said, [identity for _, identity in read])


def from_file(path: Path, keys: np.ndarray) -> tuple[Answers, str]:
    """The answers in a file that was kept, maybe on another computer, and their identity."""
    expected = "Expected a file that train.py --teacher_dir has written into data/cache. Copy it again"
    if (answers := Answers.load(path)) is None:
        raise QAError(f"{path} is no file of a teacher's answers, or damaged. {expected}.")
    if lacking := int((~np.isin(keys, answers.keys)).sum()):
        raise QAError(
            f"{path} has no answers to {lacking:,} of {len(keys):,} training questions. {expected}, or give the "
            "teacher's folder."
        )
    return answers, sha256_of(path)


def from_model(
    teacher_dir: Path, examples: Sequence[dict], keys: np.ndarray, device: str, precision: str,
    folder: Path, keep: bool = True, progress: Callable = NoProgress,
) -> tuple[Answers, str]:  # fmt: skip
    """The answers of a model, which is asked where none are kept, and its identity."""
    who = identity(teacher_dir)
    path = folder / f"{hashlib.sha256(f'{FORMAT} {who} {precision}'.encode()).hexdigest()[:40]}.teacher"
    answers = Answers.load(path) or Answers.none()
    _, new = np.unique(keys, return_index=True)
    new = new[~np.isin(keys[new], answers.keys)]
    if not len(new):
        return answers, who
    reader = Reader(teacher_dir, device, precision, backend="torch")
    settings = reader.settings["max_length"], reader.settings["doc_stride"]
    features = prepare_validation_features([examples[i] for i in new], reader.tokenizer, *settings)
    with progress(total=len(features), desc=f"asking {teacher_dir.name}", unit=" windows", leave=False) as bar:
        for begin in range(0, len(new), SAVED_EVERY):
            end = min(begin + SAVED_EVERY, len(new))
            answers = answers.joined(keys[new[begin:end]], *likeliest(reader, features, begin, end, bar))
            if keep:
                try:
                    answers.save(path)
                except OSError as error:
                    reason = error.strerror or error
                    logger.warning(f"the teacher's answers can't be kept in {folder}: {reason}. Going on without.")
                    keep = False
    return answers, who


def likeliest(reader: Reader, features: Features, begin: int, end: int, bar) -> tuple[np.ndarray, np.ndarray]:
    """places and scores, as Answers has them, of the questions `begin` to `end` (exclusive) of the reader's own
    windows. Where a question has several windows, each place counts where it scores best, and "no answer" where it
    scores worst: the answer is elsewhere only if no window has it."""
    splits = np.searchsorted(features.example_index, np.arange(begin, end + 1))
    logits = {}
    for batch in length_sorted_batches(features.lengths[splits[0] : splits[-1]], BATCH):
        windows = splits[0] + np.asarray(batch)
        rows, *scores = reader.logits(features, windows)
        for window, row, *both in zip(windows, rows, *scores, strict=True):
            context = slice(row["context_start"], row["context_end"])
            logits[window] = row["offsets"][context], [side[context] for side in both], [side[0] for side in both]
        bar.update(len(windows))
    places = np.full((end - begin, 2, PLACES), -1, dtype=np.int32)
    kept = np.full(places.shape, LEAST, dtype=np.float16)
    for question, (first, last) in enumerate(pairwise(splits)):
        offsets, scores, no_answer = zip(*(logits[window] for window in range(first, last)), strict=True)
        for side in range(2):
            at = np.concatenate(offsets)[:, side]
            score = np.concatenate([both[side] for both in scores])
            best_first = np.argsort(-score, kind="stable")
            at, unique = np.unique(at[best_first], return_index=True)
            score = log_softmax(np.append(min(both[side] for both in no_answer), score[best_first][unique]))
            best = np.argsort(-score[1:], kind="stable")[: PLACES - 1]
            places[question, side, 1 : 1 + len(best)] = at[best]
            kept[question, side, : 1 + len(best)] = np.maximum(score[[0, *(1 + best)]], LEAST)
    return places, kept


def question_keys(examples: Sequence[dict]) -> np.ndarray:
    """uint64 (Q,): a number for a question and its context."""
    texts = (f"{len(example['question'])} {example['question']}{example['context']}" for example in examples)
    digests = (hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:8] for text in texts)
    return np.frombuffer(b"".join(digests), dtype="<u8")


def identity(teacher_dir: Path) -> str:
    """A name, 64 hexadecimal digits, for a model folder whose files decide what it says."""
    require_model(teacher_dir)
    digests = [bytes.fromhex(sha256_of(path)) for path in files_that_decide(teacher_dir)]
    return hashlib.sha256(b"".join(digests)).hexdigest()
