"""What teachers say of the training windows, computed once and kept, and the loss that has a student learn it.

A teacher is any model folder that answers questions and cuts the same windows: `train.py --teacher_dir`. Its start and
end scores of every token are kept as log-probabilities in half precision, 4 bytes a token (about 60 MB for all of
SQuAD), beside the prepared windows, named after everything they depend on. Training then needs no teacher in memory.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from utils import feature_cache
from utils.batches import length_sorted_batches
from utils.console import UserError, progress, warn
from utils.feature_cache import CACHE_DIR, as_arrays, map_checked, save_checked
from utils.offline import require_model
from utils.reader import Reader
from utils.windows import Features, load_tokenizer, prepare_train_features

FORMAT = 1  # of what is kept: raise it with every change of it, of windows.py's windows or of the padding rule
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

    precision: "no" or "bf16". Raises UserError for a folder that can't answer, or cuts other windows.
    """
    settings = {"max_length": max_length, "doc_stride": doc_stride}
    windows, identities, said = windows_key(features, max_length), [identity(path) for path in teacher_dirs], []
    for teacher_dir, teacher in zip(teacher_dirs, identities, strict=True):
        name = hashlib.sha256(f"{windows} {teacher} {precision}".encode()).hexdigest()[:40]
        path = folder / f"train-{name}.teacher"
        kept = map_checked(path)
        if kept is None:
            require_same_windows(teacher_dir, examples, features, settings)
            # a teacher of this project has window settings of its own: it is asked about the student's windows
            reader = Reader(teacher_dir, device, precision, backend="torch", settings=settings)
            kept = log_probabilities(reader, features)
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
    questions = replace(features, start_position=None, end_position=None)
    batches = length_sorted_batches(features.lengths, BATCH)
    for windows in progress(batches, desc=f"asking {reader.model_dir.name}", unit=" batches", leave=False):
        rows, *logits = reader.logits(questions, windows)
        for i, row, *scores in zip(windows, rows, *logits, strict=True):
            found = log_softmax(np.stack(scores)[:, : len(row["input_ids"])])
            # -65,504 is the least that half precision holds; nothing so improbable can be learned from
            kept[splits[i] : splits[i + 1]] = np.maximum(found, -6e4).T
    return kept


def identity(teacher_dir: Path) -> str:
    """A name, 64 hexadecimal digits, for a model folder whose files decide what it says."""
    folder = require_model(teacher_dir, REMEDY)
    digest = hashlib.sha256()
    for path in (folder / "config.json", folder / "tokenizer.json", *sorted(folder.glob("*.safetensors"))):
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def windows_key(features: Features, max_length: int) -> str:
    """A name, 64 hexadecimal digits, for what a teacher is asked."""
    digest = hashlib.sha256(f"{FORMAT} {max_length}\n".encode())
    for array in as_arrays(features)[:-2]:  # where the answers are is nothing to a teacher
        digest.update(f"{array.dtype} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array))
    return digest.hexdigest()


def require_same_windows(teacher_dir: Path, examples: Sequence[dict], features: Features, settings: dict) -> None:
    """Raises UserError where the teacher's tokenizer makes other windows than `features` of the `examples`."""
    theirs = prepare_train_features(examples, load_tokenizer(teacher_dir), **settings)
    pairs = zip(as_arrays(theirs), as_arrays(features), strict=True)
    if not all(np.array_equal(one, other) for one, other in pairs):
        raise UserError(
            f"--teacher_dir {teacher_dir} cuts these questions and contexts into other tokens than --model_dir does: "
            "its tokenizer is another one. Expected a model with the same vocabulary. Leave it out, or take a teacher "
            "of the same family (for google/mobilebert-uncased: an uncased English BERT)."
        )
