"""A folder's weights as a PyTorch model, checked. Imports torch and transformers when called."""

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from extractive_qa.errors import QAError
from extractive_qa.model.families import QA_OUTPUTS, output_layer, refuse_family
from extractive_qa.model.folder import FINE_TUNE, refuse_tokenizer, require_model

LAYER = re.compile(r"\blayers?\.\d")  # in the name of a weight

# numbers of config.json, as the FAMILIES call them: of layers and the like; of what every model has a tensor with; of
# what some have, and of what may be computed instead
COUNTS = ("num_hidden_layers", "n_layers", "num_feedforward_networks", "num_hidden_groups", "inner_group_num")
SIZES = ("vocab_size", "hidden_size", "intermediate_size", "dim", "hidden_dim")
WIDTHS = ("embedding_size", "true_hidden_size", "intra_bottleneck_size")
LENGTHS = ("max_position_embeddings", "type_vocab_size", "position_buckets", "max_relative_positions")
MOST_POSITIONS = 2**16


def load_model(model_dir: str | Path, attention: str | None = None):
    """The question-answering model of a folder, in fp32 on the CPU. Raises QAError where it has none."""
    model, missing = load_encoder(model_dir, FINE_TUNE, attention)
    if missing:
        architectures = ", ".join(model.config.architectures or ["a model without a name"])
        raise QAError(
            f"{model_dir} holds {architectures}, which was not trained to answer questions: it has no "
            f"{', '.join(missing)} of two labels. Expected a ...ForQuestionAnswering model. {FINE_TUNE}"
        )
    return model


def load_encoder(model_dir: str | Path, remedy: str = FINE_TUNE, attention: str | None = None, **settings: float):
    """Any encoder folder as a question-answering model in fp32 on the CPU, and the names of the weights of its output
    layer that the folder lacks, or has for other than two labels (drawn at random).

    attention: transformers' attn_implementation. settings: of config.json, instead of those there. Code that comes with
    the folder is never run. Raises QAError, with `remedy`, where the folder can't be read, is of a kind that can't
    answer here, lacks other weights, or holds NaN or infinity.
    """
    import torch
    from huggingface_hub.errors import StrictDataclassError
    from safetensors import SafetensorError
    from transformers import AutoModelForQuestionAnswering

    folder, config = Path(model_dir), require_model(model_dir, remedy)
    if "auto_map" not in config and (reason := refuse_family(config) or refuse_tokenizer(folder, config)):
        raise QAError(f"{folder} can't be loaded: {reason}. {remedy}")
    if problem := misfit(config, shapes_of(folder, remedy)):
        raise QAError(f"{folder}: the weights do not fit config.json: {problem}. Expected files of one model. {remedy}")
    try:
        with quiet_transformers():  # that the output layer is new and the pooler unused is as it should be
            model, loaded = AutoModelForQuestionAnswering.from_pretrained(
                folder,
                local_files_only=True,
                trust_remote_code=False,  # without this transformers asks the user, and a "y" runs the folder's code
                use_safetensors=True,
                dtype=torch.float32,
                attn_implementation=attention,
                num_labels=2,  # start and end, whatever the folder's classes were
                return_dict=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # told below, by name
                **settings,
            )
    # a config.json of wrong types or sizes fails in as many ways as the library reads it
    except (
        OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, AssertionError, RuntimeError,
        ImportError, SafetensorError, StrictDataclassError,
    ) as error:  # fmt: skip
        reason = f"{type(error).__name__}: {error}"
        if "trust_remote_code" in reason:
            reason = "it needs code of its own, which is never run"
        raise QAError(f"{folder} can't be loaded ({reason}). Expected a Hugging Face model folder. {remedy}") from None
    layer = output_layer(config)
    mismatched = {}
    for key in loaded["mismatched_keys"]:
        name, *shapes = [key] if isinstance(key, str) else key  # transformers 4 has names alone
        mismatched[name] = "is {}, expected {}".format(*map(list, shapes)) if shapes else "has another shape"
    head = [name for name in mismatched if name.startswith(layer)]
    other_task = layer != QA_OUTPUTS and "QuestionAnswering" not in str(config.get("architectures"))
    missing = sorted({*loaded["missing_keys"], *head, *(draw_again(model, layer[0]) if other_task else ())})
    if lost := [name for name in missing if not name.startswith(layer)]:
        raise QAError(f"{folder} lacks {len(lost)} of its weights, among them {lost[0]}. {remedy}")
    other_shape = [f"{name} {differs}" for name, differs in mismatched.items() if name not in head]
    left_out = [f"{name} has no place" for name in loaded["unexpected_keys"] if LAYER.search(name)]
    if faults := other_shape + left_out:
        raise QAError(
            f"{folder}: the weights do not fit config.json: {faults[0]}"
            f"{f' ({len(faults) - 1} more)' if len(faults) > 1 else ''}. Expected files of one model. {remedy}"
        )
    files = list(folder.glob("*.safetensors"))
    require_finite(model.named_parameters(), files[0] if len(files) == 1 else folder, remedy)
    return model, missing


