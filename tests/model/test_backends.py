"""Exported models: that they answer as PyTorch does, and that a wrong one is never used."""

import re
import shutil
import sys
import weakref
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch
from safetensors.torch import load_file, save_file
from scripts import PROJECT_ROOT, assert_refused, load_script, run_script

from extractive_qa.errors import QAError
from extractive_qa.export import export
from extractive_qa.files.manifest import write_manifest
from extractive_qa.model import backends, devices
from extractive_qa.model.backends import OnnxBackend, TorchBackend, usable_export
from extractive_qa.model.folder import ONNX_FILES, ONNX_MANIFEST
from extractive_qa.model.loading import load_encoder
from extractive_qa.preprocessing.windows import prepare_validation_features
from extractive_qa.reader import Reader

DEV = PROJECT_ROOT / "data" / "sample" / "dev.json"
TEXT = "Ada Müller wrote the reader in Zürich — 东京 and “Köln” followed in 1999, for 12 € (or 3.5 km). "
EXAMPLES = [{"question": "Who wrote it?", "context": TEXT * repeats} for repeats in (1, 2, 12, 1, 40, 3)]


@pytest.fixture
def copy(exported, tmp_path):
    return shutil.copytree(exported, tmp_path / "copy")


def test_auto_takes_onnx_on_a_cpu_where_it_was_exported(exported, tiny_model):
    assert isinstance(Reader(exported, "cpu").backend, OnnxBackend)
    assert Reader(exported, "cpu").backend.precision == "int8"
    assert Reader(exported, "cpu", "no").backend.precision == "no"
    assert isinstance(Reader(exported, "cpu", "bf16").backend, TorchBackend)
    assert isinstance(Reader(exported, "cpu", backend="torch").backend, TorchBackend)
    assert isinstance(Reader(tiny_model, "cpu").backend, TorchBackend)


def test_logits_in_fp32_equal_those_of_pytorch_whatever_the_batch(exported):
    torch_reader, onnx_reader = (Reader(exported, "cpu", "no", backend=backend) for backend in ("torch", "onnx"))
    features = prepare_validation_features(EXAMPLES, torch_reader.tokenizer, 384, 128)
    rows, *expected = torch_reader.logits(features, range(len(features)))
    _, *found = onnx_reader.logits(features, range(len(features)))
    for i, row in enumerate(rows):
        size = len(row["input_ids"])
        _, *alone = onnx_reader.logits(features, [i])
        for one, two, three in zip(expected, found, alone, strict=True):
            np.testing.assert_allclose(two[i, :size], one[i, :size], atol=1e-4)
            np.testing.assert_allclose(three[0, :size], one[i, :size], atol=1e-4)


def test_int8_logits_do_not_depend_on_the_batch(exported):
    """No scale depends on the batch; only the attention's own products are left to rounding."""
    reader = Reader(exported, "cpu", "int8")
    features = prepare_validation_features(EXAMPLES, reader.tokenizer, 384, 128)
    rows, start, end = reader.logits(features, range(len(features)))
    spread = np.ptp(start)
    for i, row in enumerate(rows):
        size = len(row["input_ids"])
        _, start_alone, end_alone = reader.logits(features, [i])
        # an activation at the edge of two integers may fall to either side: a small part of the logits' range
        np.testing.assert_allclose(start_alone[0, :size], start[i, :size], atol=0.02 * spread)
        np.testing.assert_allclose(end_alone[0, :size], end[i, :size], atol=0.02 * spread)


def test_int8_is_close_to_fp32(exported):
    plain, small = (Reader(exported, "cpu", precision) for precision in ("no", "int8"))
    features = prepare_validation_features(EXAMPLES, plain.tokenizer, 384, 128)
    for window in range(len(features)):
        (row,), start, _ = plain.logits(features, [window])
        _, start_int8, _ = small.logits(features, [window])
        size = len(row["input_ids"])
        error = np.abs(start_int8[0, :size] - start[0, :size]).mean()
        assert error < 0.1 * np.ptp(start[0, :size])


