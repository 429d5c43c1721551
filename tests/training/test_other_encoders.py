"""Encoders of other families than MobileBERT go the whole way: they learn, resume and are exported. Small, random."""

import shutil

import numpy as np
import onnx
import pytest
import torch
from small_families import MADE, make_folder
from small_training import SMALL, assert_equal_weights, make_run, train_here, train_script

from extractive_qa.data.examples import read_examples
from extractive_qa.errors import QAError
from extractive_qa.export import export
from extractive_qa.export.int8 import Products
from extractive_qa.model.backends import OnnxBackend
from extractive_qa.model.folder import ONNX_FILES
from extractive_qa.preprocessing.windows import prepare_validation_features
from extractive_qa.reader import Reader
from utils.offline import SAMPLE_DATA_DIR

FAMILIES = [name for name in MADE if name not in ("bert, cased", "mobilebert")]
NEWER = ["deberta", "modernbert", "ernie", "squeezebert", "convbert", "roformer"]
QUESTIONS = read_examples(SAMPLE_DATA_DIR / "dev.json")
TWO_STEPS = (*SMALL, "--max_steps", 2, "--save_steps", 1)


@pytest.mark.parametrize("name", FAMILIES)
def test_other_families_are_trained_and_exported(name, tmp_path):
    make_folder(tmp_path / "model", name)
    run, _ = make_run(tmp_path / "model", tmp_path / "out")
    before = {n: parameter.detach().clone() for n, parameter in run.model.named_parameters()}
    train_script.accumulate_gradients(run, np.arange(4))
    run.optimizer.step()
    assert any(not torch.equal(parameter, before[n]) for n, parameter in run.model.named_parameters())
    folder = tmp_path / "final_model"
    folder.mkdir()
    run.write_model(folder, scores=None)

    export.export_fp32(folder, folder / "model.onnx")
    plain = Reader(folder, "cpu", "no", backend="torch")
    exported = Reader(folder, backend=OnnxBackend(folder / "model.onnx", "no"))
    assert exported.padding == plain.padding
    features = prepare_validation_features(QUESTIONS[:4], plain.tokenizer, 384, 128)
    for window in range(len(features)):
        (row,), *expected = plain.logits(features, [window])
        _, *found = exported.logits(features, [window])
        np.testing.assert_allclose(found, expected, atol=1e-4)
        assert row["context_end"] > row["context_start"]


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name != "modernbert")) for name in NEWER]
)
def test_a_training_that_was_stopped_after_a_step_goes_on_to_the_same_weights(name, tmp_path):
    make_folder(tmp_path / "model", name)
    once, again = tmp_path / "once", tmp_path / "again"
    train_here(*TWO_STEPS, "--model_dir", tmp_path / "model", "--output_dir", once)
    shutil.copytree(once / "checkpoint-1", again / "checkpoint-1")
    train_here("--resume", "--output_dir", again)
    assert_equal_weights(once / "checkpoint-2", again / "checkpoint-2")
    with pytest.raises(AssertionError):
        assert_equal_weights(once / "checkpoint-1", once / "checkpoint-2")  # it moved
    assert Reader(once / "final_model", "cpu", "no").answer("Who?", QUESTIONS[0]["context"])["text"]


@pytest.mark.parametrize("name", ["deberta-v2", *NEWER])
def test_logits_in_integers_stay_near_pytorchs(name, tmp_path, caplog):
    make_folder(tmp_path / "model", name)
    (tmp_path / "model" / "onnx").mkdir()
    (tmp_path / "model" / ONNX_FILES["int8"]).write_bytes(b"of an earlier export")
    kept, checks = export.export_model(tmp_path / "model", QUESTIONS[:10], QUESTIONS[:8], force=True)
    assert not list((tmp_path / "model").glob("*.partial"))
    assert checks[0].logits_error < 1e-5
    if name == "squeezebert":
        assert (
            [path.relative_to(tmp_path / "model").as_posix() for path in kept]
            == [ONNX_FILES["no"]]
            == [check.name for check in checks]
        )
        assert not (tmp_path / "model" / ONNX_FILES["int8"]).exists()
        assert "onnx/model_quantized.onnx is not made: the layers of this model are convolutions" in caplog.text
        assert Reader(tmp_path / "model").backend.precision == "no"
        return
    assert [check.name for check in checks] == list(reversed(ONNX_FILES.values()))
    assert checks[1].logits_error < export.MOST_ERROR["int8"]
    model = onnx.load(tmp_path / "model" / ONNX_FILES["int8"])
    left = [node.name for node in Products(model).by_input]
    assert not left  # every product but the last is in integers
    last = "classifier" if name == "modernbert" else "qa_outputs"
    assert sum(node.op_type == "MatMul" and f"/{last}/" in node.name for node in model.graph.node) == 1


def test_roformers_table_of_positions_stays_as_it_is(tmp_path):
    """It has as many rows as a vocabulary, and was taken for one."""
    make_folder(tmp_path / "model", "roformer")
    export.export_model(tmp_path / "model", QUESTIONS[:2], QUESTIONS[:2], force=True)
    tables = {
        tuple(tensor.dims)
        for tensor in onnx.load(tmp_path / "model" / ONNX_FILES["int8"]).graph.initializer
        if len(tensor.dims) == 2 and tensor.dims[0] >= 1000 and tensor.data_type == onnx.TensorProto.FLOAT
    }
    assert (1536, 32) in tables


def test_less_memory_for_more_time_is_refused_where_the_library_can_not_do_it(tmp_path):
    make_folder(tmp_path / "model", "squeezebert")
    with pytest.raises(QAError, match=r"--gradient_checkpointing: .* can't do it for this model \(squeezebert\)"):
        make_run(tmp_path / "model", tmp_path / "out", "--gradient_checkpointing")
