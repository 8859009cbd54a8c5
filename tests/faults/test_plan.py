"""A seed decides everything, and the table of faults covers every kind that the campaign promises."""

from typing import get_args

from tests.docs.pages import table, text_of
from tests.faults.kinds.fault import Kind
from tests.faults.kinds.table import FAULTS, names_for
from tests.faults.plan import PROTOCOLS, only, plan, tour


def test_same_seed_gives_the_same_schedule() -> None:
    """Other seeds give others."""
    schedules = [plan(seed, names_for) for seed in range(50)]

    assert schedules == [plan(seed, names_for) for seed in range(50)]
    assert len({schedule.shown for schedule in schedules}) == 50


def test_every_schedule_has_clients_of_every_protocol() -> None:
    for seed in range(50):
        assert {client.protocol for client in plan(seed, names_for).clients} == set(PROTOCOLS)


def test_faults_are_those_that_the_installation_can_have() -> None:
    for seed in range(200):
        schedule = plan(seed, names_for)
        names = {fault.name for step in schedule.steps for fault in step.faults}
        assert names <= set(names_for(schedule.backend, schedule.servers))


def test_every_kind_of_fault_has_one() -> None:
    assert {fault.kind for fault in FAULTS.values()} == set(get_args(Kind))


def test_page_lists_every_kind() -> None:
    """docs/reliability.md says of each what is done."""
    section = text_of("reliability.md").split("\n## Faults\n")[1].split("\n## ")[0]
    listed = {name for row in table(section, "kind") for name in row[0].split(", ")}

    assert listed == set(get_args(Kind))


def test_every_fault_is_in_some_schedule() -> None:
    seen = {fault.name for seed in range(300) for step in plan(seed, names_for).steps for fault in step.faults}

    assert seen == FAULTS.keys()


def test_tour_has_every_fault_once() -> None:
    """Each where it can happen."""
    schedules = tour(1, names_for)
    names = [fault.name for schedule in schedules for step in schedule.steps for fault in step.faults]

    assert sorted(names) == sorted(FAULTS)
    for schedule in schedules:
        possible = set(names_for(schedule.backend, schedule.servers))
        assert {fault.name for step in schedule.steps for fault in step.faults} <= possible


def test_single_faults_keep_installation_and_clients() -> None:
    schedule = plan(3, names_for)
    alone = only(schedule, ["kill-relay"])

    assert (alone.clients, alone.backend, alone.servers) == (schedule.clients, schedule.backend, schedule.servers)
    assert [fault.name for step in alone.steps for fault in step.faults] == ["kill-relay"]
