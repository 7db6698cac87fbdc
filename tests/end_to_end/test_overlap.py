"""The stages work at the same time, and never have more in flight than the credits allow.

Each test holds one stage at a gate, a file that the test makes when it has seen what it waits for: nothing is timed.
"""

import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.support import wire
from tests.support.media import make_video
from tests.support.serving import Server, assemble_checkpoint

SAMPLING = {"temperature": 0, "max_tokens": 4, "ignore_eos": True}
CREDITS = 4

GATED_DECODING = """
import preprocess.chunks.video_patches, time
from pathlib import Path

_decode_frames = preprocess.chunks.video_patches.decode_frames

def _gated(*arguments):
    for number, picture in enumerate(_decode_frames(*arguments)):
        while number == {frame} and not Path({gate!r}).exists():
            time.sleep(0.01)
        yield picture

preprocess.chunks.video_patches.decode_frames = _gated
"""

GATED_ENGINE = """
import engines.pytorch.engine as _engine, time
from pathlib import Path

_launch = _engine.PyTorchEngine._launch

def _gated(self, work):
    while not Path({gate!r}).exists():
        time.sleep(0.01)
    return _launch(self, work)

_engine.PyTorchEngine._launch = _gated
"""

COUNTED_SENDING = """
import preprocess.session
from pathlib import Path

_send = preprocess.session.Outbox.send

def _counted(self, chunk, **header):
    if len(chunk.patches):  # no heartbeat, no plan, none of the supervisor's questions
        with Path({sent!r}).open("a") as log:
            log.write(".")
    _send(self, chunk, **header)

preprocess.session.Outbox.send = _counted
"""


def assemble_with(additions: Mapping[str, str]):
    """Assembles as always, and adds code to stages' model.py: `additions` by stage."""

    def assemble(checkpoint: Path, destination: Path, settings: Mapping[str, str]) -> None:
        assemble_checkpoint(checkpoint, destination, settings)
        for stage, code in additions.items():
            with (destination / stage / "1" / "model.py").open("a") as model:
                model.write(code)

    return assemble


@pytest.fixture
def many_chunks(tmp_path) -> list:
    """A request of 500 chunks: one temporal patch each."""
    path = tmp_path / "many.mp4"
    make_video(path, width=32, height=32, frames=1000, fps=25)
    return wire.question("What?", video=[path.read_bytes()], sampling=SAMPLING, options={"fps": 25, "max_frames": 1000})


def test_prefill_begins_before_the_video_is_decoded(checkpoint, clip, tmp_path):
    gate = tmp_path / "gate"
    assemble = assemble_with({"video_preprocess": GATED_DECODING.format(frame=8, gate=str(gate))})
    inputs = wire.question("What?", video=[clip], sampling=SAMPLING, options={"fps": 10})
    with Server(checkpoint, {"video_preprocess.chunk_tokens": "1"}, assemble=assemble) as server:
        request = wire.Request(server.grpc_url, inputs, parameters={"progress": True})
        texts = []
        for result in request:
            progress = result.as_numpy("progress")
            if progress is not None and b'"prefill"' in progress[0] and b'"prefilled_tokens": 0' not in progress[0]:
                assert gate.exists() or not texts
                gate.touch()
            elif progress is None:
                texts.append(result.as_numpy("text_output")[0])
        request.close()
    assert gate.exists(), "nothing was prefilled while the video was still being decoded"
    assert texts


def test_no_more_chunks_in_flight_than_credits(checkpoint, many_chunks, tmp_path):
    gate, sent = tmp_path / "gate", tmp_path / "sent"
    additions = {
        "decoder": GATED_ENGINE.format(gate=str(gate)),
        "video_preprocess": COUNTED_SENDING.format(sent=str(sent)),
    }
    settings = {"video_preprocess.chunk_tokens": "1", "decoder.chunks_in_flight": str(CREDITS)}
    gate.touch()  # the supervisor's own question, at start
    with Server(checkpoint, settings, assemble=assemble_with(additions)) as server:
        gate.unlink()
        request = wire.Request(server.grpc_url, many_chunks)
        while not sent.exists() or len(sent.read_text()) < CREDITS:
            time.sleep(0.1)
        time.sleep(1)  # enough to send hundreds more, if it could
        held = len(sent.read_text())
        gate.touch()
        usage = [result.as_numpy("usage") for result in request][-1]
        request.close()
    assert held == CREDITS
    assert usage is not None
    assert len(sent.read_text()) == 500
