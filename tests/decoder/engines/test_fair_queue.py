"""The queue for the KV cache: owners in turn, no more than a share for one, and everyone in the end."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.fair_queue import FairQueue


@dataclass
class Places:
    """A queue before `places` places and `blocks` blocks, with the blocks that each item needs."""

    places: int
    blocks: int
    owner_share: float = 0.5
    max_waiting: int = 256

    def __post_init__(self) -> None:
        self.queue: FairQueue[str] = FairQueue(
            places=self.places, blocks=self.blocks, owner_share=self.owner_share, max_waiting=self.max_waiting
        )
        self.free = self.blocks
        self.needs: dict[str, int] = {}
        self.running: list[str] = []

    def add(self, *items: str, needs: int = 1) -> None:
        """Items are called as their owner and a number: `a1`; the common owner's have a number alone."""
        for item in items:
            self.needs[item] = needs
            self.queue.add(item, owner(item))

    def admit(self) -> list[str]:
        admitted = []
        while (item := self.queue.next(self.free, self.needs.__getitem__)) is not None:
            self.queue.admit(item, self.needs[item])
            self.free -= self.needs[item]
            admitted.append(item)
        self.running += admitted
        return admitted

    def end(self, item: str) -> None:
        self.running.remove(item)
        self.queue.leave(item, self.needs[item])
        self.free += self.needs[item]


def owner(item: str) -> str:
    return item.rstrip("0123456789")


def test_one_owner_s_items_are_admitted_in_order() -> None:
    for name in ("", "a"):
        places = Places(3, 100, owner_share=1)
        places.add(*(f"{name}{n}" for n in range(8)))
        assert places.queue.order() == [f"{name}{n}" for n in range(8)]
        assert places.admit() == [f"{name}{n}" for n in range(3)]
        places.end(f"{name}1")
        assert places.admit() == [f"{name}3"]


def test_the_owner_with_the_fewest_running_is_next() -> None:
    places = Places(4, 100)
    places.add("1", "2", "3", "4", "5", "a1", "a2", "b1")
    assert places.queue.order() == ["1", "a1", "b1", "2", "a2", "3", "4", "5"]
    assert places.admit() == ["1", "a1", "b1", "2"]
    places.end("b1")
    assert places.admit() == ["a2"]


def test_an_owner_at_its_share_is_passed_over() -> None:
    places = Places(4, 100)
    places.add("a1", "a2", "a3", "a4", needs=2)
    assert places.admit() == ["a1", "a2"]
    places.add("b1", "1")
    assert places.queue.order() == ["b1", "1", "a3", "a4"]
    assert places.admit() == ["b1", "1"]


def test_blocks_have_a_share_too() -> None:
    places = Places(64, 10)
    places.add("a1", "a2", needs=3)
    assert places.admit() == ["a1"]
    places.add("b1", needs=5)
    assert places.admit() == ["b1"]


def test_who_holds_nothing_may_take_all() -> None:
    places = Places(1, 10, owner_share=0.01)
    places.add("a1", needs=10)
    assert places.admit() == ["a1"]


def test_the_common_owner_has_everything_among_itself() -> None:
    places = Places(4, 4, max_waiting=4)
    places.add(*"12345678")
    assert places.admit() == [*"1234"]
    assert places.queue.refusal("8") is None


def test_a_known_owner_s_part_is_kept_free_of_the_common_owner() -> None:
    places = Places(4, 100, owner_share=0.75)
    places.add(*"123456")
    assert places.admit() == [*"1234"]
    places.add("a1")
    # Nothing that runs is stopped.
    assert places.admit() == []
    places.end("1")
    assert places.admit() == ["a1"]
    places.end("a1")
    assert places.admit() == [], "the place stays free though nobody else waits"
    places.add("b1")
    assert places.admit() == ["b1"]
    places.end("2")
    assert places.admit() == ["5"]


def test_blocks_are_kept_free_of_the_common_owner() -> None:
    places = Places(64, 8, owner_share=0.75)
    places.add("a1", "1", "2", "3", "4", needs=2)
    assert places.admit() == ["a1", "1", "2", "3"]
    places.end("a1")
    assert places.admit() == []
    places.add("b1", needs=2)
    assert places.admit() == ["b1"]


