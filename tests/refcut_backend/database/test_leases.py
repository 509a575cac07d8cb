from __future__ import annotations

from refcut_backend.database.leases import LeaseHolder


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
