"""Models that others trained: every family of extractive_qa.model.families reads windows as transformers cuts them, and
answers with the logits that plain transformers gives. Small, random, with tokenizers of their own kind."""

import functools
import json
import shlex

import numpy as np
import pytest
import torch
import transformers
from conftest import TEXTS, texts_at_hand
from scripts import load_script
from small_training import make_run, train_script
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import AutoConfig, AutoModelForQuestionAnswering, AutoTokenizer
from transformers_windows import assert_equal_to_transformers, transformers_windows

from extractive_qa.data.examples import read_examples
from extractive_qa.errors import QAError
from extractive_qa.export import export
from extractive_qa.model.backends import OnnxBackend
from extractive_qa.model.families import FAMILIES, KNOWN_REASONS, usable_positions
from extractive_qa.model.loading import load_encoder
from extractive_qa.preprocessing.windows import load_tokenizer, prepare_validation_features
from extractive_qa.reader import Reader
from extractive_qa.training.cpu_attention import NAME, attend_window_by_window
from utils.offline import SAMPLE_DATA_DIR

ROBERTA_TOKENS = {
    "bos": "<s>", "pad": "<pad>", "eos": "</s>", "unk": "<unk>", "cls": "<s>", "sep": "</s>", "mask": "<mask>",
}  # fmt: skip
BERT_TOKENS = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
# family: kind of tokenizer, its class, and settings of the model beside the size
MADE = {
    "bert": ("wordpiece", "BertTokenizer", {}),
    "bert, cased": ("cased", "BertTokenizer", {}),
    "mobilebert": (
        "wordpiece", "MobileBertTokenizer", {"embedding_size": 32, "true_hidden_size": 32, "intra_bottleneck_size": 32},
    ),
    "distilbert": ("wordpiece", "DistilBertTokenizer", {"dim": 64, "n_layers": 2, "n_heads": 2, "hidden_dim": 64}),
    "electra": ("wordpiece", "ElectraTokenizer", {"embedding_size": 32}),
    "roberta": ("bytes", "RobertaTokenizer", {"max_position_embeddings": 514, "type_vocab_size": 1}),
    "xlm-roberta": ("unigram", "XLMRobertaTokenizer", {"max_position_embeddings": 514, "type_vocab_size": 1}),
    "camembert": ("unigram", "CamembertTokenizer", {"max_position_embeddings": 514, "type_vocab_size": 1}),
    "albert": ("albert", "AlbertTokenizer", {"embedding_size": 32}),
    "mpnet": ("mpnet", "MPNetTokenizer", {"max_position_embeddings": 514}),
    "deberta-v2": (  # as DeBERTa-v3 sets it
        "deberta-v2", "DebertaV2Tokenizer",
        {
            "type_vocab_size": 0, "relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 256,
            "position_biased_input": False, "norm_rel_ebd": "layer_norm", "share_att_key": True,
        },
    ),
}  # fmt: skip
# they read token types: transformers 5's own tokenizer of ALBERT leaves them out unless asked, transformers 4's did not
TYPED = {"bert", "bert-cased", "mobilebert", "electra", "albert"}
SETTINGS = [(384, 128), (96, 32)]


@functools.cache
def make_tokenizer(kind: str) -> tuple[Tokenizer, dict[str, str]]:
    """A tokenizer of one kind, trained on the texts at hand, and its special tokens by role."""
    names = ROBERTA_TOKENS if kind in ("bytes", "unigram", "mpnet") else BERT_TOKENS
    special = [AddedToken(name, special=True, normalized=False) for name in dict.fromkeys(names.values())]
    options = {"vocab_size": 2000, "special_tokens": special, "show_progress": False}
    if kind in ("wordpiece", "cased", "mpnet"):
        tokenizer = Tokenizer(models.WordPiece(unk_token=names["unk"]))
        tokenizer.normalizer = normalizers.BertNormalizer(lowercase=kind != "cased")
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        tokenizer.decoder = decoders.WordPiece()
        trainer = trainers.WordPieceTrainer(**options)
    elif kind == "bytes":
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), **options)
    else:
        tokenizer = Tokenizer(models.Unigram())
        words = [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]
        if kind == "albert":
            quotes = [normalizers.Replace(quote, '"') for quote in ("``", "''")]
            lower = [normalizers.NFKD(), normalizers.StripAccents(), normalizers.Lowercase()]
            tokenizer.normalizer = normalizers.Sequence([*quotes, *lower])
        elif kind == "deberta-v2":
            blanks = normalizers.Replace(Regex(r"\s{2,}|[\n\r\t]"), " ")
            strip = normalizers.Strip(left=False, right=True)
            tokenizer.normalizer = normalizers.Sequence([blanks, normalizers.NFC(), strip])
            words = words[1:]  # the space before a word is part of its first token
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(words)
        tokenizer.decoder = decoders.Metaspace()
        trainer = trainers.UnigramTrainer(unk_token=names["unk"], **options)
    tokenizer.train_from_iterator(texts_at_hand()[:400], trainer)
    tokenizer.post_processor = post_processor(kind, tokenizer, names)
    return tokenizer, names


