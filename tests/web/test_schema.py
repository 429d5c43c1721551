"""The interface asked by its own description: whatever fits it, or does not, gets an answer that it describes."""

import pytest
from hypothesis import HealthCheck, given, settings
from web.serving import make_documents, server

schemathesis = pytest.importorskip("schemathesis", reason="needs schemathesis: make test-web")
pytest.importorskip("fastapi_offline", reason="needs FastAPI: pip install -r requirements-web.txt")

WANTED = {
    "not_a_server_error", "status_code_conformance", "content_type_conformance", "response_schema_conformance",
}  # fmt: skip


@pytest.fixture(scope="module")
def described(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    with server(home, "--documents", make_documents(home)) as (address, _):
        yield schemathesis.openapi.from_url(f"{address}openapi.json")


@pytest.mark.parametrize("mode", ["POSITIVE", "NEGATIVE"])
def test_whatever_is_sent_is_answered_as_described(described, mode):
    checks = [check for check in schemathesis.checks.CHECKS.get_all() if check.__name__ in WANTED]
    assert len(checks) == len(WANTED)
    asked = set()
    for operation in (found.ok() for found in described.get_all_operations()):

        @settings(max_examples=60, suppress_health_check=list(HealthCheck), deadline=None)
        @given(operation.as_strategy(generation_mode=schemathesis.GenerationMode[mode]))
        def ask(case):
            case.call_and_validate(checks=checks)
            asked.add(case.operation.label)

        if mode == "POSITIVE" or operation.label != "GET /health":  # of which nothing is wrong
            ask()
    assert len(asked) >= 4
