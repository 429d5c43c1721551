"""Memory that is free: a container's limit counts."""

from types import SimpleNamespace

import psutil
import pytest

from extractive_qa.model.memory import free_memory

GIB = 2**30


@pytest.mark.fault("too little memory")
@pytest.mark.parametrize("version", ["new", "old"])
def test_a_container_s_limit_counts_where_it_is_less(tmp_path, version, monkeypatch):
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=8 * GIB))
    assert free_memory(tmp_path) == 8 * GIB
    (tmp_path / "memory").mkdir()
    limit, used, stat, line = {
        "new": ("memory.max", "memory.current", "memory.stat", "inactive_file"),
        "old": ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat",
                "total_inactive_file"),
    }[version]  # fmt: skip
    (tmp_path / used).write_text(f"{GIB}\n", encoding="ascii")
    (tmp_path / stat).write_text(f"anon 5\n{line} {GIB // 2}\n", encoding="ascii")
    for content, free in ((f"{2 * GIB}\n", 1.5 * GIB), (f"{64 * GIB}\n", 8 * GIB), ("1\n", 0), ("max\n", 8 * GIB)):
        (tmp_path / limit).write_text(content, encoding="ascii")
        assert free_memory(tmp_path) == free
