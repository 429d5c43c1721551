"""Models that others trained: every family of extractive_qa.model.families reads windows as transformers cuts them, and
answers with the logits that plain transformers gives. Small, random, with tokenizers of their own kind."""

import json
import shlex

import numpy as np
import pytest
import torch
import transformers
from conftest import TEXTS
from scripts import load_script
from small_families import MADE, make_folder
from small_training import make_run
from tokenizers import processors
from transformers import AutoConfig, AutoModelForQuestionAnswering, AutoTokenizer
from transformers_windows import assert_equal_to_transformers, transformers_windows

from extractive_qa.errors import QAError
from extractive_qa.model.convert import convert_model
from extractive_qa.model.families import FAMILIES, KNOWN_REASONS, usable_positions
from extractive_qa.model.loading import load_encoder, load_model
from extractive_qa.preprocessing.batches import LENGTH_STEP
from extractive_qa.preprocessing.windows import load_tokenizer, prepare_validation_features
from extractive_qa.reader import Reader
from extractive_qa.training.cpu_attention import NAME, attend_window_by_window

# they read token types: transformers 5's own tokenizer of ALBERT leaves them out unless asked, transformers 4's did not
TYPED = {"bert", "bert-cased", "mobilebert", "electra", "albert", "ernie", "squeezebert", "convbert", "roformer"}
OWN_ATTENTION = {"mpnet", "deberta-v2", "deberta", "squeezebert", "convbert", "roformer"}
SETTINGS = [(384, 128), (96, 32)]


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


def test_answers_do_not_depend_on_the_batch(family):
    """ConvBERT sees 4 tokens of padding in each layer: with one behind it, its last token's logit moved by 0.2."""
    reader = Reader(family, "cpu", "no")
    words = TEXTS[0].split()
    examples = [{"question": "Who?", "context": " ".join(words[:count])} for count in range(1, len(words))]
    longest = {"question": "Who counted?", "context": " ".join(TEXTS * 12)}
    features = prepare_validation_features([longest, *examples], reader.tokenizer, 384, 128)
    lengths = features.lengths[-len(examples) :]
    assert len({length % LENGTH_STEP for length in lengths}) > LENGTH_STEP // 2  # padded by few tokens, and by many
    windows = list(range(len(features)))
    _, *together = reader.logits(features, windows)
    for window in windows:
        (row,), *alone = reader.logits(features, [window])
        for one, other in zip(alone, together, strict=True):
            size = len(row["input_ids"])
            np.testing.assert_allclose(one[0, :size], other[window, :size], atol=1e-5)


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
    assert (taken == NAME) == (family.name not in OWN_ATTENTION and transformers.__version__ > "5")
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


# what only one family does


def change(path, **values) -> None:
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | values), encoding="utf-8")


def test_convbert_is_padded_as_far_as_it_sees_and_with_what_its_vocabulary_calls_padding(tmp_path):
    """The published config.json may name token 1, the default of its class, a word of BERT's vocabulary."""
    make_folder(tmp_path / "model", "convbert")
    right = Reader(tmp_path / "model", "cpu", "no")
    pad_id = right.tokenizer.token_to_id("[PAD]")
    assert right.padding == (pad_id, 8)  # 2 layers of half a kernel of 9
    change(tmp_path / "model" / "config.json", pad_token_id=pad_id + 1)
    named_wrong = Reader(tmp_path / "model", "cpu", "no")
    assert named_wrong.padding == right.padding
    features = prepare_validation_features([{"question": "Who?", "context": TEXTS[0]}], right.tokenizer, 384, 128)
    np.testing.assert_array_equal(right.logits(features, [0])[1], named_wrong.logits(features, [0])[1])
    run, _ = make_run(tmp_path / "model", tmp_path / "out")
    assert run.padding == right.padding


def test_a_pretrained_modernbert_keeps_the_layer_of_its_pretraining(tmp_path):
    make_folder(tmp_path / "model", "modernbert")
    config = AutoConfig.from_pretrained(tmp_path / "model")
    pretrained = transformers.AutoModelForMaskedLM.from_config(config)
    pretrained.save_pretrained(tmp_path / "model")
    model, missing = load_encoder(tmp_path / "model")
    assert missing == ["classifier.bias", "classifier.weight"]
    assert torch.equal(model.head.dense.weight, pretrained.head.dense.weight)
    transformers.AutoModel.from_config(config).save_pretrained(tmp_path / "model")
    assert load_encoder(tmp_path / "model")[1] == [*missing, "head.dense.weight", "head.norm.weight"]


@pytest.mark.parametrize("tokenizer_class", ["RoFormerTokenizer", "RoFormerTokenizerFast", None])
def test_a_roformer_that_cuts_words_with_jieba_is_refused(tokenizer_class, tmp_path):
    """Its tokenizer.json says something else than the tokenizer of transformers does."""
    make_folder(tmp_path / "model", "roformer")
    Reader(tmp_path / "model", "cpu", "no")
    change(tmp_path / "model" / "tokenizer_config.json", tokenizer_class=tokenizer_class)
    with pytest.raises(QAError, match=r"cuts words with jieba.*Expected a RoFormer with BERT's tokenizer"):
        Reader(tmp_path / "model", "cpu", "no")
    (tmp_path / "new").mkdir()
    with pytest.raises(QAError, match="can't be converted: its tokenizer cuts words with jieba"):
        convert_model(tmp_path / "model", tmp_path / "new")


def test_a_deberta_is_converted_with_the_one_separator_that_it_was_trained_with(tmp_path):
    """transformers 5.23 puts two between question and context, and reads past the template in tokenizer.json."""
    make_folder(tmp_path / "model", "deberta")
    wanted = load_tokenizer(tmp_path / "model").encode("Who?", "He did.")
    content = json.loads((tmp_path / "model" / "tokenizer.json").read_text(encoding="utf-8"))["model"]
    (tmp_path / "model" / "tokenizer.json").unlink()
    change(tmp_path / "model" / "tokenizer_config.json", tokenizer_class="DebertaTokenizer")
    (tmp_path / "model" / "vocab.json").write_text(json.dumps(content["vocab"]), encoding="utf-8")
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in content["merges"]]
    (tmp_path / "model" / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]), encoding="utf-8")
    (tmp_path / "new").mkdir()
    convert_model(tmp_path / "model", tmp_path / "new")
    found = load_tokenizer(tmp_path / "new").encode("Who?", "He did.")
    assert (found.ids, found.type_ids) == (wanted.ids, wanted.type_ids)
    assert found.tokens.count("[SEP]") == 2


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


# output layers


@pytest.mark.parametrize("labels", [1, 2, 3])
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
    layer = "classifier" if name == "modernbert" else "qa_outputs"
    assert missing == [f"{layer}.bias", f"{layer}.weight"]
    with pytest.raises(QAError, match=rf"not trained to answer questions: it has no {layer}\.bias"):
        load_model(tmp_path / "model")
    ids = torch.tensor([[5, 6, 7]])
    assert loaded(input_ids=ids).start_logits.shape == (1, 3)
    assert torch.equal(loaded.get_input_embeddings().weight, model.get_input_embeddings().weight)
    if labels == 2:  # of another task, though of the right shape
        name, drawn = f"{layer}.weight", loaded.get_parameter(f"{layer}.weight")
        assert name not in model.state_dict() or not torch.equal(drawn, model.get_parameter(name))
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