def test_every_product_with_weights_but_the_last_is_in_integers(exported):
    model = onnx.load(exported / ONNX_FILES["int8"])
    weights = {tensor.name for tensor in model.graph.initializer}
    left = [node.name for node in model.graph.node if node.op_type == "MatMul" and node.input[1] in weights]
    assert len(left) == 1
    assert "qa_outputs" in left[0]
    fp32 = onnx.load(exported / ONNX_FILES["no"])
    assert sum(node.op_type == "MatMulIntegerToFloat" for node in model.graph.node) == sum(
        node.op_type == "MatMul" and node.input[1] in {tensor.name for tensor in fp32.graph.initializer}
        for node in fp32.graph.node
    ) - len(left)
    # biases that are equal (all zero in a new model) are one tensor behind Identity nodes: they are found all the same
    assert any(len(node.input) == 7 for node in model.graph.node if node.op_type == "MatMulIntegerToFloat")


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", ONNX_FILES["int8"]])
def test_an_export_of_other_weights_is_not_used(copy, name, caplog):
    content = bytearray((copy / name).read_bytes())
    if name == "config.json":
        content += b"\n"  # as if written again
    else:
        content[-2] ^= 1  # one bit of the last weight
    (copy / name).write_bytes(content)
    with caplog.at_level("INFO", "extractive_qa"):
        assert isinstance(Reader(copy, "cpu").backend, TorchBackend)
    assert "does not belong to these weights" in caplog.text
    with pytest.raises(QAError, match=name):
        Reader(copy, "cpu", backend="onnx")


def test_what_cannot_be_had_is_refused(exported, tiny_model, copy):
    with pytest.raises(QAError, match=r"onnx\.json.*Export it"):
        Reader(tiny_model, "cpu", backend="onnx")
    with pytest.raises(QAError, match="Export it"):
        Reader(tiny_model, "cpu", "int8")
    with pytest.raises(QAError, match="cuda"):
        Reader(exported, "cuda", backend="onnx")
    with pytest.raises(QAError, match="bf16"):
        Reader(exported, "cpu", "bf16", backend="onnx")
    (copy / ONNX_MANIFEST).unlink()
    assert isinstance(Reader(copy, "cpu").backend, TorchBackend)


@pytest.mark.parametrize(
    ("device", "gpu", "wanted"),
    [("cpu", True, True), ("auto", False, True), ("auto", True, False), ("cuda", True, False)],
)
def test_auto_leaves_onnx_where_a_gpu_is_asked_for_or_may_be_there(exported, monkeypatch, device, gpu, wanted):
    monkeypatch.setattr(backends.shutil, "which", lambda name: "/usr/bin/nvidia-smi" if gpu else None)
    monkeypatch.setattr(backends, "sys", SimpleNamespace(platform="linux"))
    assert (usable_export(exported, device, "auto") is not None) is wanted


def test_auto_takes_onnx_where_there_may_have_been_a_gpu_but_is_none(exported, monkeypatch):
    monkeypatch.setattr(backends, "may_have_gpu", lambda: True)
    monkeypatch.setattr(devices, "choose_device", lambda name: torch.device("cpu"))
    assert Reader(exported).backend.precision == "int8"
    assert isinstance(Reader(exported, backend="torch").backend, TorchBackend)


def test_int8_is_answered_on_the_cpu_also_where_a_gpu_may_be(exported, copy, monkeypatch):
    monkeypatch.setattr(backends, "may_have_gpu", lambda: True)
    for device in ("auto", "cpu"):
        assert Reader(exported, device, "int8").backend.precision == "int8"
    for device, backend in (("cuda", "auto"), ("auto", "torch"), ("cpu", "torch")):
        with pytest.raises(QAError, match=r"int8.*ONNX Runtime on a CPU.*Leave `device` and `backend` out"):
            Reader(exported, device, "int8", backend=backend)
    (copy / "config.json").write_bytes((copy / "config.json").read_bytes() + b"\n")
    with pytest.raises(QAError, match=r"config\.json.*Export it"):
        Reader(copy, "auto", "int8")


def test_apples_processors_have_a_gpu(monkeypatch):
    monkeypatch.setattr(backends.shutil, "which", lambda name: None)
    monkeypatch.setattr(backends, "sys", SimpleNamespace(platform="darwin"))
    assert backends.may_have_gpu()
    monkeypatch.setattr(backends, "sys", SimpleNamespace(platform="linux"))
    assert not backends.may_have_gpu()


def test_only_the_precisions_that_were_exported_are_taken(copy):
    (copy / ONNX_FILES["int8"]).unlink()
    write_manifest(copy, "here", None, paths=[copy / ONNX_FILES["no"]], name=ONNX_MANIFEST)
    assert Reader(copy, "cpu").backend.precision == "no"
    with pytest.raises(QAError, match=rf"no {ONNX_FILES['int8']}.*Export it"):
        Reader(copy, "cpu", "int8", backend="onnx")


