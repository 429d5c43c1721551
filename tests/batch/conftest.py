"""What the tests of batches share."""

import pytest

from extractive_qa.batch import question_stream
from extractive_qa.reader import Reader


@pytest.fixture(scope="module")
def reader(tiny_model):
    return Reader(tiny_model, "cpu", "no")


@pytest.fixture
def small_groups(monkeypatch):
    monkeypatch.setattr(question_stream, "GROUP_QUESTIONS", 4)
