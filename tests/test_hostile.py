"""Folders from strangers: nothing in them is run, nothing outside of them is read, nobody is called. And no line of the
project would let them.
"""

import ast
import io
import json
import pickle
import shutil
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from scripts import PROJECT_ROOT, assert_refused, run_script

from extractive_qa.data.examples import read_examples
from extractive_qa.errors import QAError
from extractive_qa.files.manifest import write_manifest
from extractive_qa.model.folder import ONNX_FILES, ONNX_MANIFEST
from extractive_qa.model.loading import load_encoder
from extractive_qa.reader import Reader
from utils.offline import SAMPLE_DATA_DIR

HOSTILE = "hostile folder"
QUESTION = ("--question", "Who won?", "--context", "Ada won.")
DEV = SAMPLE_DATA_DIR / "dev.json"
# code of its own: whoever imports it leaves a trace
CODE = """
from pathlib import Path
Path({trap!r}).touch()
from transformers import BertConfig, BertForQuestionAnswering
class Config(BertConfig):
    model_type = "own"
class Model(BertForQuestionAnswering):
    config_class = Config
"""
OWN_CODE = {"AutoConfig": "modeling_x.Config", "AutoModelForQuestionAnswering": "modeling_x.Model"}


@pytest.fixture
def trap(tmp_path):
    """What exists once something of a stranger's was run."""
    return tmp_path / "trap"


@pytest.fixture
def folder(tiny_model, tmp_path, trap, pickled):
    """A model folder with code beside the weights."""
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    for name in ("modeling_x.py", "configuration_x.py", "tokenization_x.py", "__init__.py", "conftest.py"):
        (folder / name).write_text(CODE.format(trap=str(trap)), encoding="utf-8")
    return folder


@pytest.fixture
def pickled(trap):
    """A pickle that runs code when it is loaded."""

    class Trap:
        def __reduce__(self):
            return Path.touch, (trap,)

    return pickle.dumps(Trap())


def change(path, **values):
    """Sets keys of a JSON file."""
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(content | values), encoding="utf-8")


# ---- code


@pytest.mark.fault(HOSTILE)
@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"auto_map": OWN_CODE, "model_type": "own"}, "code of its own, which is never run"),
        ({"auto_map": {key: f"a/b--{value}" for key, value in OWN_CODE.items()}, "model_type": "own"}, "never run"),
        ({"auto_map": OWN_CODE, "model_type": None}, "can't be loaded"),
        ({"model_type": "own"}, "can't be loaded"),
        ({"model_type": "../x"}, "can't be loaded"),
    ],
    ids=["own type", "of a repository", "no type", "unknown type", "type like a path"],
)
@pytest.mark.parametrize("typed", ["y\n" * 9, ""], ids=["yes", "nothing"])
def test_code_in_a_folder_is_never_run(typed, config, says, folder, trap, monkeypatch):
    """transformers would ask "Do you wish to run the custom code? [y/N]", and take a y for it."""
    change(folder / "config.json", **config)
    sys_path = list(sys.path)
    monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
    with pytest.raises(QAError, match=says):
        load_encoder(folder, "Run: this")
    assert sys.stdin.read() == typed  # nobody was asked
    assert not trap.exists()
    assert sys.path == sys_path


@pytest.mark.fault(HOSTILE)
def test_a_known_model_with_code_beside_it_is_read_as_what_it_is(folder, trap):
    auto_map = {**OWN_CODE, "AutoTokenizer": ["tokenization_x.Tokenizer", None], "AutoModel": "a/b--modeling_x.Model"}
    change(folder / "config.json", auto_map=auto_map, _name_or_path="google/mobilebert-uncased", trust_remote_code=True)
    change(folder / "tokenizer_config.json", auto_map=auto_map, tokenizer_class="Tokenizer")
    answer = Reader(folder, "cpu").answer("Who won?", "Ada won.")
    assert answer["text"] in "Ada won."
    assert not trap.exists()


@pytest.mark.fault(HOSTILE)
def test_the_scripts_run_none_of_it_either(folder, trap, tmp_path):
    """From within the folder, as a user who just unpacked it might, and with a y for every question."""
    change(folder / "config.json", auto_map=OWN_CODE, model_type="own")
    done = run_script("predict.py", "ask", "--model_dir", ".", *QUESTION, cwd=folder, stdin="y\n" * 9, code=2)
    assert_refused(done, "never run")
    files = ("--train_file", DEV, "--eval_file", DEV, "--output_dir", tmp_path / "output")
    done = run_script("train.py", "--model_dir", folder, *files, stdin="y\n" * 9, code=2)
    assert_refused(done, "never run")
    assert not trap.exists()


