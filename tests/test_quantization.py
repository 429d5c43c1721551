"""What tools/quantization.py makes of an exported model computes what the model computed."""

import sys

import numpy as np
import onnx
import onnxruntime
import pytest
from scripts import PROJECT_ROOT

from extractive_qa.data.examples import read_examples
from extractive_qa.reader import Reader
from utils.offline import SAMPLE_DATA_DIR

sys.path.insert(0, str(PROJECT_ROOT / "tools"))
import export_onnx
from quantization import Products, calibrate, to_int8, without_identities

TEXTS = read_examples(SAMPLE_DATA_DIR / "train.json")[:4]


@pytest.fixture(scope="module")
def model(tiny_model, tmp_path_factory):
    """The tiny MobileBERT as the exporter writes it."""
    path = tmp_path_factory.mktemp("exported") / "model.onnx"
    export_onnx.export_fp32(tiny_model, path)
    return onnx.load(path)


def logits(model: onnx.ModelProto) -> np.ndarray:
    """Start and end logits, (2, 3, 40), of made-up windows, two of them padded."""
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    ids = np.arange(120).reshape(3, 40) + 200
    mask = (np.arange(40) < np.array([[40], [31], [7]])).astype(np.int64)
    batch = {"input_ids": ids * mask, "attention_mask": mask, "token_type_ids": mask * (np.arange(40) > 9)}
    return np.stack(session.run(None, batch))


def operators(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def copy_of(model: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy


def test_every_use_of_a_weight_has_its_own(model):
    own = without_identities(copy_of(model))
    assert "Identity" in operators(model)
    assert "Identity" not in operators(own)
    np.testing.assert_array_equal(logits(own), logits(model))


def test_evening_out_channels_in_the_layer_before_changes_nothing_but_rounding(model, tiny_model):
    own = without_identities(copy_of(model))
    before = logits(own)
    calibrations = calibrate(own, Reader(tiny_model, "cpu", "no"), TEXTS)
    products = Products(own)
    evened = {name for name, how in calibrations.items() if how.factor is None}
    assert evened == {name for name in calibrations if products.linear_before(name)}
    # behind each feed-forward layer's Relu, and what queries and keys read
    assert sum(products.relu_before(name) is not None for name in evened) == 4
    assert len(evened) == 6
    np.testing.assert_allclose(logits(own), before, atol=1e-5 * np.ptp(before))


@pytest.mark.parametrize("by_row", [False, True], ids=["one range", "a range for each token"])
def test_products_in_integers_stay_close_and_take_the_relus_in(model, tiny_model, by_row):
    own = without_identities(copy_of(model))
    before = logits(own)
    calibrations = calibrate(own, Reader(tiny_model, "cpu", "no"), TEXTS)
    for how in calibrations.values():
        how.by_row = by_row
    small = to_int8(own, calibrations)
    assert "Relu" not in operators(small)
    assert operators(small).count("MatMulIntegerToFloat") == sum(map(len, Products(own).by_input.values()))
    assert np.abs(logits(small) - before).mean() < 0.02 * np.ptp(before)
