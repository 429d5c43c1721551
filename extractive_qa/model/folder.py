"""A model's folder: which files it needs, and that it leads nowhere else."""

import re
from collections.abc import Iterator
from math import isfinite
from pathlib import Path

from extractive_qa.errors import QAError
from extractive_qa.files.manifest import stays_inside
from extractive_qa.files.reading import read_json_object, require
from extractive_qa.text import as_argument

SETTINGS_FILE = "reader.json"
ONNX_MANIFEST = "onnx.json"
# where transformers.js and others look for an exported model on the Hub; "auto" takes the first that is there
ONNX_FILES = {"int8": "onnx/model_quantized.onnx", "no": "onnx/model.onnx"}
EARLIER_ONNX_FILES = {"int8": "model.int8.onnx", "no": "model.onnx"}  # read, but written no more
FINE_TUNE = "Fine-tune it first."
MODEL_FOLDER = "a model folder (config.json, model.safetensors, tokenizer.json)"
HUB_NAME = re.compile(r"[A-Za-z][\w-]+/[\w.-]+")
JIEBA = "RoFormerTokenizer"  # what transformers takes for a RoFormer where nothing is said
WEIGHTS = "model.safetensors"
PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json")
# a tokenizer as Python libraries of its own read it, which tools/convert_model.py turns into tokenizer.json
OLDER_TOKENIZERS = ("vocab.txt", "vocab.json", "spiece.model", "spm.model", "sentencepiece.bpe.model")


def require_folder(model_dir: str | Path, remedy: str = FINE_TUNE) -> Path:
    """The folder, where it is there. Raises QAError, with the `remedy`, or with how to get what seems to be a name on
    the Hub."""
    name = Path(model_dir).as_posix()
    owner, _, rest = name.partition("/")
    if HUB_NAME.fullmatch(name) and not Path(owner).exists() and owner not in ("output", "models"):
        remedy = f"Names on the Hub are not looked up. Get it first: hf download {name} --local-dir models/{rest}"
    return require(model_dir, MODEL_FOLDER, remedy)


def require_model(model_dir: str | Path, remedy: str = FINE_TUNE) -> dict:
    """What config.json says in a folder that holds config, weights (safetensors) and tokenizer, and needs nothing else.

    Raises QAError naming the files that are missing, or what leads out of the folder. Weights in other formats are
    pickles and are not read.
    """
    folder = require_folder(model_dir, remedy)
    missing = [name for name in ("config.json", "tokenizer.json") if not (folder / name).is_file()]
    if not any(folder.glob("*.safetensors")):
        missing.append(WEIGHTS)
    if missing:
        older = next((name for name in OLDER_TOKENIZERS if (folder / name).is_file()), None)
        pickle = next((name for name in PICKLES if (folder / name).is_file()), None)
        others = {"tokenizer.json": older, WEIGHTS: pickle}
        if all(others.get(name) for name in missing):
            remedy = f"Run: python tools/convert_model.py {as_argument(folder)} {as_argument(f'{folder}-converted')}"
        if older and "tokenizer.json" in missing:
            missing[missing.index("tokenizer.json")] += f" (its tokenizer is in an older form, {older})"
        pickled = " (pytorch_model.bin is a pickle and is not read)" if pickle and WEIGHTS in missing else ""
        raise QAError(f"{folder} has no {', '.join(missing)}{pickled}. Expected a Hugging Face model folder. {remedy}")
    config = read_json_object(folder / "config.json", "a Hugging Face model's settings", remedy)
    odd = [f"{name} is {value}" for name, value in config.items() if isinstance(value, float) and not isfinite(value)]
    if odd:
        raise QAError(f"{folder / 'config.json'}: {'; '.join(odd)}. Expected finite numbers. {remedy}")
    if problems := list(unsafe_references(folder, config, remedy)):
        raise QAError(
            f"{folder} is no model on its own: {'; '.join(problems)}. Expected a plain one in safetensors. {remedy}"
        )
    return config


def refuse_tokenizer(folder: Path, config: dict) -> str | None:
    """Why a folder's tokenizer.json says something else than its tokenizer, None where it does not. config: of its
    config.json. Raises QAError where its tokenizer_config.json can't be read."""
    if config.get("model_type") != "roformer":
        return None
    path = folder / "tokenizer_config.json"
    settings = read_json_object(path, "a tokenizer's settings") if path.is_file() else {}
    if not str(settings.get("tokenizer_class") or JIEBA).startswith(JIEBA):  # "...Fast" too
        return None
    return (
        "its tokenizer cuts words with jieba, a program that tokenizer.json can't hold. Expected a RoFormer with "
        "BERT's tokenizer (tokenizer_class in tokenizer_config.json)"
    )


def unsafe_references(folder: Path, config: dict, remedy: str) -> Iterator[str]:
    """What in a model folder makes the libraries fetch code or weights from elsewhere, or read other formats. config:
    of its config.json. Raises QAError, with the `remedy`, where an index of weights can't be read."""
    for key in ("attn_implementation", "_attn_implementation"):
        if config.get(key) not in (None, "eager", "sdpa"):
            yield f"config.json asks for the attention {config[key]!r}, which is not in transformers"
    if config.get("quantization_config"):
        yield "config.json has a quantization_config, which other packages read"
    if config.get("transformers_weights"):
        yield f"config.json names weights of its own, {config['transformers_weights']!r}"
    if (folder / "adapter_config.json").exists():
        yield "adapter_config.json makes it an addition to another model"
    for path in sorted(folder.glob("*.safetensors.index.json")):
        shards = read_json_object(path, "the list of a model's weight files", remedy).get("weight_map")
        names = shards.values() if isinstance(shards, dict) else [None]
        if not all(isinstance(name, str) and name.endswith(".safetensors") and stays_inside(name) for name in names):
            yield f"{path.name} names other files than safetensors in this folder"


def front_matter(model_dir: str | Path) -> str:
    """The head of a model's card, README.md: YAML between two lines of ---. "" where there is none.

    Source of the format: https://huggingface.co/docs/hub/model-cards
    """
    try:
        card = (Path(model_dir) / "README.md").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    found = re.match(r"---\n(.*?)\n---\n", card, re.DOTALL)
    return found[1] if found else ""


def card_languages(model_dir: str | Path) -> list[str]:
    """The languages that a model's card names, as it writes them: `language: en`, `[en, de]`, or a line each."""
    found = re.search(r"^languages?:((?: *[^\n]*)(?:\n *- *[^\n]+)*)", front_matter(model_dir), re.MULTILINE)
    return re.findall(r"[A-Za-z][\w-]*", found[1]) if found else []


def files_that_decide(model_dir: Path) -> list[Path]:
    """The files of a model folder that decide what it answers."""
    named = [model_dir / name for name in ("config.json", "tokenizer.json", SETTINGS_FILE)]
    return [*filter(Path.is_file, named), *sorted(model_dir.glob("*.safetensors"))]
