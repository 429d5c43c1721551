"""Where the project's folders are, and the switches that keep the Hugging Face libraries off the network.

The libraries read their switches when they are imported, so a script calls `go_offline()` before any other import:

    from utils.offline import go_offline
    go_offline()
"""

import os
from pathlib import Path

from utils.console import PROJECT_ROOT, UserError

SQUAD_DIR = PROJECT_ROOT / "data" / "squad"
MODEL_DIR = PROJECT_ROOT / "models" / "mobilebert-uncased"
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
}


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
    """`model_dir` as a Path where it holds config, weights (safetensors) and tokenizer.

    Raises UserError naming the files that are missing. Weights in other formats are pickles and are not read.
    """
    folder = require(model_dir, "a model folder (config.json, model.safetensors, tokenizer.json)", remedy)
    missing = [name for name in ("config.json", "tokenizer.json") if not (folder / name).is_file()]
    if not any(folder.glob("*.safetensors")):
        missing.append("model.safetensors")
    if missing:
        pickled = " (pytorch_model.bin is a pickle and is not read)" if (folder / "pytorch_model.bin").exists() else ""
        raise UserError(
            f"{folder} has no {', '.join(missing)}{pickled}. Expected a Hugging Face model folder. {remedy}"
        )
    return folder
