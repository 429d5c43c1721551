"""Small random model folders of every family that answers, with tokenizers of their own kind, as their users find them
on the Hub."""

import functools
import json

import torch
from conftest import texts_at_hand
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
from transformers import AutoConfig, AutoModelForQuestionAnswering

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
    "deberta": (  # as microsoft/deberta-base sets it; its own class in transformers 5 reads another template (below)
        "bytes, BERT's names", "PreTrainedTokenizerFast",
        {
            "type_vocab_size": 0, "relative_attention": True, "pos_att_type": ["c2p", "p2c"],
            "position_biased_input": False,
        },
    ),
    "modernbert": (  # windows are longer than what a layer of local attention sees
        "bytes, BERT's names", "PreTrainedTokenizerFast", {"local_attention": 32},
    ),
    "ernie": ("wordpiece", "BertTokenizer", {"use_task_id": True}),
    "squeezebert": ("wordpiece", "SqueezeBertTokenizer", {"embedding_size": 64}),
    "convbert": ("wordpiece", "ConvBertTokenizer", {"embedding_size": 32}),
    "roformer": ("wordpiece", "BertTokenizer", {"embedding_size": 32}),
}  # fmt: skip


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
    elif kind.startswith("bytes"):
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
    model = AutoModelForQuestionAnswering.from_config(config)
    # drawn as zeros, which published ones are not: what sees its neighbours sees padding too
    torch.nn.init.normal_(model.get_input_embeddings().weight[config.pad_token_id], std=config.initializer_range)
    model.save_pretrained(folder)
