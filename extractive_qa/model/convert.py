"""A model folder in an older form into one that every script reads: safetensors out of a pickle, tokenizer.json out of
the files that Python tokenizers read. Nothing in the folder can run code. Imports torch."""

import gc
import importlib.util
import json
import pickle
import shutil
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing

from extractive_qa.errors import QAError, brief
from extractive_qa.files.manifest import stays_inside
from extractive_qa.files.reading import read_json_object
from extractive_qa.model.families import FAMILIES, input_names, refuse_family
from extractive_qa.model.folder import (
    OLDER_TOKENIZERS,
    SETTINGS_FILE,
    WEIGHTS,
    refuse_tokenizer,
    require_folder,
    unsafe_references,
)
from extractive_qa.model.loading import load_encoder, quiet_transformers

PICKLE = "pytorch_model.bin"
# what goes along as it is; the Hub's card and licence are people's
KEPT = ("README.md", "LICENSE", "LICENSE.txt", "NOTICE", "vocab.txt", SETTINGS_FILE)
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
SENTENCEPIECE = tuple(name for name in OLDER_TOKENIZERS if name.endswith(".model"))
PAIRS = (
    ("Who wrote the letter?", "The letter was written by Anna Berg in 1911, and sent to Ben Falk."),
    ("Où est le CAFÉ?", "Le café “Zur Post” se trouve à Ærø; il a 1,204 places. " * 4),
    ("谁?", "北京 is the capital."),
)
MOST = 1e-4  # that a logit may differ by: the same float32 weights, computed twice


def convert_model(model_dir: Path, folder: Path) -> tuple[list[str], float]:
    """Makes `folder`, which is empty, a model folder with what `model_dir` holds in an older form.

    Returns the names of the output layer's weights that it lacks ([]: it can answer), and the largest difference of a
    logit before and after. Raises QAError where it can't be read, is of a kind that can't answer here, or answers
    differently afterwards; OSError or SafetensorError where `folder` can't be written.
    """
    remedy = "Get the model's files again, or choose another model."
    path = require_folder(model_dir, remedy) / "config.json"
    config = with_kind(read_json_object(path, "a Hugging Face model's settings", remedy))
    if reason := refuse_family(config) or refuse_tokenizer(model_dir, config):
        raise QAError(f"{model_dir} can't be converted: {reason}.")
    if problems := list(unsafe_references(model_dir, config, remedy)):
        raise QAError(f"{model_dir} is no model on its own: {'; '.join(problems)}. {remedy}")
    for name in KEPT:
        if (model_dir / name).is_file():
            shutil.copyfile(model_dir / name, folder / name)
    (folder / "config.json").write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    save_weights(read_folder(model_dir, remedy), folder)
    make_tokenizer(model_dir, config, folder)
    try:
        return compare(model_dir, folder, remedy)
    finally:
        gc.collect()  # a model maps its file, and Windows can't rename the folder until then


def with_kind(config: dict) -> dict:
    """A config.json with its model_type, which the oldest lack: their architecture names it."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_QUESTION_ANSWERING_MAPPING_NAMES as names

    kinds = [kind for kind in FAMILIES if names.get(kind) in (config.get("architectures") or ())]
    return config if config.get("model_type") or not kinds else config | {"model_type": kinds[0]}


def read_folder(model_dir: Path, remedy: str) -> dict[str, torch.Tensor]:
    """All weights of a folder: safetensors where there are any, else the pickle, or the pickles that its index
    names."""
    paths = sorted(model_dir.glob("*.safetensors"))
    if not paths and (index := model_dir / f"{PICKLE}.index.json").is_file():
        shards = read_json_object(index, "the list of a model's weight files", remedy).get("weight_map")
        names = set(shards.values()) if isinstance(shards, dict) else {None}
        if not all(isinstance(name, str) and name.endswith(".bin") and stays_inside(name) for name in names):
            raise QAError(f"{index} names other files than *.bin in this folder. {remedy}")
        paths = [model_dir / name for name in sorted(names)]
    paths = paths or [model_dir / PICKLE]
    if missing := [path.name for path in paths if not path.is_file()]:
        raise QAError(f"{model_dir} has no {', '.join(missing)}. Expected weights of PyTorch. {remedy}")
    return {name: tensor for path in paths for name, tensor in read_weights(path, remedy).items()}


def read_weights(path: Path, remedy: str) -> dict[str, torch.Tensor]:
    """{name: tensor} from a file of weights. A pickle is read for tensors alone and can't run anything.

    Raises QAError, with the `remedy`, where it can't be read.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
        return {name: tensor for name, tensor in state.items() if isinstance(tensor, torch.Tensor)}
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, ValueError, AttributeError) as error:
        raise QAError(
            f"{path} ({path.stat().st_size:,} bytes) can't be read as weights ({brief(error)}). Expected a whole file "
            f"of tensors. {remedy}"
        ) from error


def save_weights(state: dict[str, torch.Tensor], folder: Path) -> None:
    """Writes model.safetensors, floats as float32, each tensor once. Raises OSError, SafetensorError."""
    tensors, kept = {}, set()
    # the head of pretraining shares a matrix with the embeddings: kept once, under the encoder's name
    for name in sorted(state, key=lambda name: ("embeddings." not in name, name)):
        tensor = state[name]
        place = (tensor.data_ptr(), tensor.shape, tensor.stride())
        if place not in kept:
            kept.add(place)
            tensors[name] = (tensor.float() if tensor.is_floating_point() else tensor).clone().contiguous()
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    shutil.copymode(folder / "config.json", folder / WEIGHTS)  # the library lets only the owner read it