def test_a_common_item_that_needs_everything_is_admitted_in_the_end() -> None:
    places = Places(4, 8)
    places.add("a1", "1")
    places.admit()
    places.add("2", needs=8)
    places.add("3")
    assert places.admit() == []
    places.end("1")
    assert places.admit() == []
    places.end("a1")
    assert places.admit() == ["2"]


def test_the_common_owner_may_fill_half_of_the_queue_beside_others() -> None:
    places = Places(1, 1, max_waiting=4)
    places.add("a1")
    places.admit()
    for item in "12":
        places.add(item)
        assert places.queue.refusal(item) is None
    places.add("3")
    message = "resource_exhausted: 2 requests without a cache_salt are waiting for the KV cache and no more of them may"
    assert message in str(places.queue.refusal("3"))
    places.queue.withdraw("3")
    places.add("a2")
    assert places.queue.refusal("a2") is None


def test_a_large_item_is_not_overtaken_for_ever() -> None:
    """Small ones of ever new owners come while it waits."""
    places = Places(8, 8)
    places.add("a1", needs=2)
    places.add("b1")
    places.admit()
    places.add("a2", needs=8)
    fresh = (f"{name * 2}1" for name in "cdefghijklmnopqrstuvwxyz")
    for _ in range(12):
        places.add(next(fresh))
        places.admit()
        places.end(places.running[0])
        if "a2" in places.admit():
            return
    raise AssertionError("it starved")


def test_one_owner_may_fill_half_of_the_queue() -> None:
    places = Places(1, 1, max_waiting=4)
    places.add("1")
    places.admit()
    for item in ("a1", "a2"):
        places.add(item)
        assert places.queue.refusal(item) is None
    places.add("a3")
    refusal = places.queue.refusal("a3")
    assert refusal is not None
    message = r"resource_exhausted: 2 requests of this owner are waiting for the KV cache .* retry in 1 s"
    with pytest.raises(type(refusal), match=message):
        raise refusal
    places.queue.withdraw("a3")
    for item in ("2", "3"):
        places.add(item)
        assert places.queue.refusal(item) is None
    places.add("b1")
    assert "4 requests are waiting" in str(places.queue.refusal("b1"))


arrivals = st.lists(st.tuples(st.sampled_from(["", "", "a", "b", "c"]), st.integers(1, 12)), min_size=1, max_size=40)


@given(arrivals, st.integers(1, 6), st.floats(0.01, 1), st.data())
def test_everyone_is_admitted_in_the_end_and_nobody_exceeds_the_share(
    coming: list[tuple[str, int]], count: int, owner_share: float, data: st.DataObject
) -> None:
    places = Places(count, 12, owner_share)
    order: list[str] = []
    asked = [(f"{name}{n}", needs) for n, (name, needs) in enumerate(coming)]
    while asked or places.queue.waiting or places.running:
        action = data.draw(st.integers(0, 9))
        if asked and action < 5:
            item, needs = asked.pop(0)
            places.add(item, needs=needs)
        elif places.running and action < 9:
            places.end(data.draw(st.sampled_from(places.running)))
        elif places.queue.waiting and action == 9:
            places.queue.withdraw(data.draw(st.sampled_from(places.queue.order())))
        admitted = places.admit()
        order += admitted
        assert places.running or not places.queue.waiting, "room, and nobody is admitted"
        assert places.queue.running == len(places.running) <= count
        # What the common owner had before the first other one came may stay until it ends.
        known = any(owner(item) for item in places.needs)
        bounded = [*"abc", *("" for item in admitted if known and not owner(item))]
        for name in bounded:
            held = [item for item in places.running if owner(item) == name]
            assert len(held) <= max(1, int(owner_share * count))
            assert len(held) < 2 or sum(places.needs[item] for item in held) <= owner_share * 12
    for name in ("", "a", "b", "c"):
        own = [int(item[len(name) :]) for item in order if owner(item) == name]
        assert own == sorted(own), "an owner's are admitted in order"
    assert not places.queue._places_held, "who has left is forgotten"
    assert not places.queue._blocks_held
