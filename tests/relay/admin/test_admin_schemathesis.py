"""Requests that schemathesis makes from the admin API's document: each answer is one that the document describes."""

from pathlib import Path

import pytest
from structlog.testing import capture_logs

from tests.relay.admin.conftest import AdminClient
from tests.relay.described import ask_all


@pytest.mark.service
@pytest.mark.parametrize("seed", [1])
async def test_no_request_gets_an_answer_that_is_not_described(seed: int, admin: AdminClient, tmp_path: Path) -> None:
    """Every verb on a real store, with valid and invalid values: no 5xx, no other status or body, no traceback."""
    assert (await admin("POST", "/admin/keys", {"id": "partner"})).status == 201
    with capture_logs() as logs:
        await ask_all(tmp_path, admin.url, header=f"Authorization: Bearer {admin.secret}", seed=seed, examples=3)

    assert [entry for entry in logs if "exc_info" in entry] == []