@pytest.mark.fault(HOSTILE)
@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.safetensors", "model.safetensors.index.json"])
def test_pickles_are_not_read_under_any_name(name, folder, trap, pickled):
    (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(pickled)
    if name.endswith("json"):
        (folder / name).write_text(json.dumps({"metadata": {}, "weight_map": {"x": "x.bin"}}), encoding="utf-8")
        (folder / "x.bin").write_bytes(pickled)
        (folder / "x.safetensors").write_bytes(pickled)
    with pytest.raises(QAError, match=r"is a pickle and is not read|can't be loaded|names other files"):
        load_encoder(folder, "Run: this")
    assert not trap.exists()


@pytest.mark.fault(HOSTILE)
def test_not_even_a_harmless_pickle_is_read(folder):
    """Beside safetensors that are called something else."""
    model, _ = load_encoder(folder, "Run: this")
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    (folder / "model.safetensors").rename(folder / "other.safetensors")
    with pytest.raises(QAError, match="can't be loaded"):
        load_encoder(folder, "Run: this")


@pytest.mark.fault(HOSTILE)
@pytest.mark.parametrize("content", ["pickle", "{}", "[]", '{"model": {"type": "Own", "code": "x.py"}}', ""])
def test_tokenizers_are_json_only(content, folder, trap, pickled):
    (folder / "tokenizer.json").write_bytes(pickled if content == "pickle" else content.encode())
    for name in ("tokenizer.pkl", "vocab.pkl"):
        (folder / name).write_bytes(pickled)
    with pytest.raises(QAError, match="can't be read as a tokenizer"):
        Reader(folder, "cpu")
    assert not trap.exists()


# ---- what leads out of a folder


@pytest.mark.fault(HOSTILE)
@pytest.mark.parametrize(
    "config",
    [
        {"_attn_implementation": "stranger/kernel"},
        {"attn_implementation": "kernels-community/flash-attn"},
        {"_attn_implementation": "flash_attention_2"},
        {"quantization_config": {"quant_method": "bitsandbytes", "load_in_8bit": True}},
        {"quantization_config": {"quant_method": "gptq", "bits": 4}},
        {"transformers_weights": "../model/model.safetensors"},
        {"transformers_weights": "pytorch_model.bin"},
    ],
    ids=str,
)
def test_a_folder_that_needs_more_than_itself_is_refused(config, folder):
    change(folder / "config.json", **config)
    for use in (load_encoder, lambda path, _: Reader(path, "cpu")):
        with pytest.raises(QAError, match="is no model on its own"):
            use(folder, "Run: this")


@pytest.mark.fault(HOSTILE)
@pytest.mark.parametrize("base", ["google/mobilebert-uncased", "../other"])
def test_an_adapter_to_another_model_is_refused(base, folder):
    adapter = {"base_model_name_or_path": base, "peft_type": "LORA", "auto_mapping": {"parent_library": "os"}}
    (folder / "adapter_config.json").write_text(json.dumps(adapter), encoding="utf-8")
    with pytest.raises(QAError, match="an addition to another model"):
        load_encoder(folder, "Run: this")


@pytest.mark.fault(HOSTILE)
@pytest.mark.parametrize(
    "shard",
    ["../other/model.safetensors", "/etc/model.safetensors", "C:\\x.safetensors", "..\\x.safetensors", "x.bin",
     "x.safetensors\0", "．．/x.safetensors", 1, None, ["x.safetensors"]],
    ids=repr,
)  # fmt: skip
def test_an_index_that_names_other_files_is_refused(shard, folder, tiny_model):
    shutil.copytree(tiny_model, folder.parent / "other")
    (folder / "model.safetensors").rename(folder / "model-1.safetensors")
    index = {"metadata": {}, "weight_map": {"mobilebert.embeddings.word_embeddings.weight": shard}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    with pytest.raises(QAError, match="names other files than safetensors in this folder"):
        load_encoder(folder, "Run: this")


def test_weights_in_several_files_are_read(folder, tiny_model):
    model, _ = load_encoder(tiny_model, "Run: this")
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="100KB")
    assert len(list(folder.glob("*.safetensors"))) > 1
    expected, found = (load_encoder(path, "Run: this")[0].state_dict() for path in (tiny_model, folder))
    assert all((found[name] == tensor).all() for name, tensor in expected.items())


@pytest.mark.fault(HOSTILE)
@pytest.mark.parametrize(
    "config",
    [{"hidden_size": "x"}, {"num_attention_heads": 0}, {"hidden_act": "stranger"}, {"num_hidden_layers": -1},
     {"label2id": 1}, {"vocab_size": 10**15}, {"architectures": 7}, {"id2label": ["x"]}, {"attention_bias": {"a": 1}}],
    ids=str,
)  # fmt: skip
def test_a_config_of_nonsense_is_refused_or_ignored(config, folder):
    change(folder / "config.json", **config)
    try:
        load_encoder(folder, "Run: this")
    except QAError as error:
        assert "Run: this" in str(error)


@pytest.mark.fault(HOSTILE)
@pytest.mark.parametrize("content", [b"", b"[]", b"null", b"\xff", b"[" * 100_000, b'"model_type"', b"{"])
def test_a_config_that_is_no_object_is_refused(content, folder):
    (folder / "config.json").write_bytes(content)
    with pytest.raises(QAError, match=r"config\.json (can't be read as JSON|holds no JSON object|is not UTF-8)"):
        Reader(folder, "cpu")


@pytest.mark.fault(HOSTILE)
@pytest.mark.parametrize("where", ["above", "absolute", "behind a link"])
def test_an_onnx_model_reads_nothing_outside_its_folder(where, folder, tmp_path):
    """Weights of an ONNX file may lie in other files. ONNX Runtime takes them from its own folder alone."""
    path = folder / ONNX_FILES["no"]
    path.parent.mkdir()
    secret = tmp_path / "secret.bin"
    secret.write_bytes(np.arange(4, dtype=np.float32).tobytes())
    if where == "behind a link":
        try:
            (path.parent / "link.bin").symlink_to(secret)
        except OSError:
            pytest.skip("needs the right to make links")
    location = {"above": "../secret.bin", "absolute": str(secret), "behind a link": "link.bin"}[where]
    weights = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    for key, value in {"location": location, "offset": "0", "length": "16"}.items():
        weights.external_data.add(key=key, value=value)
    inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, ["B", "L"]) for name in ("input_ids",)]
    output = helper.make_tensor_value_info("start_logits", TensorProto.FLOAT, [4])
    graph = helper.make_graph([helper.make_node("Identity", ["w"], ["start_logits"])], "g", inputs, [output], [weights])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    path.write_bytes(model.SerializeToString())
    listed = [folder / "model.safetensors", folder / "config.json", path]
    write_manifest(folder, "a stranger", None, paths=listed, name=ONNX_MANIFEST)
    with pytest.raises(QAError, match=r"model\.onnx can't be loaded: .*[Ee]xternal data"):
        Reader(folder, "cpu", "no", backend="onnx")
    # the same from within the folder is fine, or the test would show nothing
    (path.parent / "inside.bin").write_bytes(secret.read_bytes())
    weights.external_data[0].value = "inside.bin"
    del graph.initializer[:]
    graph.initializer.append(weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10), path)
    write_manifest(folder, "a stranger", None, paths=listed, name=ONNX_MANIFEST)
    assert Reader(folder, "cpu", "no", backend="onnx").backend.inputs == ["input_ids"]


