"""Blocks that keep their content: what is shared, what is copied, what is evicted, what is counted."""

from __future__ import annotations

import numpy as np
import pytest

from engines.protocol import Request
from engines.pytorch.cache.block_keys import BlockKeys
from engines.pytorch.cache.block_manager import BlockManager
from engines.pytorch.cache.prefix_cache import PrefixCache, Reservation
from engines.sampling_parameters import SamplingParameters

BLOCK = 4
VISUAL = 99


def keys_of(token_ids: list[int], *digests: str, start: int = 0, salt: str = "") -> BlockKeys:
    ids = np.array(token_ids, np.int32)
    positions = np.tile(np.arange(start, start + len(ids), dtype=np.int32), (3, 1))
    names = tuple(digit * 32 for digit in digests)
    asked = Request(ids, positions, names, len(ids), SamplingParameters(max_tokens=1), salt)
    return BlockKeys(asked, (VISUAL,), 8, BLOCK)


def prefix_cache(blocks: int, *, enabled: bool = True) -> PrefixCache:
    return PrefixCache(BlockManager(blocks), BLOCK, enabled=enabled)


def run(cache: PrefixCache, told: BlockKeys, tokens: int) -> Reservation | None:
    """A request with an answer of one token that computes its prompt and ends."""
    reservation = cache.reserve(told, tokens, tokens)
    if reservation is not None:
        for index in range(tokens // BLOCK):
            cache.fill(told, index, reservation.blocks[index])
        cache.release(reservation.blocks)
    return reservation


def held(cache: PrefixCache, told: BlockKeys, tokens: int) -> int:
    """How much of a prompt is held."""
    reservation = cache.reserve(told, tokens, tokens)
    assert reservation is not None
    cache.release(reservation.blocks)
    return reservation.held_tokens


def test_full_blocks_are_shared_and_the_rest_is_copied() -> None:
    cache = prefix_cache(20)
    first = run(cache, keys_of([*range(12)]), 12)
    assert first is not None
    assert (first.held_tokens, first.source, cache.cached, cache.available) == (0, None, 3, 20)
    # Two blocks in common, and two tokens of the third.
    second = cache.reserve(keys_of([*range(10), 77, 78, 79]), 13, 13)
    assert second is not None
    assert (second.held_tokens, second.source) == (10, first.blocks[2])
    assert second.blocks[:2] == first.blocks[:2]
    assert not set(second.blocks[2:]) & set(first.blocks)
    assert (cache.cached, cache.available) == (1, 20 - 4)
    cache.release(second.blocks)
    assert (cache.cached, cache.available) == (3, 20)


@pytest.mark.parametrize(("tokens", "expected"), [(12, 11), (11, 10), (9, 8), (8, 7), (4, 3), (1, 0)])
def test_the_last_token_of_a_prompt_is_computed_anew(tokens: int, expected: int) -> None:
    cache = prefix_cache(20)
    run(cache, keys_of([*range(16)]), 16)
    assert held(cache, keys_of([*range(tokens)]), tokens) == expected


def test_other_tokens_positions_and_pictures_are_not_taken_for_the_same() -> None:
    tokens = [1, VISUAL, VISUAL, 2, 3, 4, VISUAL, 5, 6]
    cache = prefix_cache(20)
    run(cache, keys_of(tokens, "a", "b"), 8)
    assert held(cache, keys_of(tokens, "a", "b"), 9) == 8
    assert held(cache, keys_of(tokens, "a", "c"), 9) == 6
    assert held(cache, keys_of(tokens, "b", "b"), 9) == 1
    assert held(cache, keys_of(tokens, "a", "b", start=1), 9) == 0
    assert held(cache, keys_of([*tokens[:5], 7, *tokens[6:]], "a", "b"), 9) == 5
    # The same block after another one is another block.
    assert held(cache, keys_of([*tokens[4:8], 6], "b", start=4), 5) == 0


def test_a_generated_token_is_content_too() -> None:
    cache = prefix_cache(20)
    told = keys_of([0, 1, 2])
    reservation = cache.reserve(told, 3, 8)
    assert reservation is not None
    for token in (3, 4, 5, 6, 7):
        told.append(token, token)
    for index in (0, 1):
        cache.fill(told, index, reservation.blocks[index])
    cache.release(reservation.blocks)
    assert held(cache, keys_of([*range(9)]), 9) == 8


def test_the_least_recently_used_go_first_and_from_their_end() -> None:
    cache = prefix_cache(6)
    old, new = keys_of([*range(8)]), keys_of([*range(50, 58)])
    run(cache, old, 8)
    run(cache, new, 8)
    held(cache, keys_of([*range(9)]), 9)
    run(cache, keys_of([70, 71, 72, 73, 74, 75, 76, 77, 78]), 9)
    assert held(cache, keys_of([*range(9)]), 9) == 8
    assert held(cache, keys_of([*range(50, 56)]), 6) == 4


def test_blocks_in_use_are_never_evicted() -> None:
    cache = prefix_cache(5)
    told = keys_of([*range(9)])
    run(cache, told, 8)
    using = cache.reserve(told, 9, 9)
    assert using is not None
    assert cache.reserve(keys_of([*range(50, 60)]), 10, 10) is None
    # What is held is not to be had, but it need not be had again.
    sharing = cache.reserve(keys_of([*range(8), 90]), 9, 12)
    assert sharing is not None
    assert sharing.blocks[:2] == using.blocks[:2]
    cache.release(using.blocks)
    cache.release(sharing.blocks)
    assert cache.available == 5
    assert cache.reserve(keys_of([*range(50, 70)]), 20, 20) is not None
    assert cache.cached == 0


def test_a_source_that_had_to_go_is_not_copied_from() -> None:
    cache = prefix_cache(3)
    run(cache, keys_of([*range(8)]), 8)
    tight = cache.reserve(keys_of([0, 1, 2, 3, 4, 5, 60]), 7, 12)
    assert tight is not None
    assert (tight.held_tokens, tight.source) == (4, None)
    assert len(set(tight.blocks)) == 3


def test_the_first_of_two_equal_blocks_stays_the_shared_one() -> None:
    cache = prefix_cache(8)
    told = keys_of([*range(9)])
    both = [cache.reserve(told, 9, 9) for _ in range(2)]
    for reservation in both:
        assert reservation is not None
        assert reservation.held_tokens == 0
        cache.fill(told, 0, reservation.blocks[0])
    for reservation in both:
        assert reservation is not None
        cache.release(reservation.blocks)
    assert (cache.cached, cache.available) == (1, 8)


def test_nothing_is_kept_where_it_is_switched_off() -> None:
    cache = prefix_cache(8, enabled=False)
    run(cache, keys_of([*range(8)]), 8)
    assert (cache.cached, cache.available) == (0, 8)
    assert held(cache, keys_of([*range(9)]), 9) == 0


def test_owners_share_with_themselves_alone() -> None:
    cache = prefix_cache(40)
    for salt in ("alice", ""):
        run(cache, keys_of([*range(12)], salt=salt), 12)
    assert cache.cached == 6
    for salt, expected in (("alice", 11), ("", 11), ("bob", 0), ("alice ", 0)):
        assert held(cache, keys_of([*range(12)], salt=salt), 12) == expected
        # A block that is not full, and one whose first tokens alone are the same, by way of its siblings.
        assert held(cache, keys_of([*range(3)], salt=salt), 3) == min(expected, 2)
        assert held(cache, keys_of([*range(10), 77, 78], salt=salt), 12) == min(expected, 10)


def test_a_salt_is_not_taken_for_the_beginning_of_a_prompt() -> None:
    cache = prefix_cache(40)
    run(cache, keys_of([*range(8)]), 8)
    # The name of the first block, if what it is made of were a salt.
    beginning = keys_of([*range(8)]).rows(0, BLOCK).tobytes().decode()
    assert held(cache, keys_of([*range(4, 8), 9], start=4, salt=beginning), 5) == 0
