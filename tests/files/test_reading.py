"""Text files of any encoding and kind: read, or refused with what they are."""

import io
import os
import zipfile

import pytest

from extractive_qa.errors import QAError
from extractive_qa.files.encodings import SAMPLE, guess_encoding
from extractive_qa.files.reading import read_text

TEXTS = {
    "gb18030": [
        "自行车的铃在右边的把手上。\n如果声音不好，请把它松开半圈。",
        "模型在哪里",
        "x,谁？,他。",
    ],
    "big5": [
        "機器學習是人工智慧的一個分支。它研究如何讓電腦從資料中學習。",
        "台北市位於臺灣北部，人口約有兩百五十萬。",
    ],
    "shift_jis": ["東京は日本の首都であり、世界最大の都市の一つである。", "吾輩は猫である。名前はまだ無い。"],
    "euc_jp": ["東京は日本の首都であり、世界最大の都市の一つである。"],
    "euc_kr": ["서울은 대한민국의 수도이자 최대 도시이다. 한강을 끼고 있으며 인구는 약 천만 명이다."],
    "cp1251": ["Москва — столица России, крупнейший по численности населения город."],
    "cp1252": ["Elle a été fondée près de la Seine.", "“So” heißt’s – in Zürich", "café", "¿Qué pasó en España?"],
}
CASES = [(encoding, text) for encoding, texts in TEXTS.items() for text in texts]


def refusal(path, encoding=None) -> str:
    with pytest.raises(QAError) as caught:
        read_text(path, encoding)
    return str(caught.value)


@pytest.mark.parametrize(("encoding", "text"), CASES)
def test_the_encoding_of_a_text_is_known(encoding, text):
    assert guess_encoding(text.encode(encoding)) == encoding
    # however long: the sample may end within a character
    for shift in range(3):
        assert guess_encoding(b"x" * shift + (text.encode(encoding) * (SAMPLE // len(text)))) == encoding
    assert guess_encoding(text.encode()) == "utf-8"
    assert guess_encoding(text.encode("utf-16")) == "utf-16"
    for unmarked in ("utf-16-le", "utf-16-be"):
        assert guess_encoding(f"id: 1, {text}\n".encode(unmarked)) == unmarked


@pytest.mark.parametrize(("encoding", "text"), CASES)
def test_a_text_in_another_encoding_is_refused_with_its_name_and_read_by_it(encoding, text, tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(f"ASCII\n{text}".encode(encoding))
    assert f"it looks like {encoding}" in refusal(path, "utf-8")
    assert f"encoding='{encoding}'" in refusal(path, "utf-8")
    assert "encoding=" not in refusal(path), "who can't name one is not told to"
    assert "line 2" in refusal(path)
    assert "Excel" not in refusal(path)
    assert read_text(path, encoding) == f"ASCII\n{text}"


def test_what_is_no_text_or_damaged_fits_no_encoding(tmp_path):
    text = "自行车的铃在右边的把手上。" * 20
    for content in (os.urandom(5000), bytes(4096), text.encode()[:-1], text.encode() + b"\xff"):
        assert guess_encoding(content) is None
    path = tmp_path / "a.txt"
    path.write_bytes(b"a\0\xff" * 9)
    assert "zero bytes" in refusal(path)
    # far from the sample
    path.write_bytes(b"x\n" * SAMPLE + "模型在哪里".encode("gbk"))
    assert "it looks like gb18030" in refusal(path, "utf-8")


def test_another_encoding_is_taken_and_a_wrong_one_refused(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes("模型在哪里".encode("utf-16"))
    assert "is UTF-16" in refusal(path, "utf-8")
    assert "encoding='utf-16'" in refusal(path, "utf-8")
    assert read_text(path, "UTF-16") == "模型在哪里"
    path.write_text("\ufeff模型", encoding="utf-8")
    assert read_text(path) == read_text(path, "utf8") == "模型"
    assert "is not ascii (byte 0, line 1); it looks like utf-8" in refusal(path, "ascii")
    for encoding in ("klingon", "hex", "base64"):
        assert f"encoding='{encoding}' is not known" in refusal(path, encoding)


def zipped(name: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("[Content_Types].xml", "<x/>")
        archive.writestr(name, "<x/>")
    return file.getvalue()


@pytest.mark.fault("damaged input")
@pytest.mark.parametrize(
    ("content", "kind", "advice"),
    [
        (b"\x89PNG\r\n\x1a\n\0\0", "a picture (PNG)", "*.txt"),
        (b"\xff\xd8\xff\xe0\0\0", "a picture (JPEG)", "*.txt"),
        (b"%PDF-1.7\n%\xe2\xe3", "a PDF", "*.txt"),
        (rb"{\rtf1\ansi Text}", "formatted text (RTF)", "*.txt"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1", "an older Word or Excel file", "*.txt"),
        (zipped("word/document.xml"), "a Word document", "*.txt"),
        (zipped("xl/workbook.xml"), "an Excel workbook", "CSV UTF-8"),
        (zipped("a.txt"), "a ZIP archive", "Unpack it"),
        (b"\x1f\x8b\x08\0", "compressed (gzip)", "Unpack it"),
        (b"PAR1\0", "a Parquet file", "*.parquet"),
    ],
)
def test_a_binary_file_is_called_what_it_is(content, kind, advice, tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(content)
    for encoding in (None, "utf-8", "cp1252"):
        assert f"is {kind}, no text" in refusal(path, encoding)
        assert advice in refusal(path, encoding)
        assert "Excel:" not in refusal(path, encoding)
