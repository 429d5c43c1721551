"""What tools/export_onnx.py leaves in a folder: the Hub's layout, a record of its checks, and nothing of before."""

import json
import shutil

import onnxruntime
import pytest
from scripts import PROJECT_ROOT, load_script

from extractive_qa.batch.run import settings_of, what_answers_depend_on
from extractive_qa.export import export
from extractive_qa.files import manifest
from extractive_qa.files.manifest import check_manifest, listed_files, read_manifest, write_manifest
from extractive_qa.model.backends import OnnxBackend, TorchBackend
from extractive_qa.model.folder import EARLIER_ONNX_FILES, ONNX_FILES, ONNX_MANIFEST
from extractive_qa.reader import Reader

DEV = PROJECT_ROOT / "data" / "sample" / "dev.json"
ASKED = ("Who wrote it?", "It was written by Ada Lovelace in 1843.")


@pytest.fixture
def copy(exported, tmp_path):
    return shutil.copytree(exported, tmp_path / "copy")


@pytest.fixture
def earlier(copy):
    """The same export as an earlier version left it: in the folder itself, under other names."""
    for precision, name in ONNX_FILES.items():
        (copy / name).rename(copy / EARLIER_ONNX_FILES[precision])
    (copy / "onnx").rmdir()
    files = ("model.safetensors", "config.json", *EARLIER_ONNX_FILES.values())
    write_manifest(copy, "tools/export_onnx.py", None, paths=[copy / name for name in files], name=ONNX_MANIFEST)
    return copy


def files_in(folder) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_the_layout_is_the_hub_s(exported, tiny_model):
    models = {"onnx/model.onnx", "onnx/model_quantized.onnx"}
    assert files_in(exported) == files_in(tiny_model) | models | {"onnx.json"}
    assert listed_files(exported, ONNX_MANIFEST) == models | {"model.safetensors", "config.json"}
    assert check_manifest(exported, full=True, name=ONNX_MANIFEST)


def test_onnx_json_says_what_was_checked_and_where(exported):
    """The fixture's check: 12 questions, of a random model whose int8 stayed by --force."""
    checked = read_manifest(exported, ONNX_MANIFEST)["checked"]
    assert checked["onnxruntime"] == onnxruntime.__version__
    assert checked["processor"] and checked["system"]
    assert set(checked["instructions"]) <= set(export.DECISIVE)
    texts = {paragraph["context"]: paragraph["qas"]
             for article in json.loads(DEV.read_text(encoding="utf-8"))["data"]
             for paragraph in article["paragraphs"]}  # fmt: skip
    contexts = [context for context, asked in texts.items() for _ in asked][:12]
    assert (checked["questions"], checked["contexts"]) == (12, len(set(contexts)))
    assert checked["questions_of_logits"] == 12
    plain, small = checked["models"]
    assert (plain["name"], small["name"]) == (ONNX_FILES["no"], ONNX_FILES["int8"])
    assert plain["logits_error"] < 1e-4 < small["logits_error"]
    assert plain["f1_lost"] is plain["f1_lost_interval"] is plain["answers_changed"] is None
    assert small["f1_lost"] == pytest.approx(plain["f1"] - small["f1"])
    for model in checked["models"]:
        assert model["size"] == (exported / model["name"]).stat().st_size
        if model["logits_error"] > export.MOST_ERROR["no" if model is plain else "int8"]:
            assert "logits differ" in model["refused"]  # --force does not hide why it would not have stayed


@pytest.mark.parametrize("precision", ["auto", "int8", "no"])
def test_an_export_of_an_earlier_version_answers_as_before(earlier, exported, precision):
    expected = Reader(exported, "cpu", precision)
    for backend in ("auto", "onnx"):
        reader = Reader(earlier, "cpu", precision, backend=backend)
        assert reader.backend.path == earlier / EARLIER_ONNX_FILES[expected.backend.precision]
        assert reader.answer(*ASKED) == expected.answer(*ASKED)
    hashes = what_answers_depend_on(reader, DEV, settings_of(reader, 1, 0.0, False, "utf-8", None, 10))["model"]
    assert reader.backend.path.name in hashes


def test_exporting_again_removes_what_an_earlier_version_left(earlier):
    run_tool(earlier)
    assert set(ONNX_FILES.values()) <= files_in(earlier)
    assert not set(EARLIER_ONNX_FILES.values()) & files_in(earlier)
    assert Reader(earlier, "cpu").backend.path == earlier / ONNX_FILES["int8"]


def test_a_file_of_somebody_else_s_is_neither_used_nor_removed(copy):
    """Other exporters write model.onnx into the folder itself."""
    foreign = copy / EARLIER_ONNX_FILES["no"]
    foreign.write_bytes(b"somebody else's")
    shutil.rmtree(copy / "onnx")
    assert isinstance(Reader(copy, "cpu").backend, TorchBackend)
    (copy / ONNX_MANIFEST).write_text("damaged", encoding="utf-8")
    run_tool(copy)
    assert foreign.read_bytes() == b"somebody else's"
    assert isinstance(Reader(copy, "cpu").backend, OnnxBackend)


def run_tool(folder) -> None:
    flags = ["--eval_file", str(DEV), "--max_samples", "2", "--force"]
    load_script("tools/export_onnx.py").main(["--model_dir", str(folder), *flags])


def test_a_failed_export_leaves_the_folder_as_it_was(tiny_model, tmp_path, monkeypatch):
    folder = shutil.copytree(tiny_model, tmp_path / "model")

    def fails(*_):
        raise OSError("no space left")

    monkeypatch.setattr(export, "to_int8", fails)
    with pytest.raises(OSError, match="no space left"):
        export.export_model(folder, *[[question_of(DEV)]] * 2)
    assert files_in(folder) == files_in(tiny_model)
    assert not (folder / "onnx").exists()


def question_of(path) -> dict:
    paragraph = json.loads(path.read_text(encoding="utf-8"))["data"][0]["paragraphs"][0]
    return {"id": "1", "context": paragraph["context"], "question": "Who?", "answers": {"text": ["Ada"]}}


def test_the_model_that_answers_is_all_that_is_read_and_read_once(copy, monkeypatch):
    """Checksums of 90 MB that nobody asked for, twice, were half of the time until the first answer."""
    read, original = [], manifest.sha256_of
    monkeypatch.setattr(manifest, "sha256_of", lambda path: read.append(path) or original(path))
    for precision, name in ONNX_FILES.items():
        for backend in ("auto", "onnx"):
            read.clear()
            Reader(copy, "cpu", precision, backend=backend)
            found = sorted(path.relative_to(copy).as_posix() for path in read)
            assert found == sorted(["model.safetensors", "config.json", name])
    # so one model is enough: the other may be left out where space is short
    (copy / ONNX_FILES["no"]).unlink()
    assert Reader(copy, "cpu").backend.precision == "int8"
    assert isinstance(Reader(copy, "cpu", "no").backend, TorchBackend)
    (copy / ONNX_FILES["int8"]).unlink()
    assert isinstance(Reader(copy, "cpu").backend, TorchBackend)
