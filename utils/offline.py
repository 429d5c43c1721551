"""Where the project's folders are, and the switches that keep the Hugging Face libraries off the network.

The libraries read their switches when they are imported, so a script calls `go_offline()` before any other import:

    from utils.offline import go_offline
    go_offline()
"""

import os
from pathlib import Path

PROJECT_ROOT = Path(__file__).resolve().parents[1]
SQUAD_DIR = PROJECT_ROOT / "data" / "squad"
MODEL_DIR = PROJECT_ROOT / "models" / "mobilebert-uncased"
TEACHER_DIR = PROJECT_ROOT / "models" / "bert-large-uncased-whole-word-masking-finetuned-squad"
OUTPUT_DIR = PROJECT_ROOT / "output"
SAMPLE_DATA_DIR = PROJECT_ROOT / "data" / "sample"
SAMPLE_FILES = {part: SAMPLE_DATA_DIR / "custom" / f"{part}.csv" for part in ("train", "dev")}  # of --sample
SAMPLE_MODEL_DIR = PROJECT_ROOT / "models" / "sample"

SWITCHES = {
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "HF_EVALUATE_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DISABLE_SAFETENSORS_CONVERSION": "1",  # else transformers asks the Hub for a conversion, in a thread
    "HF_UPDATE_DOWNLOAD_COUNTS": "0",  # evaluate counts uses on a server
    "ORT_DISABLE_TELEMETRY": "1",  # else ONNX Runtime (1.29 and later) sends what it runs to its maker, from a thread
    "RAY_USAGE_STATS_ENABLED": "0",  # else Ray counts what a cluster that it starts is used for
}


def go_offline() -> None:
    """Sets every offline switch, whatever the user's environment says. Call before importing a Hugging Face library."""
    os.environ.update(SWITCHES)


def sample_model() -> Path:
    """The model of --sample: the one trained on the bundled questions, else the bundled one."""
    trained = OUTPUT_DIR / "sample" / "final_model"
    return trained if trained.exists() else SAMPLE_MODEL_DIR
