"""reader.json: the settings that belong to a model, and what is wrong with them."""

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from extractive_qa.errors import QAError
from extractive_qa.files.atomic import write_json, writing
from extractive_qa.files.manifest import unlisted
from extractive_qa.files.reading import read_json_object
from extractive_qa.model.families import usable_positions
from extractive_qa.model.folder import SETTINGS_FILE
from extractive_qa.postprocessing.confidence import check_calibrator
from extractive_qa.preprocessing.windows import SHORTEST_WINDOW, check_window_settings, longest_question

# of a folder without reader.json (trained elsewhere), and what reader.json does not say. temperature and references are
# of folders from before there was a calibrator: they are what its confidences were fitted by
DEFAULT_SETTINGS = {
    "max_length": 384, "doc_stride": 128, "max_answer_length": 30, "handle_impossible_answer": False,
    "calibrator": None, "temperature": 1.0, "references": 1.0,
}  # fmt: skip
SPECIAL_TOKENS = 4  # at most, around a question and a context: RoBERTa's


def read_settings(model_dir: Path) -> dict:
    """What reader.json of a folder says, {} where there is none. Raises QAError where it can't be read."""
    path = model_dir / SETTINGS_FILE
    return read_json_object(path, "a reader's settings") if path.exists() else {}


def choose_settings(model_dir: Path, settings: dict | None = None, overrides: dict | None = None) -> dict:
    """What a reader answers with: `settings`, or where there are none what the folder's reader.json says, changed by
    the `overrides`; else the defaults. Raises QAError where they can't work."""
    path, overrides = model_dir / SETTINGS_FILE, overrides or {}
    found = read_settings(model_dir) if settings is None else settings
    found = {name: value.item() if isinstance(value, np.generic) else value for name, value in found.items()}
    chosen = DEFAULT_SETTINGS | found | overrides
    if problems := check_settings(chosen):
        given = ", ".join(f"{name}={value!r:.40}" for name, value in overrides.items())
        where, fix = f"Reader(..., {given or 'settings'})", "Change that, or leave it out: then the defaults hold."
        if settings is None and path.is_file():
            where = f"{path} with {where}" if overrides else str(path)
            fix = "Fix the file, or delete it: then the defaults hold."
        raise QAError(f"{where}: {'; '.join(problems)}. {fix}")
    return chosen


def save_settings(model_dir: Path, changes: dict, manifests: Iterable[str] = ()) -> None:
    """Sets `changes` in reader.json of a folder, which is made where it is missing. The lists of checksums called
    `manifests` stay right. Raises QAError where it can't be written: then the old one stays."""
    path = model_dir / SETTINGS_FILE
    remedy = f"Expected a model folder of your own. To set it by hand: {json.dumps(changes)} in that file."
    with writing(path, remedy), unlisted(path, manifests):
        write_json(path, DEFAULT_SETTINGS | read_settings(model_dir) | changes)


def may_find_none(model_dir: Path) -> bool:
    """Whether the model of a folder was trained to say that a question has no answer. What else a damaged file says,
    the Reader refuses in words."""
    return read_settings(model_dir).get("handle_impossible_answer") is True


def check_settings(settings: dict) -> list[str]:
    """What is wrong with the settings that a reader answers with."""
    problems = not_whole(settings, ("max_length", "doc_stride", "max_answer_length"))
    if not problems:
        problems = check_window_settings(settings["max_length"], settings["doc_stride"])
        if settings["max_answer_length"] < 1:
            problems.append(f"max_answer_length is {settings['max_answer_length']}, expected at least 1")
    if type(impossible := settings["handle_impossible_answer"]) is not bool:
        problems.append(f"handle_impossible_answer is {impossible!r:.40}, expected true or false")
    problems += check_calibrator(settings["calibrator"])
    for name, least in (("temperature", 0.01), ("references", 1)):
        if type(settings[name]) not in (int, float) or not least <= settings[name] <= 100:
            problems.append(f"{name} is {settings[name]!r:.40}, expected a number from {least} to 100 (1: as trained)")
    return problems


def not_whole(settings: dict, names: Iterable[str]) -> list[str]:
    kinds = {name: settings[name] for name in names if type(settings[name]) is not int}
    return [f"{name} is {value!r:.40}, expected a whole number" for name, value in kinds.items()]


def fit_windows(settings: dict, config: dict) -> dict:
    """The settings with windows no longer than a model with this config.json has positions for tokens, and an overlap
    that is as much less. config: one that check_config finds nothing wrong with."""
    positions, longest = usable_positions(config), settings["max_length"]
    if not positions or longest <= positions:
        return dict(settings)
    overlap = min(settings["doc_stride"] * positions // longest, longest_question(positions, 0, SPECIAL_TOKENS) - 1)
    return settings | {"max_length": positions, "doc_stride": max(0, overlap)}


def check_config(config: dict, tokens: int) -> list[str]:
    """What keeps a model with this config.json from answering in windows of its tokenizer's tokens, whose ids are below
    `tokens`."""
    names = ("max_position_embeddings", "vocab_size", "pad_token_id", "num_hidden_layers", "conv_kernel_size")
    if problems := not_whole(config, [name for name in names if config.get(name) is not None]):
        return problems
    if (positions := usable_positions(config)) is not None and positions < SHORTEST_WINDOW:
        problems.append(f"the model has {positions} positions for tokens, expected at least {SHORTEST_WINDOW}")
    known = config.get("vocab_size") or tokens
    if tokens > known:
        problems.append(f"the model knows {known:,} tokens, but tokenizer.json has {tokens:,}: files of two models")
    if not 0 <= (config.get("pad_token_id") or 0) < known:
        problems.append(f"pad_token_id is {config['pad_token_id']}, expected 0 to {known - 1}")
    return problems
