"""What several tests need: real questions where they are at hand, and tokenizer folders."""

import json

import pytest
from faults import (  # noqa: F401
    pytest_addoption,
    pytest_runtest_logreport,
    pytest_runtest_makereport,
    pytest_terminal_summary,
)
from hypothesis import settings
from network_guard import no_network  # noqa: F401

from extractive_qa.data.examples import read_examples
from utils.offline import PROJECT_ROOT, SAMPLE_DATA_DIR, SAMPLE_MODEL_DIR

settings.register_profile("project", deadline=None, derandomize=True, database=None, max_examples=60)
settings.load_profile("project")

SQUAD_DIR = PROJECT_ROOT.parent / "shared" / "squad"
SPECIAL_TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
# enough to learn some pieces from where nothing else is there
TEXTS = [
    "The lighthouse keeper of Ærø counted 1,204 ships in 1871; by 1899 it was only 73 (see page 12).",
    "In the naïve café the waiters shouted: “Two crêpes, please!” Nobody answered.",
    "Copper melts at 1,084.62 °C and zinc at 419.5 °C, so brass is made by adding zinc to molten copper.",
    "北京 is the capital; 東京 and Ουλάν Μπατόρ are others. Ångström wrote to Łukasz about it.",
]


@pytest.hookimpl(hookwrapper=True)
def pytest_report_to_serializable():
    """pytest-xdist sends reports as UTF-8, which has no lone surrogates; what some tests are about."""
    outcome = yield
    outcome.force_result(encodable(outcome.get_result()))


def encodable(value):
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {encodable(key): encodable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(encodable, value))
    return value


def real_examples(name: str) -> list[dict]:
    """The questions of a real SQuAD file; the test that asks is skipped where it is missing."""
    path = SQUAD_DIR / name
    if not path.is_file():
        pytest.skip(f"real SQuAD questions are not at {path}")
    return read_examples(path)


@pytest.fixture(scope="session")
def dev_file():
    """The path of 4,961 real questions with up to six references each."""
    real_examples("dev_a.json")
    return SQUAD_DIR / "dev_a.json"


@pytest.fixture(scope="session")
def dev_examples():
    return real_examples("dev_a.json")


@pytest.fixture(scope="session")
def train_examples():
    """11,877 real questions with one answer each."""
    return real_examples("train_11877.json")


@pytest.fixture(scope="session")
def sample_examples():
    """The questions of data/sample, which are always at hand."""
    return [item for name in ("train.json", "dev.json") for item in read_examples(SAMPLE_DATA_DIR / name)]


def texts_at_hand() -> list[str]:
    """Our own texts, those of data/sample, and real ones where they are there."""
    paths = [*SAMPLE_DATA_DIR.glob("*.json"), SQUAD_DIR / "train_11877.json"]
    contents = [json.loads(path.read_text(encoding="utf-8")) for path in paths if path.is_file()]
    paragraphs = [
        paragraph for content in contents for article in content["data"] for paragraph in article["paragraphs"]
    ]
    return TEXTS + [text for p in paragraphs for text in (p["context"], *(qa["question"] for qa in p["qas"]))]


def save_tokenizer(folder, texts, vocab_size: int, pair: str = "[CLS] $A [SEP] $B:1 [SEP]:1"):
    """Trains an uncased WordPiece tokenizer like BERT's on `texts`, and saves it as Hugging Face does."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(vocab_size=vocab_size, special_tokens=SPECIAL_TOKENS, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    ids = [(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", pair=pair, special_tokens=ids)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 512, **names}
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def tokenizer_dir(tmp_path_factory):
    """A tokenizer folder with few pieces, so that most words are cut into several."""
    return save_tokenizer(tmp_path_factory.mktemp("tokenizer"), TEXTS, vocab_size=150)


@pytest.fixture(scope="session")
def tokenizer(tokenizer_dir):
    from extractive_qa.preprocessing.windows import load_tokenizer

    return load_tokenizer(tokenizer_dir)


@pytest.fixture(scope="session")
def real_tokenizer_dir(tmp_path_factory):
    """A tokenizer folder fit for real text: models/sample with BERT's pieces, or one trained on what is at hand."""
    if (SAMPLE_MODEL_DIR / "tokenizer.json").is_file():
        return SAMPLE_MODEL_DIR
    return save_tokenizer(tmp_path_factory.mktemp("real_tokenizer"), texts_at_hand(), vocab_size=16_000)


@pytest.fixture(scope="session")
def real_tokenizer(real_tokenizer_dir):
    from extractive_qa.preprocessing.windows import load_tokenizer

    return load_tokenizer(real_tokenizer_dir)


def save_tiny_model(folder, tokenizer_dir, with_head: bool):
    """A random MobileBERT with two layers, trigram input and bottlenecks as the real one has, dropout 0."""
    import shutil

    import torch
    from transformers import AutoTokenizer, MobileBertConfig, MobileBertForQuestionAnswering, MobileBertModel

    folder.mkdir(parents=True)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(tokenizer_dir / name, folder / name)
    config = MobileBertConfig(
        vocab_size=AutoTokenizer.from_pretrained(folder, local_files_only=True).vocab_size, hidden_size=64,
        num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, embedding_size=32, true_hidden_size=32,
        intra_bottleneck_size=32, num_feedforward_networks=2, attention_probs_dropout_prob=0.0,
        initializer_range=0.1,  # large enough for answers to differ
    )  # fmt: skip
    torch.manual_seed(0)
    model = MobileBertForQuestionAnswering(config) if with_head else MobileBertModel(config)
    # [PAD] is drawn as zero, but is not in the real one: a token's neighbour is seen, padding too
    torch.nn.init.normal_(model.get_input_embeddings().weight[config.pad_token_id], std=config.initializer_range)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory, real_tokenizer_dir):
    """A folder with a tiny MobileBERT that answers, at random."""
    return save_tiny_model(tmp_path_factory.mktemp("models") / "tiny_model", real_tokenizer_dir, with_head=True)


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory, real_tokenizer_dir):
    """The same without an output layer, as google/mobilebert-uncased comes."""
    return save_tiny_model(tmp_path_factory.mktemp("encoders") / "tiny_encoder", real_tokenizer_dir, with_head=False)


@pytest.fixture(scope="session")
def exported(tiny_model, tmp_path_factory):
    """A tiny MobileBERT, exported by the tool as a user runs it. Its answers are random, so --force keeps int8."""
    import shutil

    from scripts import run_script

    folder = tmp_path_factory.mktemp("exported") / "model"
    shutil.copytree(tiny_model, folder)
    questions = ("--eval_file", SAMPLE_DATA_DIR / "dev.json", "--max_samples", 12)
    run_script("tools/export_onnx.py", "--model_dir", folder, *questions, "--force")
    return folder


@pytest.fixture(scope="session")
def trained(tiny_model, tmp_path_factory):
    """The output folder of one uninterrupted small training."""
    from scripts import run_script
    from small_training import SMALL

    output = tmp_path_factory.mktemp("trained")
    run_script("train.py", "--model_dir", tiny_model, "--output_dir", output, *SMALL)
    return output
