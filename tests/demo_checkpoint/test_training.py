"""The parts of the training that can be wrong without anyone noticing."""

from itertools import pairwise

import numpy as np
import torch
from demo_checkpoint import wording
from demo_checkpoint.model import LanguageModel
from demo_checkpoint.pool import BETWEEN_SCENES, NOTHING
from demo_checkpoint.prompts import collate, special, write_example
from demo_checkpoint.questions import Question, Turn
from demo_checkpoint.telling import Bank, compose, draw_timestamps, exact_answers, make_example, predict, truth_of
from demo_checkpoint.training import model_shape
from demo_checkpoint.world import THING_INDEX, THINGS

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
    return Bank(rows, shown, scenes)


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


def test_rows_stay_with_what_they_show() -> None:
    """Whatever the places and the order of cells: the row at the position that an answer names is a row of that
    thing."""
    source = bank()
    checked = 0
    for seed in range(60):
        example, rows, truth, asked = make_example(source, 4, 8, np.random.default_rng(seed))
        vision = np.flatnonzero(example.video.token_ids == special("<|video_pad|>"))
        time, row, column = example.video.positions[:, vision]
        for index, (r, cell) in enumerate(zip(rows.float(), 3 * (row - time) + column - time, strict=True)):
            thing = truth.cells[index // 6, int(cell)]
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


def test_timestamps_rise() -> None:
    for seed in range(50):
        seconds = [float(text) for text in draw_timestamps(9, np.random.default_rng(seed))]
        assert all(earlier < later for earlier, later in pairwise(seconds))


def test_digits_are_those_of_the_timestamp() -> None:
    digits = truth_of(("0.5", "71.2", "3605.8"), np.full((3, 6), NOTHING)).digits
    assert digits.tolist() == [[0, 0, 0, 5], [0, 7, 1, 2], [6, 0, 5, 8]]


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
        together, _ = predict(model, batch, rows)
        for owner, question in enumerate(asked):
            alone, _ = predict(model, collate([write_example(("0.5", "1.5"), [question])]), rows)
            torch.testing.assert_close(together[owners == owner], alone, atol=1e-4, rtol=1e-4)


def test_an_answer_is_right_only_as_a_whole() -> None:
    class Oracle(LanguageModel):
        """Knows the next token of everything but the last digit of one answer."""

        def forward(self, token_ids, positions, layout, visual, features):
            following = token_ids.roll(-1)
            wrong = torch.zeros_like(following, dtype=torch.bool)
            wrong[self.spoiled] = True
            known = torch.nn.functional.one_hot(torch.where(wrong, 0, following), self.shape.vocabulary).float()
            return known, known

    model = Oracle(model_shape())
    model.lm_head = torch.nn.Identity()
    asked = questions("From 0.5 to 1.5 seconds.", "It does not appear.")
    batch = collate([write_example(("0.5", "1.5"), asked)])
    first = (batch.asked & (batch.owners == 0)).nonzero()[:, 0]
    model.spoiled = int(first[3])
    results = exact_answers(model, batch, torch.zeros(12, WIDTH), [asked])
    assert [whole for _, whole in results] == [False, True]
