"""A power cut in a download: the next run resumes what is there, or gets it again, and the file is right."""

import hashlib
import os

import pytest
from power_cut import Story, survive

from extractive_qa.hub.fetch import RemoteFile, fetch
from extractive_qa.hub.options import Patience

NAME, CONTENT = "file.json", bytes(range(1, 256)) * 800  # no zero, as a file that was never written has
SHA256 = hashlib.sha256(CONTENT).hexdigest()

pytestmark = [
    pytest.mark.fault("power cut"),
    pytest.mark.skipif(os.name != "posix", reason="POSIX's rules; on Windows folders are not synced"),
]


def downloading(hub, remote: RemoteFile) -> Story:
    """In two pieces."""

    def get(folder):
        fetch(remote, folder / "arrived" / NAME, Patience(1.0, 2))

    def do(folder, say):
        hub.fail(NAME, {"cut": len(CONTENT) // 3})
        get(folder)
        say("arrived")

    def check(folder, said):
        before = len(hub.requests)
        get(folder)
        assert (folder / "arrived" / NAME).read_bytes() == CONTENT
        assert not said or len(hub.requests) == before, "what had arrived is downloaded again"
        assert [path.name for path in (folder / "arrived").iterdir()] == [NAME]

    return Story(do, check)


@pytest.mark.parametrize(("limit", "cuts"), [(6, 1), pytest.param(300, 4, marks=pytest.mark.slow)], ids=["some", "all"])
@pytest.mark.parametrize("checksum", [SHA256, "a tag"], ids=["with a checksum", "without a checksum"])
@pytest.mark.parametrize("size", [len(CONTENT), None], ids=["of a known size", "of unknown size"])
def test_states_after_a_power_cut(hub, checksum, size, limit, cuts, record_property):
    hub.add("web", {NAME: CONTENT})
    story = downloading(hub, RemoteFile(f"{hub.url}/web/{NAME}", size, checksum))
    tried = survive(story, limit, cuts)
    assert tried > 10
    record_property("tried", tried)
