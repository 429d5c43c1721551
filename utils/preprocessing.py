"""A file of questions to sliding windows for training, cached on disk: a second training on them starts at once.

A cached file is named after everything its content depends on, so it can't be out of date, and begins with a sha256, so
a damaged one is known and written again. Anyone may delete it.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import tokenizers
from tokenizers import Tokenizer

from extractive_qa.preprocessing.features_file import load_features, save_features
from extractive_qa.preprocessing.windows import Features, first_answer, prepare_train_features
from utils.console import note, warn
from utils.offline import PROJECT_ROOT

CACHE_DIR = PROJECT_ROOT / "data" / "cache"
FORMAT = 3  # of the file, and of what windows.py puts into it: raise it with every change of either
WORTH_A_FILE = 1000  # questions: fewer are prepared in no time
KEPT = 4  # files: about 40 MB for all of SQuAD


def cached_train_features(
    examples: Sequence[dict], tokenizer: Tokenizer, max_length: int, doc_stride: int, folder: Path = CACHE_DIR
) -> Features:
    """What prepare_train_features gives, from `folder` where it was prepared before, else saved there.

    The newest few files are kept. A folder that can't be written is no error, only a warning.
    """
    if len(examples) < WORTH_A_FILE:
        return prepare_train_features(examples, tokenizer, max_length, doc_stride)
    path = folder / f"train-{features_key(examples, tokenizer, max_length, doc_stride)}.features"
    features = load_features(path)
    if features is None:
        note(f"preparing the windows of {len(examples):,} questions ...")
        features = prepare_train_features(examples, tokenizer, max_length, doc_stride)
        try:
            save_features(path, features, KEPT)
        except OSError as error:
            warn(f"the prepared windows can't be kept in {folder}: {error.strerror or error}. Going on without.")
    return features


def features_key(examples: Sequence[dict], tokenizer: Tokenizer, max_length: int, doc_stride: int) -> str:
    """A name, 40 hexadecimal digits, for what prepare_train_features makes of its arguments."""
    model = tokenizer.to_str()
    digest = hashlib.sha256(f"{FORMAT} {tokenizers.__version__} {max_length} {doc_stride} {len(model)}\n".encode())
    digest.update(model.encode())
    numbers = {}  # of the contexts: each is hashed once
    for example in examples:
        question, context = example["question"], example["context"]
        start, answer = first_answer(example)
        known = context in numbers
        number = numbers.setdefault(context, len(numbers))
        # each text after its length, so that no two lists of examples read the same
        head = f"{number} {len(context)} {len(question)} {start} {len(answer)}\n"
        text = head + question + ("" if known else context)
        digest.update(text.encode("utf-8", "surrogatepass"))
    return digest.hexdigest()[:40]