def test_without_onnxruntime_the_message_says_what_to_install(exported, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(QAError, match=r"onnxruntime is not installed.*pip install"):
        Reader(exported, "cpu")


def test_an_exported_file_that_can_not_be_loaded_is_refused(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"no model")
    with pytest.raises(QAError, match=r"model\.onnx can't be loaded.*Export it"):
        OnnxBackend(tmp_path / "model.onnx", "no")


def test_backends_tell_where_they_compute_and_the_memory_it_took(exported):
    for backend, name in (("onnx", "ONNX Runtime"), ("torch", "threads")):
        reader = Reader(exported, "cpu", "no", backend=backend)
        assert reader.backend.describe().startswith("CPU (")
        assert name in reader.backend.describe()
        assert 50e6 < reader.backend.peak_memory() < 1e12
        assert reader.backend.batch_size == 4


def little_memory(backend, monkeypatch, fits: int) -> list[int]:
    """Has a backend's model run out of memory with more than `fits` windows. Returns how many it is asked for."""
    asked, model = [], backend.model

    def forward(**tensors):
        asked.append(len(tensors["input_ids"]))
        if asked[-1] > fits:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return model(**tensors)

    monkeypatch.setattr(backend, "model", forward)
    return asked


def test_out_of_memory_the_same_is_answered_in_smaller_pieces(tiny_model, monkeypatch, caplog):
    reader = Reader(tiny_model, "cpu", "no")
    features = prepare_validation_features(EXAMPLES, reader.tokenizer, 96, 32)
    batches = [range(16), range(4, 9)]
    assert len(features) >= 16
    expected = [reader.logits(features, batch) for batch in batches]
    asked = little_memory(reader.backend, monkeypatch, fits=5)
    for batch, (_, *logits) in zip(batches, expected, strict=True):
        _, *found = reader.logits(features, batch)
        np.testing.assert_allclose(found, logits, atol=1e-4)
    assert asked == [16, 8, 4, 4, 4, 4, 4, 1]  # what did not fit is not tried again
    assert [re.findall(r"\d+", message) for message in caplog.messages] == [["16", "8"], ["8", "4"]]


def test_too_little_memory_for_a_single_window_is_said(tiny_model, monkeypatch):
    reader = Reader(tiny_model, "cpu", "no", batch_size=2)
    asked = little_memory(reader.backend, monkeypatch, fits=0)
    with pytest.raises(QAError, match=r"out of GPU memory with 1 window at once\..*device='cpu'"):
        list(reader.answer_all(EXAMPLES))
    assert asked == [2, 1]


def test_a_model_that_does_not_fit_the_gpu_is_said(tiny_model, monkeypatch):
    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(torch.nn.Module, "to", full)
    with pytest.raises(QAError, match=r"the model does not fit\..*device='cpu'"):
        Reader(tiny_model, "cpu", "no")


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_card_s_memory_is_freed_once_nothing_holds_what_did_not_fit(tiny_model, monkeypatch, device):
    backend, held, freed = Reader(tiny_model, "cpu", "no").backend, [], []

    def logits_at_once(batch):
        taken = torch.ones(1)
        held.append(weakref.ref(taken))
        if len(held) == 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return np.zeros((2, *batch["input_ids"].shape))

    monkeypatch.setattr(backend, "device", torch.device(device))
    monkeypatch.setattr(backend, "logits_at_once", logits_at_once)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: freed.append(held[0]()))
    backend.logits(dict.fromkeys(backend.inputs, np.ones((2, 8), dtype=np.int64)))
    assert len(held) == 3
    assert freed == ([None] if device == "cuda" else [])


