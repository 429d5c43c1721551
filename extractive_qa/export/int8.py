"""A model's products in 8-bit integers, and next to nothing lost by it: for export.py.

A few channels, and in some layers a few tokens, are many times larger than all others, and one scale for all would
leave these no more than a handful of steps (-5 points of F1 on MiniLM). So the channels share their range with the
weights (SmoothQuant, arXiv 2211.10438), and where tokens differ each has its own scale. No scale depends on the batch,
so an answer does not either. No sum of products overflows, not even in the 16 bits of x86 without VNNI: from the same
inputs every processor computes the same integers. The floats between them round differently elsewhere, and now and then
one falls to the other of two integers: noise, not a loss. A model that was checked on one processor needs no check on
another.
"""

from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from itertools import chain

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper

from extractive_qa.model.families import LAST_LAYERS
from extractive_qa.preprocessing.batches import pad_batch
from extractive_qa.preprocessing.windows import prepare_validation_features
from extractive_qa.progress import NoProgress
from extractive_qa.reader import Reader

TABLE_ROWS = 1_000  # a table of embeddings with so many is kept in integers
ROW_RATIO = 3  # tokens whose largest value passes this many times the median get scales of their own


def without_identities(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with a weight of its own for every use: the exporter keeps equal ones once and passes copies through
    nodes."""
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    nodes = []
    for node in model.graph.node:
        if node.op_type == "Identity" and node.input[0] in weights:
            copy = model.graph.initializer.add()
            copy.CopyFrom(weights[node.input[0]])
            copy.name = node.output[0]
        else:
            nodes.append(node)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


class Products:
    """The graph of a model, by name: its weights, and the MatMul nodes that multiply by one, by their input, as several
    may share it. The output layer is not among them and stays in fp32: it is tiny."""

    def __init__(self, model: onnx.ModelProto):
        self.weights = {tensor.name: tensor for tensor in model.graph.initializer}
        self.makers = {name: node for node in model.graph.node for name in node.output}
        self.readers: dict[str, list] = {output.name: [output] for output in model.graph.output}
        self.by_input: dict[str, list] = {}
        for node in model.graph.node:
            for name in node.input if node.op_type != "Shape" else ():  # which reads no values
                self.readers.setdefault(name, []).append(node)
            last = any(f"/{name[:-1]}/" in node.name for name in LAST_LAYERS)
            if node.op_type == "MatMul" and node.input[1] in self.weights and not last:
                self.by_input.setdefault(node.input[0], []).append(node)

    def bias_of(self, product: onnx.NodeProto) -> tuple[onnx.NodeProto, str] | None:
        """The node that adds a bias to a product and nothing else reads the product, and the bias's name."""
        reader, *others = self.readers[product.output[0]]
        if others or getattr(reader, "op_type", "") != "Add":
            return None
        bias = [name for name in reader.input if name in self.weights and len(self.weights[name].dims) == 1]
        return (reader, bias[0]) if bias else None

    def relu_before(self, x: str) -> onnx.NodeProto | None:
        """The Relu that gives `x`, where only products read it."""
        node = self.makers.get(x)
        only_products = len(self.readers[x]) == len(self.by_input.get(x, ()))
        return node if node is not None and node.op_type == "Relu" and only_products else None

    def linear_before(self, x: str) -> tuple[str, str] | None:
        """Names of the weight and the bias of the layer that gives `x`, through a Relu or not, where only products read
        `x`: its channels can be scaled in that layer, as a Relu lets positive factors through."""
        relu = self.relu_before(x)
        y = relu.input[0] if relu else x
        if len(self.readers[y]) != (1 if relu else len(self.by_input.get(x, ()))):
            return None
        for product in chain(*self.by_input.values()):
            add, bias = self.bias_of(product) or (None, None)
            if add and add.output[0] == y:
                linear = product.input[1], bias
                return linear if all(len(self.readers[name]) == 1 for name in linear) else None
        return None

    def array(self, name: str) -> np.ndarray:
        return numpy_helper.to_array(self.weights[name])

    def set(self, name: str, value: np.ndarray) -> None:
        self.weights[name].CopyFrom(numpy_helper.from_array(value.astype(np.float32), name))


@dataclass
class ActivationRange:
    """How one activation becomes 8-bit integers: divided by `factor` (channels,), None where its channels were evened
    out before; then by its row's largest value (`by_row`) or by `top`, then times 127 (255 behind a Relu)."""

    factor: np.ndarray | None
    top: float
    by_row: bool


def record_activations(
    model: onnx.ModelProto, names: list[str], reader: Reader, examples: Sequence[dict], progress: Callable
) -> Iterator[list[np.ndarray]]:
    """The tensors `names`, (tokens, channels) each, for every window of `examples`."""
    features = prepare_validation_features(
        examples, reader.tokenizer, reader.settings["max_length"], reader.settings["doc_stride"]
    )
    watched = deepcopy(model)
    watched.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names)
    session = onnxruntime.InferenceSession(watched.SerializeToString(), providers=["CPUExecutionProvider"])
    inputs = [node.name for node in session.get_inputs()]
    for i in progress(range(len(features)), desc="activation ranges", unit=" windows", leave=False):
        batch = pad_batch([features[i]], reader.settings["max_length"], *reader.padding)
        tokens = int(batch["attention_mask"].sum())
        values = session.run(names, {name: batch[name] for name in inputs})
        yield [value[0, :tokens] for value in values]