def make_tokenizer(model_dir: Path, config: dict, folder: Path) -> None:
    """Writes tokenizer.json, with the files beside it: the folder's own, or what transformers makes of the older form.
    Raises QAError where it can't."""
    from transformers import AutoTokenizer

    if (model_dir / "tokenizer.json").is_file():
        for name in TOKENIZER_FILES:
            if (model_dir / name).is_file():
                shutil.copyfile(model_dir / name, folder / name)
        return
    older = [name for name in OLDER_TOKENIZERS if (model_dir / name).is_file()]
    if not older:
        raise QAError(f"{model_dir} has no tokenizer. Expected tokenizer.json or one of {', '.join(OLDER_TOKENIZERS)}.")
    packages = {"sentencepiece": "sentencepiece", "protobuf": "google.protobuf"}
    lacking = [name for name, module in packages.items() if not is_installed(module)]
    if older[0] in SENTENCEPIECE and lacking:
        raise QAError(
            f"{older[0]} needs {' and '.join(lacking)}, which the scripts do without, to become tokenizer.json. "
            f"Run: pip install {' '.join(lacking)}, then the same command again."
        )
    settings_path, settings = model_dir / "tokenizer_config.json", {}
    if settings_path.is_file():
        settings = read_json_object(settings_path, "a tokenizer's settings")
    # transformers lower-cases where nobody says; a vocabulary with capitals was not made for that
    cased = older[0] == "vocab.txt" and "do_lower_case" not in settings and has_capitals(model_dir / "vocab.txt")
    source = folder / ".tokenizer"
    source.mkdir()
    try:
        # the tokenizer's files alone, beside the config that names the kind
        for name in (*older, "merges.txt", *TOKENIZER_FILES):
            if (model_dir / name).is_file():
                shutil.copyfile(model_dir / name, source / name)
        (source / "config.json").write_text(json.dumps(config), encoding="utf-8")
        with quiet_transformers():
            tokenizer = AutoTokenizer.from_pretrained(
                source, local_files_only=True, trust_remote_code=False, **({"do_lower_case": False} if cased else {})
            )
        if config["model_type"] == "deberta":
            # transformers 5 puts two [SEP] between question and context, where DeBERTa was trained with one
            tokenizer.backend_tokenizer.post_processor = bert_template(tokenizer.cls_token_id, tokenizer.sep_token_id)
        tokenizer.save_pretrained(folder)
    except Exception as error:  # the libraries raise nothing narrower
        raise QAError(
            f"{model_dir}: its tokenizer ({older[0]}) can't be read ({brief(error)}). Get the model's files again."
        ) from None
    finally:
        shutil.rmtree(source)
    if not (folder / "tokenizer.json").is_file():
        raise QAError(f"{model_dir}: transformers makes no tokenizer.json of {older[0]}. Choose another model.")


def bert_template(cls_id: int, sep_id: int) -> TemplateProcessing:
    """[CLS] question [SEP] context [SEP], the context and what follows it of type 1."""
    ids = [("[CLS]", cls_id), ("[SEP]", sep_id)]
    return TemplateProcessing(single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=ids)


def is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # of what is above it
        return False


def has_capitals(vocabulary: Path) -> bool:
    words = vocabulary.read_text(encoding="utf-8", errors="replace").split()
    return any(word != word.lower() for word in words if not word.startswith("["))


def compare(model_dir: Path, folder: Path, remedy: str) -> tuple[list[str], float]:
    """Reads both folders, the older one by transformers' own way, and compares the logits of a few inputs. Returns what
    the output layer lacks, and the largest difference. Raises QAError where they are not the same."""
    from transformers import AutoModelForQuestionAnswering

    after, missing = load_encoder(folder, remedy)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    if (tokens := tokenizer.get_vocab_size()) > after.config.vocab_size:
        known = after.config.vocab_size
        raise QAError(f"{model_dir}: the model knows {known} tokens, its tokenizer has {tokens}. {remedy}")
    with quiet_transformers():
        before = AutoModelForQuestionAnswering.from_pretrained(
            model_dir, config=after.config, local_files_only=True, trust_remote_code=False, weights_only=True,
            use_safetensors=any(model_dir.glob("*.safetensors")), dtype=torch.float32, ignore_mismatched_sizes=True,
        )  # fmt: skip
    if missing:  # drawn at random, and no part of what is compared
        drawn = {name: tensor for name, tensor in after.state_dict().items() if name in missing}
        before.load_state_dict(drawn, strict=False)
    largest = 0.0
    for question, context in PAIRS:
        encoding = tokenizer.encode(question, context)
        tensors = {
            "input_ids": encoding.ids, "attention_mask": encoding.attention_mask, "token_type_ids": encoding.type_ids,
        }  # fmt: skip
        batch = {name: torch.tensor([tensors[name]]) for name in input_names(after)}  # (1, L)
        with torch.inference_mode():
            one, other = (model.eval()(**batch) for model in (before, after))
        for name in ("start_logits", "end_logits"):
            largest = max(largest, (one[name] - other[name]).abs().max().item())
    if not largest <= MOST:  # nor NaN
        raise QAError(
            f"{model_dir}: converted, its logits differ by up to {largest:.3g}, expected at most {MOST:g}. {remedy}"
        )
    return missing, largest