def draw_again(model, layer: str) -> set[str]:
    """Draws the weights at random that begin with `layer`: what bears this name had learned another task, to two labels
    maybe. Returns their names."""
    import torch

    weights = {name: parameter for name, parameter in model.named_parameters() if name.startswith(layer)}
    with torch.no_grad():
        for parameter in weights.values():
            parameter.normal_(std=model.config.initializer_range) if parameter.ndim > 1 else parameter.zero_()
    return set(weights)


def shapes_of(folder: Path, remedy: str) -> list[list[int]]:
    """The shapes of all tensors in a folder's safetensors, from the headers of the files. Raises QAError, with the
    `remedy`, where one can't be read."""
    from safetensors import SafetensorError, safe_open

    found = []
    for path in folder.glob("*.safetensors"):
        try:
            with safe_open(path, "np") as file:
                found += [file.get_slice(name).get_shape() for name in file.keys()]  # noqa: SIM118 - no dict
        except (SafetensorError, OSError) as error:
            raise QAError(
                f"{path} can't be loaded ({error}). Expected a whole file of weights in safetensors. {remedy}"
            ) from None
    return found


def misfit(config: dict, shapes: list[list[int]]) -> str | None:
    """A size in config.json that weights of these shapes can't have, in words: the library would make a model of that
    size first, whatever memory and time it takes. None where there is none; smaller faults show when it is loaded."""
    dimensions = {size for shape in shapes for size in shape}
    widths = {size for size in dimensions if size != config.get("vocab_size")} or {0}
    for name, value in config.items():
        if type(value) is not int or value <= 0:
            continue
        if name in COUNTS and value > len(shapes):
            return f"{name} is {value:,}, and there are {len(shapes):,} tensors in all"
        if name in SIZES and value not in dimensions:
            return f"{name} is {value:,}, and no tensor has that size"
        if (name in WIDTHS and value > max(widths)) or (name in LENGTHS and value > max(MOST_POSITIONS, *widths)):
            return f"{name} is {value:,}, and the largest size of a tensor is {max(widths):,}"
    return None


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Only errors and no bars from transformers meanwhile; afterwards its log level and bars are as they were."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def require_finite(tensors: Iterable[tuple], path: Path, remedy: str) -> None:
    """Raises QAError, with `remedy`, where one of the pairs (name, tensor), read from `path`, is not all finite."""
    bad = [(name, (~tensor.isfinite()).sum().item()) for name, tensor in tensors if not tensor.isfinite().all()]
    if bad:
        name, count = bad[0]
        more = f", and {len(bad) - 1} more tensor(s) hold such" if len(bad) > 1 else ""
        raise QAError(
            f"{path} is damaged: {count:,} value(s) of {name} are NaN or infinity{more}. Expected finite numbers. "
            f"{remedy}"
        )
