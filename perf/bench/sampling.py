"""`make bench-sampling`: the known events that samplers see with equally many frames: cuts, blinks, slow changes.

Ours is stage 1's default sampler as it is, and without the glance at the pictures; uniform is the reference's; SSIM is
the OpenCV loop of articles (on the first two clips: it takes minutes for each). A cut is seen if frames within 2 s on
either side show both shots; an appearance or a blink if a frame shows it; a slow change if frames within 5 s before its
start and after its end show both states.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from perf.support import clips
from perf.support.peers import PeerError, run_peer
from perf.support.report import Figure, finish
from perf.support.scenes import Event
from perf.support.setup import command_line
from preprocess.media.attachment import Attachment
from preprocess.media.library import Library
from preprocess.media.video import open_video, read_thumbnails
from preprocess.sampling.adaptive import longest_gap
from preprocess.sampling.samplers import SamplingBounds, adaptive, uniform

CUT_SECONDS, CHANGE_SECONDS = 2.0, 5.0
KINDS = ("cut", "appearance", "blink", "slow change")
SSIM_CLIPS = 2
_ROUNDING = 1e-3


def main() -> None:
    parser = command_line("bench-sampling", __doc__)
    parser.add_argument("--frames", type=int, default=256, help="frames of each clip of 300 s")
    parser.add_argument("--clips", type=int, default=6, help="how many clips")
    arguments = parser.parse_args()

    seen: dict[str, dict[str, list[bool]]] = {}
    widest: dict[str, float] = {}
    bound = 0.0
    for number in range(arguments.clips):
        clip = clips.sampling_clip(number)
        library = Library(clips.CLIPS, 1 << 26)
        video = open_video(Attachment("video", clip.path.name, clip.path.name), library, _go_on)
        timeline, closer = video.timeline, read_thumbnails(video, library, _go_on).timeline
        bounds = SamplingBounds(fps=60, min_frames=1, max_frames=arguments.frames)
        sampled = {
            "adaptive": timeline.seconds[adaptive(closer, bounds)],
            "adaptive, packets only": timeline.seconds[adaptive(timeline, bounds)],
            "uniform": timeline.seconds[uniform(timeline, bounds)],
        }
        if number < SSIM_CLIPS:
            try:
                sampled["ssim"] = np.array(run_peer("ssim", clip.path, arguments.frames).times)
            except PeerError as error:
                print(f"ssim: {error}")
        bound = max(bound, longest_gap(timeline.end_seconds, arguments.frames))
        cuts = [0.0, *(event.start for event in clip.events if event.kind == "cut"), timeline.end_seconds]
        for name, times in sampled.items():
            found = seen.setdefault(name, {kind: [] for kind in KINDS})
            for event in clip.events:
                found[event.kind].append(is_seen(event, times, cuts))
            gaps = np.diff([0.0, *times, timeline.end_seconds])
            widest[name] = max(widest.get(name, 0.0), float(gaps.max()))

    def recall(name: str, kind: str) -> float:
        return 100 * float(np.mean(seen[name][kind]))

    finish(
        "bench-sampling",
        workload={
            "clips": arguments.clips,
            "seconds": 300,
            "frames": arguments.frames,
            "events": {kind: len(seen["adaptive"][kind]) for kind in KINDS},
            "ssim_clips": SSIM_CLIPS,
        },
        columns=["sampler", *(f"{kind}s %" for kind in KINDS), "longest gap s"],
        rows=[[name, *(recall(name, kind) for kind in KINDS), widest[name]] for name in seen],
        figures=[
            Figure("cuts seen", recall("adaptive", "cut"), "%", at_least=98),
            Figure("appearances seen", recall("adaptive", "appearance"), "%", at_least=98),
            Figure("blinks seen", recall("adaptive", "blink"), "%", at_least=90),
            Figure("longest gap", widest["adaptive"], "s", at_most=bound),
        ],
    )


def is_seen(event: Event, times: npt.NDArray[np.float64], cuts: Sequence[float]) -> bool:
    """Whether frames at `times` show the event. `cuts` begin with 0 and end with the end of the clip."""

    def shown(start: float, end: float) -> bool:
        return bool(((times >= start - _ROUNDING) & (times < end - _ROUNDING)).any())

    if event.kind in ("appearance", "blink"):
        return shown(event.start, event.end)
    if event.kind == "slow change":
        return shown(event.start - CHANGE_SECONDS, event.start + 0.04) and shown(event.end, event.end + CHANGE_SECONDS)
    before, after = next(
        (first, last) for (first, cut), (_, last) in pairwise(pairwise(cuts)) if abs(cut - event.start) < _ROUNDING
    )
    return shown(max(before, event.start - CUT_SECONDS), event.start) and shown(
        event.start, min(after, event.start + CUT_SECONDS)
    )


def _go_on() -> None:
    """Nothing interrupts a benchmark."""


if __name__ == "__main__":
    main()