def measure_activation_ranges(
    model: onnx.ModelProto, reader: Reader, examples: Sequence[dict], progress: Callable = NoProgress
) -> dict[str, ActivationRange]:
    """The ActivationRange of every activation that enters a product, by name, from its values on `examples`.

    The factors of channels that come straight from a linear layer are taken into its weights and out of the next
    layer's, in `model` itself, which computes what it did before.
    """
    products = Products(model)
    largest = dict.fromkeys(products.by_input, 0.0)  # of each channel
    for values in record_activations(model, list(largest), reader, examples, progress):
        for name, value in zip(largest, values, strict=True):
            largest[name] = np.maximum(largest[name], np.abs(value).max(axis=0))
    factors: dict[str, np.ndarray | None] = {}
    for name, nodes in products.by_input.items():
        rows = [np.abs(products.array(node.input[1])).max(axis=1) for node in nodes]
        factor = np.sqrt(np.maximum(largest[name], 1e-5) / np.maximum(np.maximum.reduce(rows), 1e-5))
        factors[name] = (factor / np.exp(np.log(factor).mean())).astype(np.float32)
        if linear := products.linear_before(name):
            for tensor in linear:  # (inputs, channels) and (channels,)
                products.set(tensor, products.array(tensor) / factors[name])
            for node in nodes:
                products.set(node.input[1], products.array(node.input[1]) * factors[name][:, None])
            factors[name] = None
    tops: dict[str, list] = {name: [] for name in factors}  # of each token
    for values in record_activations(model, list(factors), reader, examples, progress):
        for name, value in zip(factors, values, strict=True):
            scaled = value if factors[name] is None else value / factors[name]
            tops[name].append(np.abs(scaled).max(axis=1))
    ranges = {}
    for name, parts in tops.items():
        top = np.concatenate(parts)
        by_row = bool(top.max() > ROW_RATIO * np.median(top))
        ranges[name] = ActivationRange(factors[name], float(top.max()), by_row)
    return ranges


def largest_pairs(matrix: np.ndarray) -> np.ndarray:
    """The largest sum of two weights of one sign in rows 2k and 2k + 1 of each column: (inputs, outputs) to (outputs,).

    Such a pair's products are added in 16 bits on x86 processors without VNNI (vpmaddubsw), and what is beyond is cut
    off: 255 * 127 twice is. A weight beside one of the other sign counts alone.
    """
    pairs = np.pad(matrix, ((0, len(matrix) % 2), (0, 0))).reshape(-1, 2, matrix.shape[1])
    return np.maximum(pairs.clip(min=0).sum(axis=1), -pairs.clip(max=0).sum(axis=1)).max(axis=0)


def is_large_table(tensor: onnx.TensorProto | None, read_by: str) -> bool:
    """Whether a weight is a table of words, looked up by `read_by`: RoFormer's of positions is as large, and of sines
    that a step for each would spoil."""
    return tensor is not None and len(tensor.dims) == 2 and tensor.dims[0] >= TABLE_ROWS and read_by == "input_ids"


