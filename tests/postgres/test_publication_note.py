"""Whether a publication was changed, and perhaps changed back: only the versions of its catalogue rows show it."""

from typing import Any

import msgspec
import pytest

from backends.postgres.replication.publication.publication_facts import PublicationFacts
from backends.postgres.replication.publication.publication_note import PublicationNote, change_between


def facts(**changed: Any) -> PublicationFacts:
    member = {"oid": 16384, "schema_name": "public", "table_name": "rounds", "is_partitioned": False,
              "is_published": True, "columns": None, "row_filter": None, "placed": changed.pop("placed", "740"),
              "memberships": changed.pop("memberships", ["16391:760"])}  # fmt: skip
    table = {"schema_name": "public", "table_name": "rounds", "oid": changed.pop("table_oid", 16384), "columns": [],
             "members": [member], "leaves": [], "attached": []}  # fmt: skip
    publication = {"version": 180000, "oid": 16390, "row": "750", "inserts": True, "updates": False, "deletes": False,
                   "via_root": True, "all_tables": False, "tables": [table]}  # fmt: skip
    return msgspec.convert({**publication, **changed}, PublicationFacts)


def note(**changed: Any) -> str:
    return str(PublicationNote.of(facts(**changed)))


@pytest.mark.parametrize(
    ("now", "sentence"),
    [
        (note(oid=9), "dropped and recreated"),
        (note(row="751"), "altered, and perhaps altered back"),
        (note(row="751", inserts=False, updates=True), "other operations"),
        (note(memberships=["16399:770"]), "removed from the publication and added again"),
        (note(memberships=["16391:761"]), "removed from the publication and added again"),
        (note(table_oid=20000), "another table has its name"),
        (note(filled=["public.rounds_1@99:777"]), r"public\.rounds_1 became part of a table"),
    ],
)
def test_what_may_have_sent_less_is_named(now: str, sentence: str) -> None:
    """It looks the same afterwards; between the two versions rows may not have been sent."""
    assert sentence.replace("\\", "") in change_between(note(), now).lost


def test_what_sends_more_is_no_reason_to_stop() -> None:
    """A further table, a further operation, and a table that is included twice."""
    assert change_between(note(), note()) == ("", "")
    assert change_between(note(), note(row="751", updates=True)) == ("", "operations")
    both = note(schemas={"public": "16400:765"})
    assert change_between(note(), both).lost == ""
    assert change_between(both, note(memberships=["16399:770"], schemas={"public": "16400:765"})).lost == ""
    assert change_between(both, note(memberships=[])).lost != ""


def test_table_that_left_its_published_schema_for_a_while_is_named() -> None:
    """A publication of the tables in a schema sends nothing of a table that is in another one."""
    published: dict[str, Any] = {"schemas": {"public": "16400:765"}, "memberships": []}

    assert "removed from the publication" in change_between(note(**published), note(placed="790", **published)).lost
    assert change_between(note(), note(placed="790")).lost == ""


def test_note_of_an_earlier_release_is_understood() -> None:
    """It has the oids only, so only what was recreated can be seen."""
    assert change_between("16390.16384.16391", note()).lost == ""
    assert change_between("16390.16384.16399", note()).lost != ""
    assert change_between("16390.16384", note(all_tables=True, memberships=[])).lost == ""


def test_known_attachment_is_no_change() -> None:
    """The operator has filled in its rows, or has accepted that they are missing."""
    filled = note(filled=["public.rounds_1@99:777"])

    assert change_between(filled, filled).lost == ""
    assert change_between(filled, note()).lost == ""
