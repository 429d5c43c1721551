"""What extractive_qa.export.int8 makes of an exported model computes what the model computed."""

import numpy as np
import onnx
import onnxruntime
import pytest
from export.in_node import require_node, run_in_node
from onnx import TensorProto, helper, numpy_helper

from extractive_qa.data.examples import read_examples
from extractive_qa.export import export
from extractive_qa.export.int8 import ActivationRange, Products, measure_activation_ranges, to_int8, without_identities
from extractive_qa.reader import Reader
from utils.offline import SAMPLE_DATA_DIR

TEXTS = read_examples(SAMPLE_DATA_DIR / "train.json")[:4]


@pytest.fixture(scope="module")
def model(tiny_model, tmp_path_factory):
    """The tiny MobileBERT as the exporter writes it."""
    path = tmp_path_factory.mktemp("exported") / "model.onnx"
    export.export_fp32(tiny_model, path)
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
    ranges = measure_activation_ranges(own, Reader(tiny_model, "cpu", "no"), TEXTS)
    products = Products(own)
    evened = {name for name, how in ranges.items() if how.factor is None}
    assert evened == {name for name in ranges if products.linear_before(name)}
    # behind each feed-forward layer's Relu, and what queries and keys read
    assert sum(products.relu_before(name) is not None for name in evened) == 4
    assert len(evened) == 6
    np.testing.assert_allclose(logits(own), before, atol=1e-5 * np.ptp(before))


@pytest.mark.parametrize("by_row", [False, True], ids=["one range", "a range for each token"])
def test_products_in_integers_stay_close_and_take_the_relus_in(model, tiny_model, by_row):
    own = without_identities(copy_of(model))
    before = logits(own)
    ranges = measure_activation_ranges(own, Reader(tiny_model, "cpu", "no"), TEXTS)
    for how in ranges.values():
        how.by_row = by_row
    small = to_int8(own, ranges)
    assert "Relu" not in operators(small)
    assert operators(small).count("MatMulIntegerToFloat") == sum(map(len, Products(own).by_input.values()))
    assert np.abs(logits(small) - before).mean() < 0.02 * np.ptp(before)


def native(model: onnx.ModelProto, x: np.ndarray, _) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


def in_webassembly(model: onnx.ModelProto, x: np.ndarray, folder) -> np.ndarray:
    require_node()
    onnx.save(model, folder / "product.onnx")
    return np.array(run_in_node("product.mjs", folder / "product.onnx", given=x.tolist()))


