"""The world keeps its promises, in its scripts and in the files that are encoded from them."""

import numpy as np
import pytest

from build.demo_checkpoint.training.pool import BETWEEN_SCENES, NOTHING, truth_of_patch
from build.demo_checkpoint.world.drawing import draw_frames
from build.demo_checkpoint.world.video import decode, encode
from build.demo_checkpoint.world.world import (
    CELL,
    COLOURS,
    COLUMNS,
    HEIGHT,
    THING_INDEX,
    WIDTH,
    Appearance,
    Scene,
    Script,
    Thing,
    make_script,
)

RED = Thing("shape", "square", "red")
BLUE = Thing("shape", "circle", "blue")


def script_of(*scenes: Scene) -> Script:
    return Script(scenes, frames_per_second=8, noise=0.0, seed=0)


def scene(start: float, end: float, *appearances: Appearance, fade: float = 0.0) -> Scene:
    return Scene(start, end, 0, fade, appearances)


def appearance(
    thing: Thing, start: float, end: float, origin: tuple[float, float], target: tuple[float, float] | None = None
):
    return Appearance(thing, start, end, origin, target or origin, size=24)


@pytest.mark.parametrize("duration", [4.0, 40.0, 2 * 3600.0])
@pytest.mark.parametrize("seed", range(20))
def test_scenes_follow_one_another_and_share_nothing_with_the_next(seed: int, duration: float) -> None:
    script = make_script(np.random.default_rng(seed), duration=duration)
    assert script.scenes[0].start == 0.0
    assert script.duration == duration
    for before, after in zip(script.scenes, script.scenes[1:], strict=False):
        assert before.end == after.start
        assert not {a.thing for a in before.appearances} & {a.thing for a in after.appearances}


def test_the_same_seed_makes_the_same_file() -> None:
    files = [encode(draw_frames(script), 8) for script in (_random_script(3), _random_script(3), _random_script(4))]
    assert files[0] == files[1] != files[2]


def _random_script(seed: int) -> Script:
    return make_script(np.random.default_rng(seed), duration=4.0)


def test_things_are_drawn_where_and_when_the_script_says() -> None:
    """Read back from the encoded file: the colour at the centre of the cell that the script names, while it is
    shown."""
    script = script_of(scene(0.0, 2.0, appearance(RED, 0.5, 1.5, (80.0, 48.0))))
    frames = decode(encode(draw_frames(script), 8))
    assert frames.shape == (16, HEIGHT, WIDTH, 3)
    red = [np.abs(frame[48, 80].astype(int) - COLOURS["red"]).max() < 40 for frame in frames]
    assert red == [4 <= index < 12 for index in range(16)]


def test_a_thing_counts_where_both_frames_show_it() -> None:
    script = script_of(
        scene(0.0, 4.0, appearance(RED, 1.0, 3.0, (16.0, 48.0)), appearance(BLUE, 0.0, 4.0, (80.0, 16.0)))
    )
    blue_only, _ = truth_of_patch(script, 0.75, 1.25)
    both, _ = truth_of_patch(script, 1.25, 1.75)
    assert dict(enumerate(blue_only)) == {**dict.fromkeys(range(6), NOTHING), 2: THING_INDEX[BLUE]}
    assert both[2] == THING_INDEX[BLUE]
    assert both[COLUMNS] == THING_INDEX[RED]


def test_what_moves_is_in_the_cell_of_its_mean_place() -> None:
    start, end = CELL / 2, 2.5 * CELL
    script = script_of(scene(0.0, 4.0, appearance(RED, 0.0, 4.0, (start, 16.0), (end, 16.0))))
    places = [
        np.flatnonzero(truth_of_patch(script, time, time + 0.5)[0] != NOTHING).tolist() for time in (0.0, 1.75, 3.4)
    ]
    assert places == [[0], [1], [2]]


def test_a_patch_with_a_cut_inside_shows_nothing() -> None:
    script = script_of(
        scene(0.0, 1.0, appearance(RED, 0.0, 1.0, (16.0, 16.0))),
        scene(1.0, 2.0, appearance(RED, 1.0, 2.0, (16.0, 16.0))),
    )
    cells, where = truth_of_patch(script, 0.75, 1.25)
    assert (cells == NOTHING).all()
    assert where == BETWEEN_SCENES


def test_a_fade_hides_while_it_is_darker_than_half() -> None:
    script = script_of(scene(0.0, 2.0, appearance(RED, 0.0, 2.0, (16.0, 16.0)), fade=0.4))
    assert [bool(script.shown(seconds)) for seconds in (0.1, 0.3, 1.0, 1.7, 1.9)] == [False, True, True, True, False]
