"""Every malformed file of malformed.py as part of a model folder: refused in words, within little memory and time, by
the library and by each script; or it is harmless, and the model answers."""

import shutil
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import TEXTS, save_tiny_model
from malformed import MALFORMED, within
from scripts import assert_refused, load_script, run_script

from extractive_qa.errors import QAError
from extractive_qa.reader import Reader
from utils.offline import SAMPLE_DATA_DIR

STATM = Path("/proc/self/statm")
SECONDS, MEMORY = 60, 1 << 30  # bytes on top of what the process has
MALFORMED_FOLDER = "malformed model file"
QUICK = 5  # one of so many in `make test`
SAMPLE = SAMPLE_DATA_DIR / "dev.json"
# what only looks wrong: nothing reads it, or all that is read is there
HARMLESS = {
    "model.safetensors: metadata of another framework",
    "tokenizer.json: two tokens of one id",
    "tokenizer.json: words of no characters",
    "tokenizer.json: an added token of nothing",
    "tokenizer.json: an added token of a huge id",
    "tokenizer.json: a pattern that never ends",
    "tokenizer.json: truncation to nothing",
    "tokenizer.json: padding to a huge length",
    "config.json: architectures is {'a': 1}",
    "config.json: num_labels is 1000000000",
    "config.json: dtype is 'float999'",
    "config.json: torch_dtype is 'float999'",
    "config.json: dtype is {'a': 1}",
    "config.json: chunk_size_feed_forward is 3",
    "config.json: output_attentions is 'yes'",
    "config.json: return_dict is False",
    "config.json: is_decoder is True",
    "config.json: pruned_heads is {'0': [0, 1, 2, 3]}",
    "reader.json: max_length is 1000000000000000000",
    "reader.json: max_answer_length is 100000000000000000000000000000",
}
# train.py has flags for these, and does not read them
FLAGS_OF_TRAIN = tuple(
    f"reader.json: {name} is" for name in ("max_length", "doc_stride", "max_answer_length", "handle_impossible_answer")
)
CAUSES = [
    pytest.param(cause, marks=() if number % QUICK == 0 else pytest.mark.slow) for number, cause in enumerate(MALFORMED)
]
# as users run the scripts, each with one file of each kind
RUN = [
    "model.safetensors: a header longer than the file", "model.safetensors: cut in half", "tokenizer.json: no model",
    "tokenizer.json: a template of tokens that are not there", "config.json: num_hidden_layers is 1000000",
    "config.json: a nesting of lists", "reader.json: temperature is nan",
]  # fmt: skip
SCRIPTS = {
    "predict.py": ("ask", "--question", "Who won?", "--context", "Ada won."),
    "evaluate.py": ("--eval_file", SAMPLE, "--max_samples", 2),
    "train.py": ("--train_file", SAMPLE, "--eval_file", SAMPLE, "--max_steps", 1, "--max_train_samples", 4),
    "tools/export_onnx.py": ("--eval_file", SAMPLE, "--calibration_file", SAMPLE, "--max_samples", 2),
}


@pytest.fixture(scope="module")
def small_model(tokenizer_dir, tmp_path_factory):
    return save_tiny_model(tmp_path_factory.mktemp("small") / "model", tokenizer_dir, with_head=True)


@pytest.fixture
def folder(small_model, tmp_path):
    return shutil.copytree(small_model, tmp_path / "model")


@contextmanager
def bounded():
    """The block may take so much memory and time, where the system tells how much it takes (Linux)."""
    if not STATM.exists():
        yield
        return
    import resource

    now = int(STATM.read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (now + MEMORY, limits[1]))
    try:
        with within(SECONDS):
            yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)


def assert_plain(message: str, folder) -> None:
    assert str(folder) in message
    assert "allocate" not in message, "so much memory was asked for"
    assert len(message) < 2000


@pytest.mark.fault(MALFORMED_FOLDER)
@pytest.mark.parametrize("cause", CAUSES)
def test_a_reader_refuses_it_or_answers(cause, folder):
    MALFORMED[cause](folder)
    with bounded():
        if cause in HARMLESS:
            answer = Reader(folder, "cpu", "no").answer("Who won?", TEXTS[0])
            assert TEXTS[0][answer["start"] : answer["end"]] == answer["text"]
            return
        with pytest.raises(QAError) as refused:
            Reader(folder, "cpu", "no")
    assert_plain(str(refused.value), folder)


def arguments(script: str, folder, output) -> list[str]:
    more = ("--output_dir", output) if script in ("evaluate.py", "train.py") else ()
    return [*map(str, ("--model_dir", folder, *more, *SCRIPTS[script][script == "predict.py" :]))]


@pytest.mark.slow
@pytest.mark.fault(MALFORMED_FOLDER)
@pytest.mark.parametrize(
    ("cause", "script"),
    [
        (cause, script)
        for cause in MALFORMED
        for script in ("evaluate.py", "train.py", "tools/export_onnx.py")
        if cause not in HARMLESS and not (script == "train.py" and cause.startswith(FLAGS_OF_TRAIN))
    ],
)
def test_a_script_refuses_it_and_leaves_nothing(cause, script, folder, tmp_path):
    """In this process: a QAError is exit code 2 without a traceback."""
    MALFORMED[cause](folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    argv = [
        *arguments(script, folder, tmp_path / "out"),
        *(("--device", "cpu") if script != "tools/export_onnx.py" else ()),
    ]
    module = load_script(script)
    with bounded(), pytest.raises(QAError) as refused:
        module.main(module.parse_and_check(argv) if script == "train.py" else argv)
    assert_plain(str(refused.value), folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


@pytest.mark.slow
@pytest.mark.fault(MALFORMED_FOLDER)
@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("cause", RUN)
def test_it_ends_a_script_with_exit_code_2(cause, script, folder, tmp_path):
    MALFORMED[cause](folder)
    start = ("ask",) if script == "predict.py" else ()
    done = run_script(script, *start, *arguments(script, folder, tmp_path / "out"), code=None, RUST_BACKTRACE="0")
    assert_refused(done, folder.name)
