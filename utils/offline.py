"""Where the project's folders are, and the switches that keep the Hugging Face libraries off the network.

The libraries read their switches when they are imported, so a script calls `go_offline()` before any other import:

    from utils.offline import go_offline
    go_offline()
"""

import os
from collections.abc import Iterator
from pathlib import Path

from utils.console import PROJECT_ROOT, UserError
from utils.files import read_json_object
from utils.manifest import stays_inside

SQUAD_DIR = PROJECT_ROOT / "data" / "squad"
MODEL_DIR = PROJECT_ROOT / "models" / "mobilebert-uncased"
TEACHER_DIR = PROJECT_ROOT / "models" / "bert-large-uncased-whole-word-masking-finetuned-squad"
OUTPUT_DIR = PROJECT_ROOT / "output"
SAMPLE_DATA_DIR = PROJECT_ROOT / "data" / "sample"
SAMPLE_MODEL_DIR = PROJECT_ROOT / "models" / "sample"

SWITCHES = {
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "HF_EVALUATE_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DISABLE_SAFETENSORS_CONVERSION": "1",  # else transformers asks the Hub for a conversion, in a thread
    "HF_UPDATE_DOWNLOAD_COUNTS": "0",  # evaluate counts uses on a server
    "GRADIO_ANALYTICS_ENABLED": "False",  # else Gradio reports each start, and asks for newer versions of itself
    "ORT_DISABLE_TELEMETRY": "1",  # else ONNX Runtime (1.29 and later) sends what it runs to its maker, from a thread
}

# a tokenizer as Python libraries of its own read it, which transformers turns into tokenizer.json
OLDER_TOKENIZERS = ("vocab.txt", "vocab.json", "spiece.model", "spm.model", "sentencepiece.bpe.model")
MAKE_TOKENIZER = (
    "from transformers import AutoTokenizer as T; T.from_pretrained('{folder}').save_pretrained('{folder}')"
)


def go_offline() -> None:
    """Sets every offline switch, whatever the user's environment says. Call before importing a Hugging Face library."""
    os.environ.update(SWITCHES)


def sample_model() -> Path:
    """The model of --sample: the one trained on the bundled questions, else the bundled one."""
    trained = OUTPUT_DIR / "sample" / "final_model"
    return trained if trained.exists() else SAMPLE_MODEL_DIR


def require(path: str | Path, expected: str, remedy: str) -> Path:
    """`path` as a Path where it exists; else a UserError that says what was `expected` there and what to run."""
    path = Path(path)
    try:
        there = path.exists()
    except OSError as error:  # a folder above it is closed to us, or no name may be so long
        raise UserError(f"{path} can't be read: {error.strerror}. Expected {expected}. {remedy}") from None
    if not there:
        raise UserError(f"{path} is missing. Expected {expected}. {remedy}")
    return path


def require_model(model_dir: str | Path, remedy: str) -> Path:
    """`model_dir` as a Path where it holds config, weights (safetensors) and tokenizer, and needs nothing else.

    Raises UserError naming the files that are missing, or what leads out of the folder. Weights in other formats are
    pickles and are not read.
    """
    folder = require(model_dir, "a model folder (config.json, model.safetensors, tokenizer.json)", remedy)
    missing = [name for name in ("config.json", "tokenizer.json") if not (folder / name).is_file()]
    if not any(folder.glob("*.safetensors")):
        missing.append("model.safetensors")
    if missing:
        older = next((name for name in OLDER_TOKENIZERS if (folder / name).is_file()), None)
        if older and "tokenizer.json" in missing:
            remedy = f'Make tokenizer.json: python -c "{MAKE_TOKENIZER.format(folder=folder.as_posix())}"'
            missing[missing.index("tokenizer.json")] += f" (its tokenizer is in an older form, {older})"
        pickled = " (pytorch_model.bin is a pickle and is not read)" if (folder / "pytorch_model.bin").exists() else ""
        raise UserError(
            f"{folder} has no {', '.join(missing)}{pickled}. Expected a Hugging Face model folder. {remedy}"
        )
    if problems := list(leads_outside(folder, remedy)):
        raise UserError(
            f"{folder} is no model on its own: {'; '.join(problems)}. Expected a plain one in safetensors. {remedy}"
        )
    return folder


def leads_outside(folder: Path, remedy: str) -> Iterator[str]:
    """What in a model folder makes the libraries fetch code or weights from elsewhere, or read other formats. Raises
    UserError, with the `remedy`, where config.json or an index of weights can't be read."""
    config = read_json_object(folder / "config.json", "a Hugging Face model's settings", remedy)
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