def to_int8(model: onnx.ModelProto, ranges: dict[str, ActivationRange]) -> onnx.ModelProto:
    """The model with its products in 8-bit integers: weights per output channel, activations by `ranges`; and its table
    of word embeddings, with a step for each word."""
    quantized = deepcopy(model)
    graph, products = quantized.graph, Products(quantized)
    product_names = {node.name for nodes in products.by_input.values() for node in nodes}
    constants, nodes, absorbed, tables, ready = {}, [], set(), set(), {}

    def constant(name: str, value: np.ndarray) -> str:
        constants[name] = numpy_helper.from_array(value, name)
        return name

    def add(operator: str, inputs: list[str], output: str, **attributes) -> str:
        domain = "com.microsoft" if operator == "MatMulIntegerToFloat" else ""
        nodes.append(helper.make_node(operator, inputs, [output], name=output, domain=domain, **attributes))
        return output

    def quantize(x: str) -> tuple[str, str, str]:
        """Names of `x` in integers, of their step, and of the integer that stands for 0."""
        how, relu = ranges[x], products.relu_before(x)
        # behind a Relu nothing is negative: 0 stands for 0, and cutting off what is below is the Relu
        zero = constant("int8_zero_of_relu", np.uint8(0)) if relu else constant("int8_zero", np.uint8(128))
        scaled = relu.input[0] if relu else x
        if how.factor is not None:
            scaled = add("Mul", [scaled, constant(f"{x}_factor", 1 / how.factor)], f"{x}_scaled")
        if how.by_row:
            row = scaled if relu else add("Abs", [scaled], f"{x}_abs")
            row = add("ReduceMax", [row], f"{x}_row_max", axes=[-1], keepdims=1)
            row = add("Max", [row, constant(f"{x}_tiny", np.float32(1e-12))], f"{x}_row")
            scaled = add("Div", [scaled, row], f"{x}_unit")
        levels = 255 if relu else 127
        step = constant(f"{x}_step", np.float32((1 if how.by_row else max(how.top, 1e-12)) / levels))
        return add("QuantizeLinear", [scaled, step, zero], f"{x}_int8"), step, zero

    def look_up(table: str, ids: str, output: str) -> None:
        """Rows of a table by their numbers, from the table in integers."""
        rows = products.array(table)
        steps = np.maximum(np.abs(rows).max(axis=1, keepdims=True), 1e-12).astype(np.float32) / 127
        integers = constant(f"{output}_table", np.rint(rows / steps).astype(np.int8))
        row = add("Gather", [integers, ids], f"{output}_integers")
        step = add("Gather", [constant(f"{output}_steps", steps), ids], f"{output}_step")
        add("Mul", [add("Cast", [row], f"{output}_unit", to=onnx.TensorProto.FLOAT), step], output)

    for node in graph.node:
        if node.name in absorbed:
            continue
        if node.op_type == "Gather" and is_large_table(products.weights.get(node.input[0]), node.input[1]):
            look_up(node.input[0], node.input[1], node.output[0])
            tables.add(node.input[0])
            continue
        if node.name not in product_names:
            nodes.append(node)
            continue
        (x, weight), output, how = node.input, node.output[0], ranges[node.input[0]]
        if x not in ready:
            ready[x] = quantize(x)
        integers, step, zero = ready[x]
        matrix = products.array(weight) if how.factor is None else products.array(weight) * how.factor[:, None]
        # A pair sums to 127, rounded to 128 at most, and 255 * 128 fits 16 bits: exact everywhere, at full speed. RMS
        # error of MiniLM's logits over their spread 0.028; unbounded, exact with VNNI only, 0.027; 7-bit weights 0.033,
        # activations 0.052. Unbounded uint8 weights are exact too: 1.65 times the time with VNNI, 1.2 times without.
        steps = np.maximum(largest_pairs(matrix), 1e-12).astype(np.float32) / 127
        weight8 = constant(f"{output}_weight", np.rint(matrix / steps).astype(np.int8))
        factors = [integers, weight8, step, constant(f"{output}_steps", steps), zero]
        bias = products.bias_of(node)
        if how.by_row:
            add("Mul", [add("MatMulIntegerToFloat", factors, f"{output}_unit"), f"{x}_row"], output)
        elif bias:
            absorbed.add(bias[0].name)
            add("MatMulIntegerToFloat", [*factors, "", bias[1]], bias[0].output[0])
        else:
            add("MatMulIntegerToFloat", factors, output)
    read = {name for node in nodes for name in node.input}
    relus = {relu.name for x in ready if (relu := products.relu_before(x)) and x not in read}
    nodes = [node for node in nodes if node.name not in relus]
    replaced = tables | {node.input[1] for group in products.by_input.values() for node in group}
    kept = [tensor for tensor in graph.initializer if tensor.name not in replaced]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend([*kept, *constants.values()])
    quantized.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return quantized
