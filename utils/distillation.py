"""What teachers say of the training windows, computed once and kept, and the loss that has a student learn it.

A teacher is any model folder that answers questions: `train.py --teacher_dir`. Where its tokenizer is another one than
the student's, it reads the text of each of the student's windows in its own tokens, and what it says of a place in the
text holds for the student's token that begins (or ends) there. Its start and end scores of every token are kept as
log-probabilities in half precision, 4 bytes a token (about 60 MB for all of SQuAD), beside the prepared windows, named
after everything they depend on. Training then needs no teacher in memory.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch

from utils import feature_cache
from utils.batches import length_sorted_batches
from utils.console import progress, warn
from utils.families import usable_positions
from utils.feature_cache import CACHE_DIR, as_arrays, map_checked, save_checked
from utils.files import read_json_object
from utils.offline import require_model
from utils.reader import Reader
from utils.windows import Features, load_tokenizer, prepare_train_features, prepare_validation_features

FORMAT = 2  # of what is kept: raise it with every change of it, of windows.py's windows or of the padding rule
KEPT = 8  # files: one a teacher
BATCH = 8  # windows at once: BERT-large stays under 4 GB with them
REMEDY = "Run: python download_data.py --teacher, or give a folder that train.py has written (output/final_model)"


class Teachers:
    """What T teachers say of N training windows, each window's log-probabilities in the T arrays."""

    def __init__(self, features: Features, log_probabilities: Sequence[np.ndarray], identities: list[str]):
        self.identities = identities  # of their folders
        self.splits = token_splits(features)  # window i has the tokens splits[i] to splits[i + 1]
        self.log_probabilities = log_probabilities  # T of float16 (tokens of all windows, 2): start, end

    def probabilities(self, indices: Sequence[int], length: int, temperature: float) -> np.ndarray:
        """The mean of the teachers' probabilities of windows `indices`, float32 (2, B, length), start and end. Each
        sums to 1 over its window's tokens and is 0 behind them.

        Probabilities are averaged, not their logarithms: to be taught by the mean is to be taught by each teacher in
        equal parts (the mean of the cross-entropies is that against the mean), and where they disagree every answer
        keeps its share. The mean of the logarithms lets any one teacher rule an answer out.
        """
        targets = np.zeros((2, len(indices), length), dtype=np.float32)
        for row, i in enumerate(indices):
            tokens = slice(self.splits[i], self.splits[i + 1])
            for kept in self.log_probabilities:
                scores = log_softmax(kept[tokens].T.astype(np.float32) / temperature)
                targets[:, row, : scores.shape[1]] += np.exp(scores) / len(self.log_probabilities)
        return targets


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


def token_splits(features: Features) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(features.lengths)])


def ask_teachers(
    teacher_dirs: Sequence[Path], examples: Sequence[dict], features: Features, max_length: int, doc_stride: int,
    device: str, precision: str, folder: Path = CACHE_DIR,
) -> Teachers:  # fmt: skip
    """What the models of `teacher_dirs` say of the windows `features` that were made of `examples`: read from `folder`
    where it was kept there, else computed, one teacher in memory at a time, and kept.

    precision: "no" or "bf16". Raises UserError for a folder that can't answer.
    """
    settings = {"max_length": max_length, "doc_stride": doc_stride}
    windows, said = windows_key(examples, features, max_length), []
    identities = [identity(path) for path in teacher_dirs]
    for teacher_dir, teacher in zip(teacher_dirs, identities, strict=True):
        name = hashlib.sha256(f"{windows} {teacher} {precision}".encode()).hexdigest()[:40]
        path = folder / f"train-{name}.teacher"
        kept = map_checked(path)
        if kept is None:
            if cuts_the_same(teacher_dir, examples, features, settings):
                # a teacher of this project has window settings of its own: it is asked about the student's windows
                reader = Reader(teacher_dir, device, precision, backend="torch", settings=settings)
                kept = log_probabilities(reader, features)
            else:
                config = read_json_object(teacher_dir / "config.json", "a model's settings")
                longest = {"max_length": min(usable_positions(config) or 512, 512)}  # a window's text in other tokens
                reader = Reader(teacher_dir, device, precision, backend="torch", settings=settings | longest)
                kept = carried_over(reader, examples, features)
            del reader  # the next one, or the student, needs the memory
            if len(features) >= feature_cache.WORTH_A_FILE:
                try:
                    save_checked(path, [kept], KEPT)
                except OSError as error:
                    reason = error.strerror or error
                    warn(f"the teacher's answers can't be kept in {folder}: {reason}. Going on without.")
        said.append(kept)
    if device.startswith("cuda"):
        torch.cuda.empty_cache()
    return Teachers(features, said, identities)


