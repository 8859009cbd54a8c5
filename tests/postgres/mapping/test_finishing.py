"""Whether rows become rounds by an UPDATE."""

from typing import Any

import pytest

from backends.postgres.mapping.finishing import finished_by_options, finishes_by_update
from backends.postgres.mapping.table_options import TableOptions

NULLABLE = {"finished_at": False, "ended": True, "data": False, "data.ended": False}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, False),
        ({"finished_at_column": "ended"}, True),
        ({"finished_when": "finished_at is not null"}, True),
        ({"finished_by": "update"}, True),
        ({"finished_at_column": "ended", "finished_by": "insert"}, False),
        ({"finished_when": "ended is not null", "finished_by": "insert"}, False),
        ({"finished_at_column": "data.ended"}, False),  # the column of that whole name
        ({"finished_at_column": "data.round.ended"}, True),  # a member of a column that is not NULL
        ({"finished_at_column": "missing"}, False),
    ],
)
def test_rows_finish_by_update_where_their_time_may_be_null(options: dict[str, Any], expected: bool) -> None:
    """Unless the options say what finishes them."""
    table = TableOptions(**options)

    assert finishes_by_update(table, NULLABLE) is expected
    assert finished_by_options(table) in (None, expected)