def post_processor(kind: str, tokenizer: Tokenizer, names: dict[str, str]):
    cls, sep = ((names[role], tokenizer.token_to_id(names[role])) for role in ("cls", "sep"))
    if kind in ("wordpiece", "cased"):
        return processors.BertProcessing(sep, cls)
    if kind == "bytes":
        return processors.RobertaProcessing(sep, cls, trim_offsets=True, add_prefix_space=False)
    if kind in ("unigram", "mpnet"):
        return processors.TemplateProcessing(
            single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[cls, sep]
        )
    return processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[cls, sep]
    )


def make_folder(folder, name: str, **settings) -> None:
    """A model folder of the family as its users find it on the Hub."""
    kind, tokenizer_class, more = MADE[name]
    tokenizer, names = make_tokenizer(kind)
    folder.mkdir(parents=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    described = {f"{role}_token": token for role, token in names.items()}
    described |= {"tokenizer_class": tokenizer_class, "model_max_length": 512}
    if kind in ("wordpiece", "cased", "mpnet"):
        described["do_lower_case"] = kind != "cased"
    (folder / "tokenizer_config.json").write_text(json.dumps(described), encoding="utf-8")
    ids = {f"{role}_token_id": tokenizer.token_to_id(names[role]) for role in ("pad", "bos", "eos") if role in names}
    size = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    config = AutoConfig.for_model(
        name.partition(",")[0],
        **({} if name == "distilbert" else size) | more | ids | settings,
        vocab_size=tokenizer.get_vocab_size(),
        initializer_range=0.1,
    )
    torch.manual_seed(0)
    AutoModelForQuestionAnswering.from_config(config).save_pretrained(folder)


@pytest.fixture(scope="module", params=MADE)
def family(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("families") / request.param.replace(", ", "-")
    make_folder(folder, request.param)
    return folder


def test_every_family_is_tried():
    assert {name.partition(",")[0] for name in MADE} == set(FAMILIES)


@pytest.mark.parametrize(("max_length", "doc_stride"), SETTINGS)
def test_windows_equal_transformers(family, max_length, doc_stride, sample_examples):
    awkward = [
        {"question": " Who?", "context": " ".join(TEXTS * 4)},
        {"question": "né?", "context": "  a  \n b 東京 🙂 "},
    ]
    examples = awkward + sample_examples[:150]
    features = prepare_validation_features(examples, load_tokenizer(family), max_length, doc_stride)
    peer = AutoTokenizer.from_pretrained(family, local_files_only=True)
    expected = transformers_windows(peer, examples, max_length, doc_stride)
    if family.name not in TYPED:  # whatever the types are, no model reads them
        expected = [(i, ids, features[n]["token_type_ids"].tolist(), o) for n, (i, ids, _, o) in enumerate(expected)]
    assert_equal_to_transformers(features, expected)


def test_logits_equal_plain_transformers(family, sample_examples):
    examples = [*sample_examples[:6], {"question": "Who?", "context": " ".join(TEXTS * 12)}]
    reader = Reader(family, "cpu", "no")
    features = prepare_validation_features(examples, reader.tokenizer, 384, 128)
    rows, *found = reader.logits(features, range(len(features)))
    tokenizer = AutoTokenizer.from_pretrained(family, local_files_only=True)
    model = AutoModelForQuestionAnswering.from_pretrained(family, local_files_only=True, dtype=torch.float32).eval()
    inputs = tokenizer(
        [example["question"] for example in examples], [example["context"] for example in examples],
        truncation="only_second", max_length=384, stride=128, return_overflowing_tokens=True, padding="max_length",
        return_tensors="pt", return_token_type_ids=family.name in TYPED,
    )  # fmt: skip
    inputs.pop("overflow_to_sample_mapping")
    with torch.no_grad():
        expected = model(**inputs)
    assert len(rows) == len(expected.start_logits)
    for i, row in enumerate(rows):
        size = len(row["input_ids"])
        for logits, wanted in zip(found, (expected.start_logits, expected.end_logits), strict=True):
            np.testing.assert_allclose(logits[i, :size], wanted[i, :size], atol=1e-4)


def test_training_window_by_window_learns_what_plain_attention_does(family):
    """Forward and backward with padding, without dropout."""
    torch.manual_seed(0)
    ids = torch.randint(5, 100, (3, 40))
    mask = (torch.arange(40) < torch.tensor([[40], [33], [12]])).long()
    ids[mask == 0] = 0
    learned = []
    for prepare in (lambda model: model.set_attn_implementation("eager"), attend_window_by_window):
        model = AutoModelForQuestionAnswering.from_pretrained(family, local_files_only=True, dtype=torch.float32)
        prepare(model)
        for module in model.modules():
            for name, value in vars(module).items():
                if name == "dropout_prob" or (name == "p" and isinstance(value, float)):
                    setattr(module, name, 0.0)
        model.train()
        where = torch.tensor([1, 5, 8])
        model(input_ids=ids, attention_mask=mask, start_positions=where, end_positions=where + 2).loss.backward()
        learned.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    taken = model.config._attn_implementation
    assert (taken == NAME) == (family.name not in ("mpnet", "deberta-v2") and transformers.__version__ > "5")
    plain, fast = learned
    assert plain.keys() == fast.keys()
    for name, gradient in plain.items():
        torch.testing.assert_close(fast[name], gradient, atol=1e-6, rtol=1e-4, msg=lambda m, name=name: f"{name}: {m}")
    assert "attn_implementation" not in json.dumps(model.config.to_dict())


def test_answers_are_spans_without_white_space_around(family):
    context = "  " + "  ".join(TEXTS * 5) + " \n"
    for answer in Reader(family, "cpu", "no").answer("Who counted ships?", context, top_k=20):
        assert answer["text"] == context[answer["start"] : answer["end"]] == answer["text"].strip() != ""


# what cannot answer is refused by name


@pytest.mark.parametrize("kind", [*KNOWN_REASONS, "gpt2", "longt5"])
def test_models_of_other_kinds_are_refused_by_name(kind, tmp_path):
    make_folder(tmp_path / "model", "bert")
    config = json.loads((tmp_path / "model" / "config.json").read_text(encoding="utf-8"))
    config |= {"model_type": kind, "architectures": ["TheNameOfItsClass"]}
    (tmp_path / "model" / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(QAError, match=rf"TheNameOfItsClass of the kind '{kind}'.*Expected an encoder.*roberta"):
        Reader(tmp_path / "model", "cpu", "no")


@pytest.mark.parametrize("architecture", ["RobertaModel", "RobertaForSequenceClassification"])
def test_an_encoder_without_an_output_layer_for_spans_is_refused_by_name(architecture, tmp_path):
    make_folder(tmp_path / "model", "roberta")
    config = AutoConfig.from_pretrained(tmp_path / "model")
    getattr(transformers, architecture)(config).save_pretrained(tmp_path / "model")
    with pytest.raises(QAError, match=rf"{architecture}, which was not trained to answer.*Fine-tune it"):
        Reader(tmp_path / "model", "cpu", "no")


def test_a_tokenizer_in_the_older_form_is_refused_with_the_way_to_make_the_newer(tmp_path):
    folder = tmp_path / "model"
    make_folder(folder, "bert")
    vocabulary = load_tokenizer(folder).get_vocab()
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.txt").write_text("\n".join(sorted(vocabulary, key=vocabulary.get)) + "\n", encoding="utf-8")
    with pytest.raises(QAError, match=r"no tokenizer\.json \(its tokenizer is in an older form, vocab\.txt") as error:
        Reader(folder, "cpu", "no")
    command = shlex.split(str(error.value).split("Run: python ", 1)[1])
    load_script(command[0]).main(command[1:])  # what the message says to run
    assert load_tokenizer(command[-1]).get_vocab() == vocabulary
    Reader(command[-1], "cpu", "no")


def test_a_tokenizer_that_puts_nothing_before_the_question_is_refused(tmp_path):
    make_folder(tmp_path / "model", "bert")
    tokenizer = load_tokenizer(tmp_path / "model")
    ids = [("[SEP]", tokenizer.token_to_id("[SEP]"))]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A [SEP]", pair="$A [SEP] $B:1 [SEP]:1", special_tokens=ids
    )
    tokenizer.save(str(tmp_path / "model" / "tokenizer.json"))
    with pytest.raises(QAError, match="no token before the question"):
        Reader(tmp_path / "model", "cpu", "no").answer("Who?", "He.")


# settings


def test_positions_begin_behind_the_padding_token_in_some_families(tmp_path):
    make_folder(tmp_path / "model", "roberta", max_position_embeddings=130)
    config = json.loads((tmp_path / "model" / "config.json").read_text(encoding="utf-8"))
    assert usable_positions(config) == 128
    assert Reader(tmp_path / "model", "cpu", "no", max_length=129, doc_stride=32).settings["max_length"] == 128
    reader = Reader(tmp_path / "model", "cpu", "no", max_length=128, doc_stride=32)
    assert reader.answer("Who counted ships?", " ".join(TEXTS * 10))["text"]  # every position is used
    with pytest.raises(QAError, match="129 is more than the 128 positions"):
        make_run(tmp_path / "model", tmp_path / "out", "--max_length", 129, "--doc_stride", 32)


def test_settings_of_the_model_can_be_overridden_where_it_is_opened(tmp_path):
    make_folder(tmp_path / "model", "bert")
    (tmp_path / "model" / "reader.json").write_text('{"max_length": 200, "doc_stride": 50}', encoding="utf-8")
    reader = Reader(tmp_path / "model", "cpu", "no", doc_stride=64, max_answer_length=2)
    found = {name: reader.settings[name] for name in ("max_length", "doc_stride", "max_answer_length")}
    assert found == {"max_length": 200, "doc_stride": 64, "max_answer_length": 2}
    answers = reader.answer("Who counted ships?", TEXTS[0], top_k=20)
    places = reader.tokenizer.encode(TEXTS[0], add_special_tokens=False).offsets
    # of the context: an answer that begins within a word would be parted otherwise by itself
    lengths = [sum(answer["start"] <= start and end <= answer["end"] for start, end in places) for answer in answers]
    assert max(lengths) == 2
    with pytest.raises(QAError, match=r"Reader\(\.\.\., doc_stride=190\).*doc_stride=190"):
        Reader(tmp_path / "model", "cpu", "no", doc_stride=190)


# further than answering


@pytest.mark.parametrize("name", ["roberta", "distilbert"])
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
    examples = read_examples(SAMPLE_DATA_DIR / "dev.json")[:4]
    plain = Reader(folder, "cpu", "no", backend="torch")
    exported = Reader(folder, backend=OnnxBackend(folder / "model.onnx", "no"))
    features = prepare_validation_features(examples, plain.tokenizer, 384, 128)
    for window in range(len(features)):
        (row,), *expected = plain.logits(features, [window])
        _, *found = exported.logits(features, [window])
        np.testing.assert_allclose(found, expected, atol=1e-4)
        assert row["context_end"] > row["context_start"]


@pytest.mark.parametrize("labels", [1, 3])
@pytest.mark.parametrize("name", [name for name in MADE if name != "bert, cased"])
def test_an_encoder_of_other_classes_gets_a_head_of_its_own(name, labels, tmp_path):
    """A traceback for one that had learned NLI (three labels) or a score (one). transformers has no head of that kind
    for every family under the same name, so that of the tokens is taken."""
    make_folder(tmp_path / "model", name)
    config = AutoConfig.from_pretrained(tmp_path / "model", num_labels=labels)
    model = transformers.AutoModelForTokenClassification.from_config(config)
    model.save_pretrained(tmp_path / "model")
    assert len(json.loads((tmp_path / "model" / "config.json").read_text("utf-8")).get("id2label", "ab")) == labels
    loaded, missing = load_encoder(tmp_path / "model")
    assert missing == ["qa_outputs.bias", "qa_outputs.weight"]
    ids = torch.tensor([[5, 6, 7]])
    assert loaded(input_ids=ids).start_logits.shape == (1, 3)
    assert torch.equal(loaded.get_input_embeddings().weight, model.get_input_embeddings().weight)
    loaded.save_pretrained(tmp_path / "model")  # as a training saves it
    assert load_encoder(tmp_path / "model")[1] == []


def test_a_head_for_spans_of_other_labels_is_drawn_anew_and_answers_nothing(tiny_model, tmp_path):
    model, _ = load_encoder(tiny_model)
    model.qa_outputs = torch.nn.Linear(model.config.hidden_size, 3)
    model.config.num_labels = 3
    model.save_pretrained(tmp_path / "model")
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "model" / file).write_bytes((tiny_model / file).read_bytes())
    assert load_encoder(tmp_path / "model")[1] == ["qa_outputs.bias", "qa_outputs.weight"]
    with pytest.raises(QAError, match="not trained to answer questions"):
        Reader(tmp_path / "model", "cpu", "no", backend="torch")