@pytest.mark.parametrize("run", [native, in_webassembly])
@pytest.mark.parametrize("before", ["Identity", "Relu"])
def test_no_product_saturates_on_any_processor(before, run, tmp_path):
    """x86 processors without VNNI add pairs of products in 16 bits: large activations times weights of one sign did not
    fit. One that has VNNI does not show that, so the sums are also looked at here. WebAssembly, as in a browser, has
    kernels of its own."""
    weight = np.random.default_rng(0).normal(size=(65, 4)).astype(np.float32)  # 65: the last row is in no pair
    weight[:, :2] = 1, -1
    nodes = [helper.make_node(before, ["x"], ["a"]), helper.make_node("MatMul", ["a", "w"], ["y"], name="product")]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("x", "y"))
    graph = helper.make_graph(nodes, "graph", [x], [y], [numpy_helper.from_array(weight, "w")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", export.OPSET)], ir_version=8)
    small = to_int8(model, {"a": ActivationRange(factor=None, top=1.0, by_row=False)})
    (product,) = (node for node in small.graph.node if node.op_type == "MatMulIntegerToFloat")
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in small.graph.initializer}
    weight8, step, steps, zero = (arrays[name] for name in product.input[1:5])
    integers = 255 * weight8.astype(int)  # ones become 255
    pairs = np.pad(integers, ((0, 1), (0, 0))).reshape(-1, 2, 4).sum(axis=1)
    assert pairs.min() >= -(2**15) and pairs.max() < 2**15
    for rows in (1, 5):  # one row alone is computed in another way
        found = run(small, np.ones((rows, 65), np.float32), tmp_path)
        exact = integers.sum(axis=0) - int(zero) * weight8.sum(axis=0, dtype=int)
        np.testing.assert_array_equal(np.rint(found / (step * steps)), np.tile(exact, (rows, 1)))


def test_the_table_of_words_is_in_integers_and_the_other_tables_are_not(model, tiny_model):
    own = without_identities(copy_of(model))
    ranges = measure_activation_ranges(own, Reader(tiny_model, "cpu", "no"), TEXTS)
    before = {tensor.name: numpy_helper.to_array(tensor) for tensor in own.graph.initializer}
    after = {tensor.name: numpy_helper.to_array(tensor) for tensor in to_int8(own, ranges).graph.initializer}
    (name,) = [name for name in before if "word_embeddings" in name]
    assert name not in after
    assert [part for part in before if "position_embeddings" in part and part in after]
    (table,) = [name for name in after if name.endswith("_table")]
    assert after[table].dtype == np.int8
    restored = after[table] * after[table.replace("_table", "_steps")]
    assert np.abs(restored - before[name]).max() <= np.abs(before[name]).max() / 127 / 2 + 1e-6


def question(number: int, each: int = 1) -> dict:
    """One of `each` questions on a text."""
    answers = {"text": ["right"], "answer_start": [0]}
    return {"id": str(number), "question": "?", "context": f"text {number // each}", "answers": answers}


@pytest.mark.parametrize(
    ("wrong", "questions", "error", "stays"),
    [
        (0, 80, 0.03, True), (0, 80, 0.11, False),  # with few questions the logits tell
        (1, 80, 0.03, True), (8, 80, 0.03, False),  # 1.25 points are chance, 10 are not
        (18, 2_000, 0.03, True), (40, 2_000, 0.03, False),  # 0.9 points are within chance of 0.5; 2 are not
    ],
)  # fmt: skip
def test_int8_is_refused_for_a_loss_beyond_chance(wrong, questions, error, stays):
    examples = [question(number) for number in range(questions)]
    plain = {example["id"]: "right" for example in examples}
    found = plain | {str(number): "wrong" for number in range(wrong)}
    check = export.judge("int8", {"no": plain, "int8": found}, examples, 1.0, error, 1)
    assert (check.refused == "") is stays
    assert check.f1_lost == pytest.approx(100 * wrong / questions)
    assert check.answers_changed == wrong / questions


@pytest.mark.parametrize(("each", "stays"), [(1, False), (20, True), (100, False)])
def test_a_loss_on_one_text_is_not_yet_one_on_others(each, stays):
    """All 8 mistakes are on the first text of 5; of a single text there is nothing but its questions to go by."""
    examples = [question(number, each) for number in range(100)]
    plain = {example["id"]: "right" for example in examples}
    found = plain | {str(number): "wrong" for number in range(8)}
    check = export.judge("int8", {"no": plain, "int8": found}, examples, 1.0, 0.03, 1)
    assert (check.refused == "") is stays
    low, high = check.f1_lost_interval
    assert low <= check.f1_lost == 8 <= high
    assert (low <= 0.5) is stays


def test_nothing_is_made_up_where_nothing_changed():
    examples = [question(number) for number in range(80)]
    plain = {example["id"]: "right" for example in examples}
    check = export.judge("int8", {"no": plain, "int8": plain}, examples, 1.0, 0.03, 1)
    assert (check.f1_lost, check.f1_lost_interval, check.refused) == (0, None, "")
    # and all of them wrong is no chance
    none = dict.fromkeys(plain, "wrong")
    check = export.judge("int8", {"no": plain, "int8": none}, examples, 1.0, 0.03, 1)
    assert (check.f1_lost, check.f1_lost_interval) == (100, None)
    assert "100.00 points of F1 are lost" in check.refused