@pytest.mark.fault(HOSTILE)
@pytest.mark.parametrize("listing", ["state.json", "dataset_dict.json"])
@pytest.mark.parametrize("name", ["../../other/{}", "{root}/other/{}", "http://127.0.0.1:9/{}", "..\\other\\{}"])
def test_a_saved_dataset_reads_nothing_outside_its_folder(name, listing, tmp_path):
    from datasets import Dataset, DatasetDict

    rows = [{"id": "1", "question": "Who?", "context": "Ada.", "answers": {"text": ["Ada"], "answer_start": [0]}}]
    for folder in ("mine", "other"):
        DatasetDict({"train": Dataset.from_list(rows)}).save_to_disk(str(tmp_path / folder))
    assert read_examples(tmp_path / "mine", "train")[0]["id"] == "1"
    if listing == "state.json":
        file = name.format("train/data-00000-of-00001.arrow", root=tmp_path.as_posix())
        change(tmp_path / "mine" / "train" / "state.json", _data_files=[{"filename": file}])
    else:
        change(
            tmp_path / "mine" / "dataset_dict.json", splits=["train", name.format("train", root=tmp_path.as_posix())]
        )
    with pytest.raises(QAError, match=f"{listing} names .* outside its folder"):
        read_examples(tmp_path / "mine", "train")


@pytest.mark.slow
@pytest.mark.fault(HOSTILE)
def test_a_pickle_among_a_checkpoint_s_files_is_not_run(tiny_model, tmp_path, trap, pickled):
    """optimizer.pt is read for tensors and plain values alone."""
    output = tmp_path / "output"
    small = ("--device", "cpu", "--max_train_samples", 4, "--max_eval_samples", 2, "--save_steps", 1, "--max_steps", 2)
    flags = ("--model_dir", tiny_model, "--train_file", DEV, "--eval_file", DEV, "--output_dir", output, *small)
    run_script("train.py", *flags)
    (checkpoint,) = output.glob("checkpoint-2")
    size = (checkpoint / "optimizer.pt").stat().st_size
    (checkpoint / "optimizer.pt").write_bytes(pickled.ljust(size, b"\0"))
    run_script("train.py", "--output_dir", output, "--resume", code=None)
    assert not trap.exists()


# ---- what no line of the project may do

