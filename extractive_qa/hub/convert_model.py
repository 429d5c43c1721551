"""A model as it is published into a folder that every script reads: weights as float32 safetensors, and a tokenizer
that lower-cases, loaded once to see that they fit. Nothing of what was published can run code."""

import gc
import json
import logging
import shutil
from pathlib import Path

from tokenizers import BertWordPieceTokenizer, Tokenizer
from tokenizers.models import WordPiece

from extractive_qa.errors import QAError, brief
from extractive_qa.hub.sources import MODEL_REPOS
from extractive_qa.model.convert import read_weights, save_weights
from extractive_qa.model.folder import WEIGHTS
from extractive_qa.model.loading import load_encoder

logger = logging.getLogger(__name__)


def save_model(part: str, files: dict[str, Path], source: str, folder: Path) -> None:
    """Makes a model folder of the `files` of one of MODEL_REPOS: config.json, the weights, the tokenizer.

    files: {name: path}. source: where they came from, for errors. folder: empty, or not there yet.
    Raises QAError where the files can't be read, don't fit each other or are another model's, OSError or
    SafetensorError where the folder can't be written.
    """
    logger.info(f"{part}: converting and checking")
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("config.json", "vocab.txt", "tokenizer.json"):
        if name in files:
            shutil.copyfile(files[name], folder / name)
    save_tokenizer(part, folder)
    again = f"Delete it, then run: python download_data.py --only {part}"
    save_weights(read_weights(files.get(WEIGHTS) or files["pytorch_model.bin"], again), folder)
    check_model(part, folder, source)


def save_tokenizer(part: str, folder: Path) -> None:
    """Makes sure that tokenizer.json lower-cases, as it must here; else, or without one, builds it from vocab.txt.

    Writes tokenizer_config.json too: the repository has none, and what a library assumes without it changes.
    Raises QAError where vocab.txt and tokenizer.json can't be read or don't hold the same number of words.
    """
    path = folder / "tokenizer.json"
    try:
        vocab = WordPiece.read_file(str(folder / "vocab.txt"))
        tokenizer = Tokenizer.from_file(str(path)) if path.is_file() else None
        normalizer = tokenizer and tokenizer.normalizer
        made = None
        if normalizer is None or normalizer.normalize_str("CAFÉ") != "cafe":
            tokenizer = made = BertWordPieceTokenizer(vocab, lowercase=True)
        words = tokenizer.get_vocab_size()
        problem = None if words == len(vocab) else f"hold {len(vocab):,} and {words:,} words"
    except Exception as error:  # the library raises nothing narrower
        problem = f"can't be read ({brief(error)})"
    if problem:
        raise QAError(f"vocab.txt and tokenizer.json {problem}. {_remedy(part, ' (vocab.txt is enough)')}")
    if made:
        path.write_text(made.to_str(pretty=True), encoding="utf-8")
    kind = "BertTokenizer" if part == "teacher" else "MobileBertTokenizer"
    settings = {"tokenizer_class": kind, "do_lower_case": True, "model_max_length": 512}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def check_model(part: str, folder: Path, source: str) -> None:
    """Loads the folder as train.py will. Raises QAError where weights of the encoder, or the output layer of a
    teacher, or words are missing."""
    from transformers import AutoTokenizer

    model, missing = load_encoder(folder, _remedy(part))
    problems = ["was not trained to answer questions"] if part == "teacher" and missing else []
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        problems.append(f"has a tokenizer that can't be loaded ({brief(error)})")
    else:
        if len(tokenizer) != model.config.vocab_size:
            problems.append(f"has {len(tokenizer):,} words for {model.config.vocab_size:,} embeddings")
        if tokenizer.tokenize("CAFÉ") != tokenizer.tokenize("cafe"):
            problems.append("has a tokenizer that doesn't lower-case")
    del model
    gc.collect()  # it maps its file, and Windows can't rename the folder until then
    if problems:
        raise QAError(f"The model ({source}) {' and '.join(problems)}. {_remedy(part)}")


def _remedy(part: str, enough: str = "") -> str:
    by_hand = f"Files that were put there by hand must be replaced{enough}."
    return f"Expected the files of {MODEL_REPOS[part]}. {by_hand} Then run: python download_data.py --only {part}"
