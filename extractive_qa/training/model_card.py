"""README.md of a model folder: the Hub's model card, from what a training knows. What is not known is not claimed.

Source of the format: https://huggingface.co/docs/hub/model-cards (front matter in YAML, `model-index` for scores).
"""

import re
from pathlib import Path

from extractive_qa.errors import QAError
from extractive_qa.files.manifest import NAME, read_manifest
from extractive_qa.model.folder import front_matter

# by the end of the address that download_data.py writes to manifest.json: licence
KNOWN_MODELS = {"google/mobilebert-uncased": "apache-2.0"}
KNOWN_DATA = ("rajpurkar/squad", "SQuAD-explorer/dataset")  # SQuAD 1.1 on the Hub, and where its authors have it
# of the flags, those that decide what is learned
HYPER_PARAMETERS = (
    "keep_layers", "num_train_epochs", "max_steps", "max_train_samples", "joined_contexts", "negative_contexts",
    "processes", "per_device_train_batch_size", "gradient_accumulation_steps", "learning_rate", "lr_scheduler_type",
    "warmup_ratio", "weight_decay", "adam_epsilon", "max_grad_norm", "attention_dropout", "hidden_dropout",
    "max_length", "doc_stride", "max_answer_length", "handle_impossible_answer", "seed", "mixed_precision",
)  # fmt: skip
OF_TEACHERS = ("teacher_dir", "distillation_weight", "distillation_temperature")


def model_card(training: dict, scores: dict, model_dir: Path, train_file: Path, eval_file: Path) -> str:
    """The text of README.md: metadata, scores, hyper-parameters, how to use it.

    training: the resolved flags and precision, and the number of processes. scores: as compute_metrics gives them.
    model_dir: the encoder that was started from.
    A pure function of these and of what manifest.json and README.md in the folders say: no date, no machine.
    """
    from huggingface_hub import EvalResult, ModelCardData
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    base = next((name for name in KNOWN_MODELS if source_of(model_dir).endswith(name)), None)
    licence = KNOWN_MODELS.get(base) or licence_of(model_dir)

    def questions(path: Path, limit: str) -> str:
        return ("a part of " if training.get(limit) else "") + ("SQuAD 1.1" if is_squad(path) else path.name)

    learned, scored = questions(train_file, "max_train_samples"), questions(eval_file, "max_eval_samples")
    trained_on_squad = is_squad(train_file)
    official = scored == "SQuAD 1.1"
    results = [
        EvalResult(
            task_type="question-answering", task_name="Extractive question answering", metric_type=metric,
            metric_name=title, metric_value=round(scores[metric], 4), dataset_name=scored,
            dataset_type="rajpurkar/squad" if official else "own", dataset_split="validation" if official else None,
        )
        for metric, title in (("exact_match", "Exact match"), ("f1", "F1"))
    ]  # fmt: skip
    metadata = ModelCardData(
        model_name=f"{base or model_dir.name} for question answering", base_model=base,
        license=licence, language="en" if trained_on_squad else None,
        library_name="transformers", pipeline_tag="question-answering", metrics=["exact_match", "f1"],
        datasets=["rajpurkar/squad"] if trained_on_squad else None, eval_results=results,
    )  # fmt: skip
    names = HYPER_PARAMETERS + (OF_TEACHERS if training.get("teacher_dir") else ())
    values = {name: training[name] for name in names if training.get(name) is not None}
    values |= {name: ", ".join(value) for name, value in values.items() if isinstance(value, list)}
    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent), undefined=StrictUndefined, autoescape=False,  # it is Markdown
        trim_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    templates.filters["number"] = format
    return templates.get_template("model_card.md.j2").render(
        metadata=metadata, base=base or model_dir.name, known_licence=KNOWN_MODELS.get(base), learned=learned,
        scored=scored, scores=scores, hyper_parameters=values,
    )  # fmt: skip


def source_of(folder: Path) -> str:
    """Where download_data.py had a folder from, "" where that is not known."""
    try:
        return str(read_manifest(folder)["source"]) if (folder / NAME).is_file() else ""
    except QAError:  # damaged: whoever reads the folder says so
        return ""


def is_squad(path: Path) -> bool:
    return any(name in source_of(path) for name in KNOWN_DATA)


def licence_of(folder: Path) -> str | None:
    """The licence that a model folder's own card names in its front matter, None where it names none, or several."""
    named = re.search(r"^license: *([\w.+-]+) *$", front_matter(folder), re.MULTILINE)
    return named[1] if named else None
