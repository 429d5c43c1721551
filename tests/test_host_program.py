"""The library in a program of somebody else's: it answers, and leaves that program as it was."""

import json
import subprocess
import sys

import pytest
from scripts import PROJECT_ROOT

# a program that opens a Reader, provokes a warning, and says what has changed around it meanwhile
HOST = """
import json, logging, os, signal, sys, threading, warnings
import numpy, tokenizers, onnxruntime  # what the library needs changes things by itself
sys.path.insert(0, sys.argv[3])

def around():
    loggers = {name: logging.getLogger(name) for name in ("", "transformers", "huggingface_hub", "datasets", "torch")}
    found = {
        "environment": dict(os.environ),
        "log levels": {name: (logger.level, len(logger.handlers)) for name, logger in loggers.items()},
        "filters of warnings": list(map(str, warnings.filters)),
        "path": list(sys.path), "folder": os.getcwd(), "hooks": [str(sys.excepthook), str(threading.excepthook)],
        "signals": [str(signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGTERM)],
    }
    if sys.argv[2] == "torch":
        import numpy, torch, transformers, huggingface_hub
        from transformers.utils import logging as of_transformers
        found["transformers"] = of_transformers.get_verbosity(), of_transformers.is_progress_bar_enabled()
        found["offline"] = huggingface_hub.constants.HF_HUB_OFFLINE
        found["torch"] = torch.get_num_threads(), str(torch.get_default_dtype()), torch.is_grad_enabled()
        found["random"] = torch.get_rng_state().tolist()[:8], str(numpy.random.get_state()[1][:4])
    return found

if sys.argv[2] == "torch":
    from transformers import AutoModelForQuestionAnswering
    AutoModelForQuestionAnswering.from_pretrained(sys.argv[1])  # what a host does itself changes things too
before = around()
print("BEGIN", file=sys.stderr, flush=True)
modules = set(sys.modules)
from extractive_qa import QAError, Reader
reader = Reader(sys.argv[1], device="cpu", backend=sys.argv[2], mixed_precision="no", threads=1)
answer = reader.answer("Who won? " * 300, "Ada won.")  # too long for a window: the library warns
try:
    Reader("nowhere")
except QAError as error:
    missing = str(error)
after = around()
changed = {name: [before[name], after[name]] for name in before if before[name] != after[name]}
report = {"answer": answer, "changed": changed, "missing": missing, "imported": sorted(set(sys.modules) - modules)}
open(sys.argv[4], "w").write(json.dumps(report))
"""
HEAVY = {
    "torch", "transformers", "datasets", "evaluate", "accelerate", "tensorboard", "matplotlib", "pandas", "pyarrow",
    "huggingface_hub", "safetensors", "tqdm", "psutil", "requests", "fastapi", "jinja2", "onnx", "utils",
}  # fmt: skip


@pytest.mark.parametrize("backend", ["onnx", "torch"])
def test_the_host_is_left_as_it_was(exported, tmp_path, backend):
    (tmp_path / "host.py").write_text(HOST, encoding="utf-8")
    command = [sys.executable, "host.py", str(exported), backend, str(PROJECT_ROOT), str(tmp_path / "report.json")]
    done = subprocess.run(command, cwd=tmp_path, check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr.partition("BEGIN\n")[2]) == (0, "", ""), done.stderr
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert "Ada won.".find(report["answer"]["text"]) == report["answer"]["start"]
    # the one exception: else ONNX Runtime reports what it runs to its maker
    environment = report["changed"].pop("environment", None)
    assert environment is None or environment[1] == environment[0] | {"ORT_DISABLE_TELEMETRY": "1"}
    assert report["changed"] == {}
    assert "nowhere is missing" in report["missing"]
    assert "python" not in report["missing"], "the host has no scripts to run"
    imported = {name.partition(".")[0] for name in report["imported"]}
    assert imported & (HEAVY if backend == "onnx" else {"datasets", "evaluate", "matplotlib", "utils"}) == set()


def test_the_library_s_words_reach_a_host_that_listens(exported, caplog):
    from extractive_qa import Reader

    with caplog.at_level("WARNING", "extractive_qa"):
        Reader(exported, device="cpu", mixed_precision="no").answer("Who won? " * 300, "Ada won.")
    assert "longer than the" in caplog.text


def test_errors_speak_of_arguments(exported):
    from extractive_qa import QAError, Reader

    with pytest.raises(QAError, match="mixed_precision='int8'"):
        Reader(exported, backend="torch", mixed_precision="int8")
    with pytest.raises(QAError, match="device='tpu'"):
        Reader(exported, backend="torch", device="tpu")
    with pytest.raises(ValueError, match="threads is 0"):
        Reader(exported, threads=0)
