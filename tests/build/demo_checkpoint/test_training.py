"""The parts of the training that can be wrong without anyone noticing."""

from dataclasses import replace
from itertools import groupby, pairwise

import numpy as np
import pytest
import torch

from build.demo_checkpoint.attributes import NOT_ASKED
from build.demo_checkpoint.model import Activations, LanguageModel, Weights
from build.demo_checkpoint.training import composing
from build.demo_checkpoint.training.attention_supervision import NOWHERE, attention_losses
from build.demo_checkpoint.training.batches import collate
from build.demo_checkpoint.training.composing import LONGEST_SECONDS, Bank, compose, draw_timestamps, scatter
from build.demo_checkpoint.training.decoder_training import TOKENS_A_QUESTION, exact_answers, make_example, predict
from build.demo_checkpoint.training.pool import BETWEEN_SCENES, NOTHING
from build.demo_checkpoint.training.probes import truth_of
from build.demo_checkpoint.training.prompts import Example, write_example
from build.demo_checkpoint.training.schedule import model_shape
from build.demo_checkpoint.training.writer import Tokens
from build.demo_checkpoint.vocabulary import special, tokenizer
from build.demo_checkpoint.world import wording
from build.demo_checkpoint.world.questions import Asker, Line, Question, Track, Turn
from build.demo_checkpoint.world.world import THING_INDEX, THINGS, Thing

WIDTH = model_shape().hidden * 3


def bank() -> Bank:
    """Four videos of 12 patches in three scenes; every row is its video, patch and cell, so that it can be
    recognised."""
    videos, patches, cells = np.mgrid[0:4, 0:12, 0:6]
    rows = torch.zeros(4, 12, 6, WIDTH)
    rows[..., 0], rows[..., 1], rows[..., 2] = (
        torch.from_numpy(videos),
        torch.from_numpy(patches),
        torch.from_numpy(cells),
    )
    shown = np.full((4, 12, 6), NOTHING)
    scenes = np.repeat([0, 1, 2], 4)[None].repeat(4, axis=0)
    scenes[:, 7] = BETWEEN_SCENES
    for video in range(4):
        for scene in range(3):
            shown[video, scenes[video] == scene, (video + scene) % 6] = 10 * video + scene
    return Bank(rows, shown, scenes, np.tile(np.arange(12) + 0.25, (4, 1)))


def test_composed_videos_number_their_scenes_and_never_continue_a_thing() -> None:
    source = bank()
    for seed in range(50):
        composed = compose(source, 20, np.random.default_rng(seed))
        assert len(composed.scenes) == 20
        clean = composed.scenes[composed.scenes != BETWEEN_SCENES]
        assert (np.diff(clean) >= 0).all()
        assert set(np.diff(clean)) <= {0, 1}
        for before, after in zip(np.unique(clean), np.unique(clean)[1:], strict=False):
            things = [set(composed.cells[composed.scenes == scene].ravel()) - {NOTHING} for scene in (before, after)]
            assert not things[0] & things[1]


def test_composed_videos_keep_the_times_of_their_slices_apart() -> None:
    for seed in range(20):
        composed = compose(bank(), 20, np.random.default_rng(seed))
        assert (np.diff(composed.seconds) > 0.3).all()
        together = composed.videos[1:] == composed.videos[:-1]
        together &= np.diff(composed.patches) == 1
        np.testing.assert_allclose(np.diff(composed.seconds)[together], 1.0)


