"""The loop that hands out items, with workers that are imagined: every item is done, whoever dies."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from certmix.engines.queue import MOST, TRIES, Queue
from certmix.engines.supervise import Died, Done, Ready, supervise
from certmix.errors import RunError


class Imagined:
    """A crew whose workers die by lot, before they are ready or during a task, and may leave items over."""

    def __init__(self, size, chance, seed, poison=None):
        self.size, self.chance, self.random, self.poison = size, chance, random.Random(seed), poison
        self.starting, self.tasks, self.hired, self.most, self.dismissed = [], {}, 0, 0, False

    def hire(self):
        self.hired += 1
        self.starting.append(self.hired)
        self.most = max(self.most, len(self.starting) + len(self.tasks))
        return self.hired

    def send(self, worker, task):
        assert worker not in self.tasks
        assert task
        self.tasks[worker] = task

    def events(self):
        assert self.starting or self.tasks, "waiting for nobody"
        if self.starting and (not self.tasks or self.random.random() < 0.5):
            worker = self.starting.pop(0)
            return [(worker, Died("lot") if self.random.random() < self.chance else Ready())]
        worker = self.random.choice(list(self.tasks))
        task = self.tasks.pop(worker)
        if self.poison in task or self.random.random() < self.chance:
            return [(worker, Died("lot"))]
        left = self.random.randint(0, len(task) - 1)
        return [(worker, Done(task[: len(task) - left], task[len(task) - left :]))]

    def dismiss(self):
        self.dismissed = True


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 60), st.integers(1, 5), st.integers(0, 10**6))
def test_every_item_is_done_once(items, workers, seed):
    crew, done = Imagined(workers, 0.02, seed), []
    supervise(crew, Queue(range(items), workers, str), done.append)
    assert sorted(done) == list(range(items))
    assert crew.dismissed
    assert crew.most <= workers


def test_what_kills_every_worker_is_named_and_takes_no_other_along():
    crew, done = Imagined(3, 0.0, 1, poison=7), []
    with pytest.raises(
        RunError, match=rf"{TRIES} workers died while they held item 7 \(the last: lot\)"
    ) as told:
        supervise(crew, Queue(range(40), 3, lambda item: f"item {item}"), done.append)
    assert "\n" not in str(told.value)
    assert crew.dismissed


def test_workers_that_never_come_to_life_end_the_run():
    crew = Imagined(2, 1.0, 0)
    with pytest.raises(RunError, match="before they were ready.*__main__"):
        supervise(crew, Queue(range(5), 2, str), lambda result: None)
    assert crew.hired <= TRIES + 2


def test_what_was_begun_comes_first_and_the_last_items_are_divided():
    queue = Queue(range(1000), 2, str)
    task = queue.next()
    assert len(task) == MOST[0]
    queue.done(task, task[10:])
    assert queue.open == 990
    assert queue.next()[0] == task[10]
    few = Queue(range(6), 2, str)
    assert [len(few.next()) for _ in range(4)] == [3, 2, 1, 0]


def test_items_that_were_held_at_a_death_take_few_others_along():
    queue = Queue(range(100), 1, str)
    queue.died(queue.next(), "lot")
    assert queue.next() == list(range(8))
    queue.died(list(range(8)), "lot")
    assert queue.next() == [0]
    with pytest.raises(RunError, match="held 0 "):
        queue.died([0], "lot")
