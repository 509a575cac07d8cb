"""tests/refcut_backend/database/test_leases.py."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from refcut_backend.database.leases import LeaseHolder, held
from refcut_backend.database.tables import Lease
from tests.support.worker_farm import wait_for


class Clock:
    def __init__(self) -> None:
        self.time = 1000.0

    def __call__(self) -> float:
        return self.time


def test_one_of_several_holds_a_lease_until_it_gives_it_back(engine):
    clock = Clock()
    first, second = (LeaseHolder(engine, "reconcile", 60, clock) for _ in range(2))
    assert first.hold()
    assert not second.hold()
    assert first.hold()
    second.release()
    assert not second.hold()
    first.release()
    assert second.hold()
    assert not first.hold()


def test_a_lease_whose_holder_died_is_taken_over_when_it_has_run_out(engine):
    clock = Clock()
    first, second = (LeaseHolder(engine, "reconcile", 60, clock) for _ in range(2))
    assert first.hold()
    clock.time += 59
    assert not second.hold()
    clock.time += 2
    assert second.hold()
    assert not first.hold()


def test_different_leases_do_not_get_in_each_others_way(engine):
    assert LeaseHolder(engine, "one", 60).hold()
    assert LeaseHolder(engine, "another", 60).hold()


LASTS_S = 8.0


def expires_at(engine) -> float:
    with Session(engine) as session:
        return session.scalars(select(Lease.expires_at)).one()


def test_while_it_is_held_it_is_renewed_and_afterwards_another_may_have_it(engine):
    ours, theirs = LeaseHolder(engine, "prelabel-7", LASTS_S), LeaseHolder(engine, "prelabel-7", LASTS_S)
    assert ours.hold()
    begun = expires_at(engine)
    with held(ours, LASTS_S):
        wait_for(lambda: expires_at(engine) > begun, "it is renewed")
        assert not theirs.hold()
    assert theirs.hold()


def test_a_lease_that_another_took_over_is_lost(engine):
    ours = LeaseHolder(engine, "prelabel-7", LASTS_S)
    assert ours.hold()
    ours.release()
    theirs = LeaseHolder(engine, "prelabel-7", 1e6)
    assert theirs.hold()
    with held(ours, LASTS_S) as is_lost:
        wait_for(is_lost, "it is noticed")
    assert not LeaseHolder(engine, "prelabel-7", LASTS_S).hold()


def test_a_lease_that_was_not_renewed_in_time_counts_as_lost(engine):
    clock = [0.0]
    ours = LeaseHolder(engine, "prelabel-7", 1e6)
    assert ours.hold()
    with held(ours, 1e6, now=lambda: clock[0]) as is_lost:
        assert not is_lost()
        clock[0] = 2e6
        assert is_lost()