def log_probabilities(reader: Reader, features: Features) -> np.ndarray:
    """float16 (tokens of all windows, 2): the logarithms of the probabilities that `reader` gives each token of a
    window to be start and end. Raises UserError where they are not finite."""
    splits = token_splits(features)
    kept = np.empty((splits[-1], 2), dtype=np.float16)
    for i, logits in asked(reader, features):
        kept[splits[i] : splits[i + 1]] = in_half(log_softmax(logits)).T
    return kept


def carried_over(reader: Reader, examples: Sequence[dict], features: Features) -> np.ndarray:
    """As log_probabilities, from a reader that cuts other tokens: [CLS] has what it gives its own, a token of the
    context what it gives its token that begins (for the start) or ends (for the end) at the same character, all else
    nothing. Where a window's text is more than one window to the reader, each place counts where it scores best."""
    splits, offsets, pieces = token_splits(features), [], []
    for row in features:
        context = row["offsets"][row["context_start"] : row["context_end"]]
        begin, end = (context[0, 0], context[-1, 1]) if len(context) else (0, 0)
        example = examples[row["example_index"]]
        pieces.append({"question": example["question"], "context": example["context"][begin:end]})
        offsets.append(row["offsets"] - begin * (row["offsets"] >= 0))
    settings = reader.settings["max_length"], reader.settings["doc_stride"]
    theirs = prepare_validation_features(pieces, reader.tokenizer, *settings)
    scores = np.full((splits[-1], 2), -np.inf, dtype=np.float32)
    no_answer = np.full((len(features), 2), np.inf, dtype=np.float32)
    for window, logits in asked(reader, theirs):
        row, i = theirs[window], theirs.example_index[window]
        no_answer[i] = np.minimum(no_answer[i], logits[:, 0])  # it is elsewhere only if no piece of the text has it
        own = scores[splits[i] : splits[i + 1]]
        for side in range(2):
            places, mine, other = np.intersect1d(offsets[i][:, side], row["offsets"][:, side], return_indices=True)
            mine, other = mine[places >= 0], other[places >= 0]  # -1: no place in the context
            own[mine, side] = np.maximum(own[mine, side], logits[side, other])
    scores[splits[:-1]] = no_answer
    kept = np.empty(scores.shape, dtype=np.float16)
    for begin, end in pairwise(splits):
        kept[begin:end] = in_half(log_softmax(scores[begin:end].T)).T
    return kept


def asked(reader: Reader, features: Features) -> Iterator[tuple[int, np.ndarray]]:
    """Every window's number and the reader's logits of it, (2, tokens), start and end. Windows of like length together,
    so not in their order."""
    questions = replace(features, start_position=None, end_position=None)
    batches = length_sorted_batches(features.lengths, BATCH)
    for windows in progress(batches, desc=f"asking {reader.model_dir.name}", unit=" batches", leave=False):
        rows, *logits = reader.logits(questions, windows)
        for i, row, *scores in zip(windows, rows, *logits, strict=True):
            yield i, np.stack(scores)[:, : len(row["input_ids"])]


def in_half(log_probabilities: np.ndarray) -> np.ndarray:
    """What half precision can hold, from -65,504 on: nothing so improbable can be learned from."""
    return np.maximum(log_probabilities, -6e4).astype(np.float16)


def identity(teacher_dir: Path) -> str:
    """A name, 64 hexadecimal digits, for a model folder whose files decide what it says."""
    folder = require_model(teacher_dir, REMEDY)
    digest = hashlib.sha256()
    for path in (folder / "config.json", folder / "tokenizer.json", *sorted(folder.glob("*.safetensors"))):
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def windows_key(examples: Sequence[dict], features: Features, max_length: int) -> str:
    """A name, 64 hexadecimal digits, for what a teacher is asked."""
    digest = hashlib.sha256(f"{FORMAT} {max_length}\n".encode())
    for example in examples:  # another tokenizer may see what the student's does not: case, accents
        digest.update(repr((example["question"], example["context"])).encode("utf-8", "surrogatepass"))
    for array in as_arrays(features)[:-2]:  # where the answers are is nothing to a teacher
        digest.update(f"{array.dtype} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array))
    return digest.hexdigest()


def cuts_the_same(teacher_dir: Path, examples: Sequence[dict], features: Features, settings: dict) -> bool:
    """Whether the teacher's tokenizer makes of the `examples` the windows `features`."""
    theirs = prepare_train_features(examples, load_tokenizer(teacher_dir), **settings)
    pairs = zip(as_arrays(theirs), as_arrays(features), strict=True)
    return all(np.array_equal(one, other) for one, other in pairs)
