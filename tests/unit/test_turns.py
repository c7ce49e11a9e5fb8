"""Turns: by priority, by shares of time however long each one's chunks take, and no claim on time that has gone by."""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from collections.abc import Callable
from contextlib import AbstractContextManager

import numpy as np
import pytest

from lsx.core.cancel import CancelToken
from lsx.core.threaded_stages import Stopped
from lsx.core.turns import FairQueue, Place, Slots, Turns, check_priority
from lsx.errors import UsageError


class _Simulation:
    """Runs that ask again as soon as their turn is over, on a clock of its own."""

    def __init__(self) -> None:
        self.queue = FairQueue()
        self.now = 0.0
        self.had: list[str] = []
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._runs: dict[int, tuple[str, float]] = {}

    def join(self, name: str, seconds: float, priority: int = 5) -> Place:
        """A run whose turns take `seconds` each."""
        place = Place(priority)
        self._runs[id(place)] = (name, seconds)
        self.queue.ask(place)
        return place

    def play(self, turns: int) -> None:
        for _ in range(turns):
            asked = self.queue.first
            assert asked is not None
            self.queue.give(asked)
            name, seconds = self._runs[id(asked.place)]
            self.had.append(name)
            self.now += seconds
            self.seconds[name] += seconds
            self.queue.charge(asked.place, seconds)
            self.queue.ask(asked.place)


def test_equal_runs_go_in_turn() -> None:
    simulation = _Simulation()
    places = [simulation.join(name, 2.0) for name in "abc"]
    simulation.play(9)
    assert "".join(simulation.had) == "abcabcabc"
    assert len(places) == 3


@pytest.mark.parametrize("seed", range(10))
def test_shares_are_of_time_and_not_of_turns(seed: int) -> None:
    """At any moment no two runs that always wait are further apart than what a turn of each takes, and one guess."""
    random = np.random.default_rng(seed)
    costs = {f"run {i}": float(random.uniform(0.1, 5)) for i in range(4)}
    simulation = _Simulation()
    places = [simulation.join(name, seconds) for name, seconds in costs.items()]
    for _ in range(300):
        simulation.play(1)
        had = [simulation.seconds[name] for name in costs]
        assert max(had) - min(had) <= 2 * max(costs.values())
    assert len(set(places)) == 4


def test_a_smaller_priority_goes_first_and_costs_the_others_nothing_among_themselves() -> None:
    simulation = _Simulation()
    slow = [simulation.join("first", 1.0), simulation.join("second", 1.0)]
    simulation.play(4)
    live = simulation.join("live", 1.0, priority=1)
    simulation.play(5)
    assert simulation.had[4:] == ["live"] * 5
    simulation.queue.leave(next(asked for asked in simulation.queue._waiting if asked.place is live))
    simulation.had.clear()
    simulation.play(4)
    assert Counter(simulation.had) == {"first": 2, "second": 2}
    assert len(slow) == 2


def test_who_comes_late_has_no_claim_on_the_time_before() -> None:
    simulation = _Simulation()
    early = simulation.join("early", 1.0)
    simulation.play(100)
    late = simulation.join("late", 1.0)
    simulation.play(10)
    assert Counter(simulation.had[100:]) == {"early": 5, "late": 5}
    assert early is not late


def test_turns_exclude_each_other_and_each_run_gets_its_own() -> None:
    turns, inside, most, had = Turns(), [0], [0], Counter[int]()

    def run(number: int) -> None:
        place = Place(1 + number % 3)
        for _ in range(50):
            with turns.taken(place, CancelToken()):
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                had[number] += 1
                inside[0] -= 1
            turns.charge(place, 0.001 * number)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert most == [1]
    assert had == dict.fromkeys(range(6), 50)


def test_who_is_stopped_while_it_waits_leaves_the_others_their_turns() -> None:
    turns, stop, stopped, waits = Turns(), CancelToken(), threading.Event(), threading.Event()

    def run() -> None:
        waits.set()
        with pytest.raises(Stopped), turns.taken(Place(1), stop):
            raise AssertionError
        stopped.set()

    with turns.taken(Place(), CancelToken()):
        thread = threading.Thread(target=run)
        thread.start()
        assert waits.wait(10)
        stop.cancel()
        assert stopped.wait(10)
    with turns.taken(Place(), CancelToken()):
        pass
    thread.join(10)


@pytest.mark.parametrize("wrong", [0, 10, 2.5, True, "5", None])
def test_a_priority_that_is_none(wrong: object) -> None:
    with pytest.raises(UsageError, match="1, which goes first, to 9"):
        check_priority(wrong)  # type: ignore[arg-type]


def test_places_go_to_the_run_that_began_first_of_the_smallest_priority() -> None:
    slots, had = Slots(1), list[str]()
    first, second, live = slots.of_run(5), slots.of_run(5), slots.of_run(1)
    taken = [("second", second), ("first", first), ("live", live), ("first", first)]

    def work(name: str, turn: Callable[[], AbstractContextManager[None]]) -> None:
        with turn():
            had.append(name)

    threads = [threading.Thread(target=work, args=one) for one in taken]
    with slots.of_run(9)():
        for number, thread in enumerate(threads, 1):
            thread.start()
            while len(slots._waiting) < number:
                threading.Event().wait(0.001)
    for thread in threads:
        thread.join(10)
    assert had == ["live", "first", "first", "second"]


def test_no_more_places_than_there_are() -> None:
    slots, inside, most = Slots(2), [0], [0]
    lock = threading.Lock()

    def work(turn: Callable[[], AbstractContextManager[None]]) -> None:
        for _ in range(20):
            with turn():
                with lock:
                    inside[0] += 1
                    most[0] = max(most[0], inside[0])
                threading.Event().wait(0.001)
                with lock:
                    inside[0] -= 1

    threads = [threading.Thread(target=work, args=(slots.of_run(5),)) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert most == [2]