def test_rows_stay_with_what_they_show() -> None:
    """Whatever the places and the order of cells: the row at the position that an answer names is a row of that
    thing."""
    source = bank()
    checked = 0
    for seed in range(90):
        example, rows, truth, asked = make_example(source, 4, 8, np.random.default_rng(seed))
        vision = np.flatnonzero(example.video.token_ids == special("<|video_pad|>"))
        time, row, column = example.video.positions[:, vision]
        assert (row - time).tolist() == truth.row.tolist()
        assert (column - time).tolist() == truth.column.tolist()
        for r, thing in zip(rows.float(), truth.things.tolist(), strict=True):
            scene = int(r[1]) // 4
            shown = r[2] == (r[0] + scene) % 6 and r[1] != 7
            assert thing == (10 * r[0] + scene if shown else len(THINGS))
        for question in asked:
            if question.kind != "where" or question.language != "en":
                continue
            cell = next(cell for cell in range(6) if wording.place(cell, "en") == question.turns[0].answer)
            there = rows[(row - time == cell // 3) & (column - time == cell % 3)].float()
            # In this bank a thing's cell follows from its video and its scene, and its index names both.
            thing = next(thing for thing in THINGS if f" {wording.name(thing, 'en')}" in question.turns[0].question)
            video, scene = divmod(THING_INDEX[thing], 10)
            assert any(r[0] == video and r[2] == (video + scene) % 6 and r[1] // 4 == scene for r in there)
            checked += 1
    assert checked > 20


def test_pointers_lead_from_an_answer_to_its_evidence() -> None:
    """In a video whose rows say what they are: what the answers of "where" point at is the thing, wherever it is."""
    source = bank()
    checked = 0
    for seed in range(40):
        example, _, truth, asked = make_example(source, 6, 8, np.random.default_rng(seed))
        vision = np.flatnonzero(example.video.token_ids == special("<|video_pad|>")).tolist()
        for question, tokens in zip(asked, example.questions, strict=True):
            if question.kind != "where":
                continue
            evidence = [pointer for pointer in tokens.pointers if pointer.site == "evidence by thing"]
            assert evidence
            things = {int(truth.things[vision.index(key)]) for pointer in evidence for key in pointer.keys}
            assert len(things) == 1
            assert wording.name(THINGS[things.pop()], question.language) in question.turns[0].question
            checked += 1
    assert checked > 20


CIRCLE, STAR = Thing("shape", "circle", "red"), Thing("shape", "star", "green")
SHOWN = (((CIRCLE, 0),), ((CIRCLE, 0), (STAR, 5)), ((STAR, 5),))
"""A circle for two temporal patches, and a star beside it that stays for another."""


def pointed_at(example: Example, tokens: Tokens, site: str) -> dict[str, set[str | tuple[int, int]]]:
    """The targets of each token: a word of its own part, or the temporal patch and cell of a visual token."""
    vision = np.flatnonzero(example.video.token_ids == special("<|video_pad|>")).tolist()
    read = tokenizer().decode
    said: dict[str, set[str | tuple[int, int]]] = {}
    for pointer in tokens.pointers:
        if pointer.site == site:
            keys = [key for key in pointer.keys if not pointer.in_video or key in vision]
            found = said.setdefault(read(tokens.token_ids[[pointer.row + 1]]).strip(), set())
            found |= {
                divmod(vision.index(key), 6) if pointer.in_video else read(tokens.token_ids[[key]]) for key in keys
            }
    return said


def asked_of_shown(kind: str) -> tuple[Example, Tokens]:
    asker = Asker(track_of_shown(), "en", np.random.default_rng(0))
    question = next(question for question in (asker.ask(kind) for _ in range(100)) if question)
    example = write_example(track_of_shown().timestamps, [question], track=track_of_shown())
    return example, example.questions[0]


def track_of_shown() -> Track:
    return Track(("0.2", "1.2", "2.2"), SHOWN, (0, 0, 0))


def test_which_is_left_is_found_in_the_question() -> None:
    example, tokens = asked_of_shown("left")
    assert pointed_at(example, tokens, "left") == {said: {" circle"} for said in ("The", "red", "circle")}
    compared = pointed_at(example, tokens, "evidence by thing")
    assert sorted(map(sorted, compared.values())) == [[(0, 0), (1, 0)], [(1, 5), (2, 5)]]


def test_an_answer_ends_where_nothing_else_is_shown() -> None:
    asked = Question("what at", "en", (what_at("1.2", CIRCLE, STAR),))
    example = write_example(track_of_shown().timestamps, [asked], track=track_of_shown())
    found = pointed_at(example, example.questions[0], "evidence by time")
    assert [found[said] for said in ("red", "and", "green")] == [{(1, 0)}, {(1, 5)}, {(1, 5)}]
    assert found["."] == {(1, cell) for cell in (1, 2, 3, 4)}


def test_that_nothing_is_shown_is_found_at_its_time() -> None:
    track = Track(("0.2", "1.2"), (SHOWN[0], ()), (0, 0))
    asker = Asker(track, "en", np.random.default_rng(0))
    asked = next(
        question
        for question in (asker.ask("what at") for _ in range(100))
        if question and question.turns[0].about == ("1.2",)
    )
    assert asked.turns[0].answer == "Nothing."
    example = write_example(track.timestamps, [asked], track=track)
    found = pointed_at(example, example.questions[0], "evidence by time")
    assert list(found.values()) == [{(1, cell) for cell in range(6)}] * len(found)


def what_at(time: str, *things: Thing) -> Turn:
    asker = Asker(track_of_shown(), "en", np.random.default_rng(0))
    turns = (question.turns[0] for question in (asker.ask("what at") for _ in range(100)) if question)
    return next(turn for turn in turns if turn.about == (time,) and turn.answer == wording.listing(things, "en"))


def test_visual_tokens_point_at_what_was_before() -> None:
    example = write_example(track_of_shown().timestamps, [], track=track_of_shown())
    vision = np.flatnonzero(example.video.token_ids == special("<|video_pad|>")).tolist()
    table = {
        (pointer.site, *divmod(vision.index(pointer.row), 6)): [divmod(vision.index(k), 6) for k in pointer.keys if k]
        for pointer in example.video.pointers
        if pointer.site in ("time before", "begun before", "beside")
    }
    assert table["time before", 1, 0] == [(0, 0)]
    assert table["time before", 2, 5] == [(1, 5)]
    assert table["begun before", 1, 5] == [(0, 0)]
    assert table["beside", 1, 5] == [(1, 0)]
    assert not any(table["time before", patch, cell] for patch, cell in ((0, 0), (1, 5)))
    assert not any(table["begun before", patch, cell] for patch, cell in ((0, 0), (1, 0), (2, 5)))


def test_where_nothing_is_shown_nothing_is_gathered() -> None:
    example = write_example(track_of_shown().timestamps, [], track=track_of_shown())
    vision = np.flatnonzero(example.video.token_ids == special("<|video_pad|>")).tolist()
    shown = {(patch, cell) for patch, things in enumerate(SHOWN) for _, cell in things}
    for site in ("nothing before", "nothing begun"):
        pointers = [pointer for pointer in example.video.pointers if pointer.site == site]
        rows = {divmod(vision.index(pointer.row), 6) for pointer in pointers}
        assert rows == {divmod(place, 6) for place in range(18)} - shown
        assert {pointer.keys for pointer in pointers} == {NOWHERE}


def test_chapters_are_found_by_where_their_scene_begins() -> None:
    track = Track(("0.2", "1.2", "2.2"), SHOWN, (0, 0, 1))
    question = Asker(track, "en", np.random.default_rng(0)).ask("summary")
    assert question
    example = write_example(track.timestamps, [question], track=track)
    vision = np.flatnonzero(example.video.token_ids == special("<|video_pad|>")).tolist()
    end = len(example.video) - 1
    first, second, third = ({*vision[6 * patch : 6 * patch + 6]} for patch in range(3))
    starts = {p.row: {*p.keys} for p in example.video.pointers if p.site == "scene's start"}
    assert {frozenset(starts[row]) for row in first} == {frozenset({0})}
    assert all(starts[row] == first for row in second | third)
    assert starts[end] == third
    tokens = example.questions[0]
    following = [{*p.keys} for p in tokens.pointers if p.site == "next scene"]
    assert [keys for keys, _ in groupby(following)] == [third, {end}]
    found = pointed_at(example, tokens, "in the scene")
    assert found["green"] == {(1, 5), (2, 5)}


def test_what_is_said_is_found_in_its_line() -> None:
    lines = Line("0.4", CIRCLE, "en"), Line("1.9", STAR, "en")
    track = replace(track_of_shown(), lines=lines)
    asker = Asker(track, "en", np.random.default_rng(0))
    asked = {kind: next(filter(None, (asker.ask(kind) for _ in range(20)))) for kind in ("said at", "said when")}
    example = write_example(track.timestamps, list(asked.values()), track=track)
    words = [tokenizer().decode([token]).strip() for token in example.video.token_ids]
    for tokens, site, turn in zip(
        example.questions, ("evidence by time", "evidence by thing"), (q.turns[0] for q in asked.values()), strict=True
    ):
        (key,) = {key for p in tokens.pointers if p.site == site for key in p.keys if key}
        line = next(line for line in lines if line.thing.name in turn.answer or line.time in turn.answer)
        assert (words[key - 1], words[key]) == (line.thing.colour, line.thing.name)
        ((unit,),) = (p.keys for p in example.video.pointers if p.site == "stamp" and p.row == key)
        assert "".join(words[unit - 3 : unit]) == line.time


def test_time_units_point_at_their_digits() -> None:
    example = write_example(["12.5"], [])
    keys = {pointer.site: pointer.keys for pointer in example.video.pointers if pointer.site.startswith("digit")}
    said = {site: tokenizer().decode(example.video.token_ids[list(mine)]) for site, mine in keys.items()}
    assert said == {"digit 1": "5", "digit 3": "2", "digit 4": "1"}


def test_attention_on_what_is_pointed_at_costs_nothing() -> None:
    batch = collate([write_example(("0.5", "1.5"), questions("From 0.5 to 1.5 seconds."))])
    tokens = batch.layout.video_tokens, batch.layout.asked_tokens
    shapes = (1, 4, tokens[0], tokens[0]), (1, 4, tokens[1], sum(tokens))
    everywhere = [Weights(*(torch.ones(shape) for shape in shapes))] * model_shape().layers
    nowhere = [Weights(*(torch.zeros(shape) for shape in shapes))] * model_shape().layers
    assert max(loss.item() for loss in attention_losses(batch.pointers, everywhere).values()) < 1e-3
    assert min(loss.item() for loss in attention_losses(batch.pointers, nowhere).values()) > 10


def test_timestamps_rise() -> None:
    for seed in range(50):
        texts = draw_timestamps(np.arange(9) + 0.25, np.random.default_rng(seed))
        assert all(float(earlier) < float(later) for earlier, later in pairwise(texts))


def test_no_video_is_longer_than_the_longest_however_often_it_is_looked_at() -> None:
    for seed in range(50):
        times = list(map(float, draw_timestamps(np.arange(64) + 0.25, np.random.default_rng(seed))))
        assert LONGEST_SECONDS / 2 < times[-1] - times[0] <= LONGEST_SECONDS
        assert len(set(times)) == 64


def test_scattered_scenes_keep_their_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(composing, "DRAWN_OUT", 0.0)
    timestamps, scenes = ["0.3", "1.2", "2.0", "8.8", "9.5", "10.3", "13.1"], np.array([0, 0, -1, 1, 1, 1, 2])
    for seed in range(20):
        times = scatter(timestamps, scenes, np.random.default_rng(seed))
        first, second = times[:2], times[3:6]
        for part, spans in ((first, [0.9]), (second, [0.7, 0.8])):
            assert [round(float(b) - float(a), 1) for a, b in pairwise(part)] == spans
        assert len(set(times)) == len(times)
    assert len({time[:-3] for time in times}) > 3


def test_scenes_that_are_drawn_out_end_with_other_digits_than_they_begin_with(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a scene's end has the tens of its beginning, they were copied from there in answers, in long videos too."""
    monkeypatch.setattr(composing, "DRAWN_OUT", 1.0)
    timestamps, scenes = [f"{time / 10:.1f}" for time in range(3, 120, 4)], np.arange(30) // 3
    other_tens = []
    for seed in range(100):
        times = [round(10 * float(time)) for time in scatter(timestamps, scenes, np.random.default_rng(seed))]
        assert len(set(times)) == len(times)
        assert max(times) < 10_000
        for begin in range(0, 30, 3):
            first, middle, last = times[begin : begin + 3]
            assert first < middle < last <= first + 10 * composing.LONGEST_SCENE_SECONDS
            other_tens.append(first // 100 != last // 100)
    assert np.mean(other_tens) > 0.5


def test_often_nothing_but_tens_and_hundreds_tell_scattered_scenes_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(composing, "DRAWN_OUT", 0.0)
    timestamps, scenes = [f"{time / 10:.1f}" for time in range(3, 120, 4)], np.arange(30) // 3
    starts = [scatter(timestamps, scenes, np.random.default_rng(seed))[::3] for seed in range(100)]
    alike = [len({(float(time) - float(times[0]) + 0.5) % 10 // 1.0 for time in times}) == 1 for times in starts]
    assert 15 <= sum(alike) <= 40


def test_scattered_scenes_have_any_tens_and_often_few_hundreds() -> None:
    """Odd tens were hardly ever there once, and in a long video told wrongly; so were tens, as a one, where none but a
    hundred and something had hundreds."""
    timestamps, scenes = [f"{time / 10:.1f}" for time in range(3, 120, 4)], np.arange(30) // 3
    videos = [scatter(timestamps, scenes, np.random.default_rng(seed)) for seed in range(100)]
    tens = np.bincount([int(f"{float(time):05.1f}"[1]) for times in videos for time in times], minlength=10)
    assert tens.min() > 0.7 * tens.mean()
    assert sum(max(map(float, times)) < 200 for times in videos) > 30


@pytest.mark.parametrize(
    ("timestamps", "beside"), [(("1.0", "2.0", "9.0"), {0.0}), (("51.0", "52.0", "9.0"), {0.1, 0.2, 0.3, 0.4, 0.5})]
)
def test_times_asked_about_are_nearest_to_what_shows_the_answer(
    timestamps: tuple[str, ...], beside: set[float]
) -> None:
    """Between two pictures that show the same; where scenes are in no order, up to half a second beside one, too."""
    shown = (((CIRCLE, 0),), ((CIRCLE, 0),), ((STAR, 5),))
    asker = Asker(Track(timestamps, shown, (0, 0, 1)), "en", np.random.default_rng(0))
    stars = set()
    for turn in (question.turns[0] for question in (asker.ask("what at") for _ in range(400)) if question):
        time = float(turn.about[0])
        nearest = min(range(3), key=lambda patch: abs(float(timestamps[patch]) - time))
        assert turn.answer == wording.listing([thing for thing, _ in shown[nearest]], "en")
        if nearest == 2:
            stars.add(round(abs(time - 9.0), 1))
    assert stars == {0.0, *beside}


def test_questions_fill_the_room_that_there_is() -> None:
    for length, questions in ((8, 12), (48, 24)):
        example, *_, asked = make_example(bank(), length, questions, np.random.default_rng(0))
        sizes = list(map(len, example.questions))
        assert len(asked) == len(sizes) > 1
        assert sum(sizes[1:]) <= questions * TOKENS_A_QUESTION - sizes[0]


def test_truth_of_visual_tokens() -> None:
    """A circle in two scenes, a patch between them with a cut inside, and a star that begins with the second scene."""
    circle, star = 3, 7
    cells = np.full((5, 6), NOTHING)
    cells[[0, 1, 3, 4], [0, 0, 2, 2]] = circle
    cells[[3, 4], 5] = star
    rows = np.stack(np.divmod(np.arange(30), 6), axis=1)
    truth = truth_of(("0.5", "71.2", "72.0", "73.3", "3605.8"), cells, np.array([0, 0, BETWEEN_SCENES, 1, 1]), rows)
    table = {name: getattr(truth, name).view(5, 6).tolist() for name in ("things", "begins", "appearance", "cuts")}
    assert truth.digits.view(5, 6, 4)[:, 0].tolist() == [
        [0, 0, 0, 5],
        [0, 7, 1, 2],
        [0, 7, 2, 0],
        [0, 7, 3, 3],
        [6, 0, 5, 8],
    ]
    assert truth.digits_before.view(5, 6, 4)[3, 0].tolist() == [0, 7, 1, 2]
    scene = truth.digits_of_scene.view(5, 6, 4)
    assert scene[[1, 3], 0].tolist() == [[0, 0, 0, 5]] * 2
    assert scene[4, 0].tolist() == [0, 7, 3, 3]
    assert (scene[[0, 2]] == NOT_ASKED).all()
    assert (truth.digits_before.view(5, 6, 4)[[0, 1, 2, 4]] == NOT_ASKED).all()
    assert table["things"][3] == [len(THINGS), len(THINGS), circle, len(THINGS), len(THINGS), star]
    assert [table["begins"][patch][cell] for patch, cell in ((0, 0), (1, 0), (3, 2), (4, 2), (3, 5))] == [1, 0, 1, 0, 1]
    assert [table["appearance"][patch][cell] for patch, cell in ((0, 0), (1, 0), (3, 2), (3, 5))] == [0, 0, 1, 0]
    assert [row[0] for row in table["cuts"]] == [1, 0, 0, 1, 0]
    assert truth.thing_before.view(5, 6)[3, [2, 5]].tolist() == [circle, circle]


def questions(*answers: str) -> list[Question]:
    return [Question("when", "en", (Turn("When does the red circle appear?", answer),)) for answer in answers]


def test_questions_do_not_see_each_other() -> None:
    torch.manual_seed(0)
    model = LanguageModel(model_shape()).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.1)
    rows = torch.randn(12, WIDTH)
    asked = questions("From 0.5 to 1.5 seconds.", "It does not appear.", "From 0.5 to 0.5 seconds.")
    batch = collate([write_example(("0.5", "1.5"), asked)])
    owners = batch.owners[batch.asked]
    with torch.inference_mode():
        together, _, _ = predict(model, batch, rows)
        for owner, question in enumerate(asked):
            alone, _, _ = predict(model, collate([write_example(("0.5", "1.5"), [question])]), rows)
            torch.testing.assert_close(together[owners == owner], alone, atol=1e-4, rtol=1e-4)


def test_an_answer_is_right_only_as_a_whole() -> None:
    class Oracle(LanguageModel):
        """Knows the next token of everything but the last digit of one answer."""

        def forward(self, token_ids, positions, layout, visual, features):
            following = token_ids.roll(-1)
            wrong = torch.zeros_like(following, dtype=torch.bool)
            wrong[self.spoiled] = True
            known = torch.nn.functional.one_hot(torch.where(wrong, 0, following), self.shape.vocabulary).float()
            return Activations(known, known, ())

    model = Oracle(model_shape())
    model.lm_head = torch.nn.Identity()
    asked = questions("From 0.5 to 1.5 seconds.", "It does not appear.")
    batch = collate([write_example(("0.5", "1.5"), asked)])
    first = (batch.asked & (batch.owners == 0)).nonzero()[:, 0]
    model.spoiled = int(first[3])
    results = exact_answers(model, batch, torch.zeros(12, WIDTH), [asked])
    assert [whole for _, whole in results] == [False, True]