SOURCES = [
    *PROJECT_ROOT.glob("*.py"),
    *(
        path
        for folder in ("extractive_qa", "utils", "tools", "dev", "benchmarks")
        for path in (PROJECT_ROOT / folder).rglob("*.py")
    ),
]
FORBIDDEN_IMPORTS = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "yaml"}
NETWORK_IMPORTS = {"socket", "requests", "urllib3", "httpx", "http", "urllib.request", "ftplib", "smtplib"}
MAY_USE_THE_NETWORK = {"download_data.py", "extractive_qa/hub/fetch.py", "extractive_qa/hub/retries.py"}
MAY_LISTEN = {"extractive_qa/web/serve.py"}  # with these, none of which reaches anybody
LISTENING = {"create_server", "gethostname", "AF_INET", "AF_INET6"}


def dangers(source: str, name: str) -> list[str]:
    """What in a source could run a stranger's code or call somebody, with its line."""
    found = []
    user_facing = not name.startswith("benchmarks/")  # those measure other people's ways as they are
    for node in ast.walk(ast.parse(source)):
        keywords = {keyword.arg: keyword.value for keyword in getattr(node, "keywords", None) or []}
        constants = {key: value.value for key, value in keywords.items() if isinstance(value, ast.Constant)}
        problem = None
        if isinstance(node, ast.Import | ast.ImportFrom):
            modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            for module in modules:
                names = {module, module.partition(".")[0]}
                # the error of a pickle that was refused may be named
                if names & FORBIDDEN_IMPORTS and not (
                    module == "pickle" and only_names(source, "pickle", {"UnpicklingError"})
                ):
                    problem = f"imports {module}"
                listens = module == "socket" and name in MAY_LISTEN and only_names(source, "socket", LISTENING)
                if user_facing and names & NETWORK_IMPORTS and name not in MAY_USE_THE_NETWORK and not listens:
                    problem = f"imports {module}"
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            last = called.rpartition(".")[2]
            if called in ("eval", "exec", "compile", "__import__", "os.system", "os.popen"):
                problem = f"calls {called}"
            elif called == "torch.load" and constants.get("weights_only") is not True:
                problem = "torch.load without weights_only=True"
            elif constants.get("shell") or constants.get("allow_pickle") or constants.get("trust_remote_code"):
                problem = f"calls {called} with shell, allow_pickle or trust_remote_code"
            elif user_facing and last == "from_pretrained":
                if constants.get("local_files_only") is not True or constants.get("trust_remote_code") is not False:
                    problem = f"{called} without local_files_only=True, trust_remote_code=False"
            elif user_facing and last in ("load_dataset", "hf_hub_download", "snapshot_download", "cached_file"):
                problem = f"calls {called}"
        if problem:
            found.append(f"{name}:{node.lineno} {problem}")
    return found


def only_names(source: str, module: str, attributes: set[str]) -> bool:
    """Whether something is used of a module, and all of it is among these attributes."""
    used = [n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Attribute) and ast.unparse(n.value) == module]
    return bool(used) and {node.attr for node in used} <= attributes


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(PROJECT_ROOT).as_posix())
def test_no_source_lets_a_stranger_in(path):
    name = path.relative_to(PROJECT_ROOT).as_posix()
    assert dangers(path.read_text(encoding="utf-8"), name) == []


@pytest.mark.parametrize(
    "line",
    ["import pickle", "import pickle\npickle.load(f)", "from pickle import loads", "import marshal", "eval('1')",
     "exec(code)", "torch.load(path)", "torch.load(path, weights_only=False)", "np.load(path, allow_pickle=True)",
     "subprocess.run('ls', shell=True)", "import requests", "import urllib.request", "from http.client import x",
     "AutoModel.from_pretrained(path, local_files_only=True)", "load_dataset('squad')", "os.system('ls')",
     "AutoModel.from_pretrained(path, local_files_only=True, trust_remote_code=True)", "import yaml",
     "AutoModel.from_pretrained(path, trust_remote_code=False)"],
)  # fmt: skip
def test_the_search_finds_what_it_looks_for(line):
    assert len(dangers(line, "utils/x.py")) >= 1
    assert dangers("import torch\nmodel.eval()\ntorch.load(p, weights_only=True)\nre.compile('a')", "utils/x.py") == []


@pytest.mark.parametrize("call", ["create_connection(a)", "socket()", "getaddrinfo(a, 1)"])
def test_who_may_listen_may_not_call(call):
    listens = "import socket\nsocket.create_server(a)\n"
    assert dangers(listens, "extractive_qa/web/serve.py") == []
    assert dangers(listens, "utils/x.py") != []
    assert dangers(f"{listens}socket.{call}", "extractive_qa/web/serve.py") != []
    assert dangers("from socket import create_connection", "extractive_qa/web/serve.py") != []
