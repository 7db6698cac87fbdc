"""The decoder's initialisation works before anything is trained: times and things are found and carried."""

import numpy as np
import pytest
import torch

from build.demo_checkpoint.attributes import Attributes
from build.demo_checkpoint.initialisation.decoder import initialise_decoder
from build.demo_checkpoint.initialisation.slots import ACTIVE, SLOTS
from build.demo_checkpoint.model import Activations, LanguageModel
from build.demo_checkpoint.training.attention_supervision import SITES
from build.demo_checkpoint.training.batches import Batch, collate
from build.demo_checkpoint.training.probes import truth_of
from build.demo_checkpoint.training.prompts import write_example
from build.demo_checkpoint.training.schedule import model_shape
from build.demo_checkpoint.world.questions import KINDS, Asker, track_of
from build.demo_checkpoint.world.world import COLOURS, SHAPES, THING_INDEX, Thing

NOTHING = -1
TIMESTAMPS = ("0.3", "1.4", "2.6", "3.1")
CIRCLE, STAR, SQUARE = (
    Thing("shape", shape, colour) for shape, colour in (("circle", "red"), ("star", "green"), ("square", "blue"))
)


def cells() -> np.ndarray:
    """A red circle, then a green star, then a blue square, each where the others are not."""
    shown = np.full((4, 6), NOTHING)
    shown[0, 0] = shown[1, 0] = THING_INDEX[CIRCLE]
    shown[2, 4], shown[3, 2] = THING_INDEX[STAR], THING_INDEX[SQUARE]
    return shown


def rows_of(shown: np.ndarray) -> torch.Tensor:
    """The rows of a perfect tower for the cells: `[visual tokens, hidden * 3]`."""
    hidden = model_shape().hidden
    rows = torch.zeros(shown.size, 3 * hidden)
    rows[:, [SLOTS["any"].start, SLOTS["visual"].start]] = ACTIVE
    tables = Attributes.of_the_world().tables
    for row, thing in enumerate(shown.flatten().tolist()):
        for name, table in tables.items():
            if (value := int(table[thing])) >= 0:
                rows[row, SLOTS[name].start + value] = ACTIVE
    return rows


@pytest.fixture(scope="module")
def batch() -> Batch:
    track = track_of(TIMESTAMPS, cells(), [0, 0, 1, 2])
    rng = np.random.default_rng(0)
    asked = [Asker(track, "en", rng).ask(kind) for kind in KINDS for _ in range(4)]
    questions = [question for question in asked if question]
    return collate([write_example(TIMESTAMPS, questions, track=track)])


@pytest.fixture(scope="module")
def activations(batch: Batch) -> Activations:
    torch.manual_seed(0)
    model = LanguageModel(model_shape())
    initialise_decoder(model)
    with torch.inference_mode():
        return model(batch.token_ids, batch.positions, batch.layout, batch.visual, rows_of(cells()))


def share(batch: Batch, activations: Activations, site: str) -> torch.Tensor:
    """How much of their attention the questions' pointers give to what they are to look at."""
    pointers = batch.pointers[site, "asked"]
    layer, heads = SITES[site]
    rows = activations.weights[layer].asked[pointers.videos, heads[0], pointers.rows]
    return torch.zeros(len(rows)).index_add(0, pointers.owners, rows[pointers.owners, pointers.keys])


def test_a_picture_knows_its_time(batch: Batch, activations: Activations) -> None:
    truth = truth_of(TIMESTAMPS, cells(), np.array([0, 0, 1, 2]), np.stack(np.divmod(np.arange(24), 6), axis=1))
    said = activations.probed[batch.visual][:, SLOTS["time"]].view(-1, 4, 10).argmax(-1)
    assert said[:, 0].tolist() == truth.digits[:, 3].tolist()
    assert said[:, 1].tolist() == truth.digits[:, 2].tolist()


@pytest.mark.parametrize("site", ["digit 1", "digit 3", "digit 4"])
def test_times_are_read_in_long_videos(site: str) -> None:
    torch.manual_seed(0)
    model = LanguageModel(model_shape())
    initialise_decoder(model)
    patches = 128
    batch = collate([write_example([f"{patch + 100.5:.1f}" for patch in range(patches)], [])])
    with torch.inference_mode():
        rows = torch.zeros(6 * patches, 3 * model_shape().hidden)
        weights = model(batch.token_ids, batch.positions, batch.layout, batch.visual, rows).weights
    pointers = batch.pointers[site, "video"]
    layer, (head,) = SITES[site]
    assert weights[layer].video[0, head, pointers.rows, pointers.keys].min() > 0.9


@pytest.mark.parametrize("site", ["evidence by thing", "evidence by time"])
def test_answers_mostly_look_at_their_evidence(batch: Batch, activations: Activations, site: str) -> None:
    visual_tokens = 24
    assert share(batch, activations, site).mean() > 8 / visual_tokens


def test_in_the_last_layer_answers_look_at_their_own_question_only(batch: Batch) -> None:
    pointers = batch.pointers["settled", "asked"]
    layout = batch.layout
    owners = batch.owners[layout.videos * layout.video_tokens :]
    keys = pointers.keys - layout.video_tokens
    assert keys.min() >= 0
    assert torch.equal(owners[keys], owners[pointers.rows][pointers.owners])
    assert (keys <= pointers.rows[pointers.owners]).all()
    assert set(pointers.rows.tolist()) == set((batch.asked[-len(owners) :].nonzero()[:, 0] - 1).tolist())


def test_words_for_what_is_seen_are_where_it_is_seen() -> None:
    model = LanguageModel(model_shape())
    initialise_decoder(model)
    for name, classes in (("colour", COLOURS), ("shape", SHAPES)):
        said = model.embed_tokens.weight[:, SLOTS[name]]
        # A word of each language.
        assert (said > 0).sum(0).tolist() == [2] * len(classes)