def test_a_model_that_lacks_inner_weights_is_refused_and_one_without_its_output_layer_is_trainable(
    tiny_model, tmp_path
):
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    inner = next(name for name in weights if "attention" in name)
    save_file({n: t for n, t in weights.items() if n != inner}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(QAError, match=f"lacks 1 of its weights, among them {inner}.*the remedy"):
        load_encoder(folder, "the remedy")
    outer = {n: t for n, t in weights.items() if not n.startswith("qa_outputs.")}
    save_file(outer, folder / "model.safetensors", {"format": "pt"})
    assert load_encoder(folder, "the remedy")[1] == ["qa_outputs.bias", "qa_outputs.weight"]


def test_a_model_that_changes_answers_is_refused_and_removed(tiny_model, tmp_path, monkeypatch):
    """fp32 with noise in a weight must not stay; what was there before goes too, for it may be of other weights."""
    tool = load_script("tools/export_onnx.py")
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    (folder / ONNX_FILES["no"]).parent.mkdir()
    (folder / ONNX_FILES["no"]).write_bytes(b"of another time")
    original = export.export_fp32

    def export_with_noise(model_dir, path):
        original(model_dir, path)
        model = onnx.load(path)
        (tensor,) = [t for t in model.graph.initializer if "word_embeddings" in t.name]
        noise = np.random.default_rng(0).normal(size=tuple(tensor.dims)).astype(np.float32)
        tensor.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor) + noise, tensor.name))
        onnx.save(model, path)

    monkeypatch.setattr(export, "export_fp32", export_with_noise)
    with pytest.raises(QAError, match=r"model\.onnx, logits differ from PyTorch's by .*more than 0\.001"):
        tool.main(["--model_dir", str(folder), "--eval_file", str(DEV), "--max_samples", "12"])
    assert not (folder / ONNX_FILES["no"]).exists()
    assert not list(folder.glob("*.partial"))


def test_the_tool_refuses_bad_input(tmp_path, tiny_encoder, tiny_model):
    missing = tmp_path / "nothing"
    assert_refused(run_script("tools/export_onnx.py", "--model_dir", missing, code=2), "missing", "train.py")
    questions = ("--eval_file", DEV)
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "vocab.txt").write_text("[PAD]\n", encoding="utf-8")
    for script in ("evaluate.py", "tools/export_onnx.py"):  # the same of both
        done = run_script(script, "--model_dir", tmp_path / "old", *questions, code=2)
        assert_refused(done, "no config.json, tokenizer.json (its tokenizer is in an older form, vocab.txt), model",
                       "python train.py" if script.startswith("tools") else "Run: ")  # fmt: skip
    done = run_script("tools/export_onnx.py", "--model_dir", tiny_encoder, *questions, code=2)
    assert_refused(done, "not trained to answer")
    done = run_script("tools/export_onnx.py", "--model_dir", tiny_model, *questions, "--max_samples", 0, code=2)
    assert_refused(done, "--max_samples is 0")


@pytest.mark.parametrize("mode", [["demo"], ["ask", "--question", "Who wrote it?", "--context", TEXT]])
def test_an_exported_model_answers_without_torch_and_transformers(exported, mode):
    """Looked up in sys.modules of a process of its own after the answer: of all that is installed there are three
    libraries (coverage where it measures), and of ours what answers. numpy.ma comes with np.unique and np.isin."""
    code = (
        "import runpy, sys\n"
        f"sys.argv = ['predict.py', *{mode!r}, '--model_dir', {str(exported)!r}, '--device', 'cpu']\n"
        f"sys.path.insert(0, {str(PROJECT_ROOT)!r})\n"
        f"runpy.run_path({str(PROJECT_ROOT / 'predict.py')!r}, run_name='__main__')\n"
        "heavy = ['torch', 'transformers', 'datasets', 'evaluate', 'accelerate', 'pyarrow', 'pandas', 'matplotlib']\n"
        "loaded = set(sys.modules)\n"
        "print('loaded:', [name for name in heavy if name in loaded])\n"
        "from importlib.metadata import packages_distributions\n"
        "installed = set(packages_distributions()) - {'coverage', '_distutils_hack', 'extractive_qa', 'utils'}\n"
        "print('installed:', sorted(installed & {name.partition('.')[0] for name in loaded}))\n"
        "print('ours:', sorted(name for name in loaded if name.startswith(('extractive_qa.', 'numpy.ma'))))\n"
    )
    script = "loaded.py"
    (exported.parent / script).write_text(code, encoding="utf-8")
    done = run_script(str(exported.parent / script))
    assert "prediction:" in done.stdout
    assert "loaded: []" in done.stdout
    assert "installed: ['numpy', 'onnxruntime', 'tokenizers']" in done.stdout
    ours = re.findall(r"'([\w.]+)'", done.stdout.partition("ours:")[2])
    rooms = {name.split(".")[1] for name in ours}
    unused = {"batch", "bootstrap", "documents", "export", "hub", "report", "training", "web", "ma"}
    assert rooms & (unused | ({"metrics"} if "ask" in mode else set())) == set()
    assert ("extractive_qa.data.examples" in ours) is ("demo" in mode)
