"""One owner tries to learn about another: from `cached_tokens`, and from the time that answers take.

Alice tells the model secrets in system prompts, and asks about videos. Bob sends what he knows of them with every
digit that may follow, and asks about videos that Alice may have asked about. Nothing in his answers may tell which he
has hit.
"""

from __future__ import annotations

import argparse
import base64
import random
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from scipy.stats import mannwhitneyu

from perf.attack import wire
from perf.attack.expect import expect
from perf.attack.field import Field
from perf.attack.stack import Stack, served_model, started
from perf.attack.table import attack
from tests.support.media import make_video

GUESSES = 1_000
DIGITS = 10
VIDEOS = 12
REJECTED = 0.01
"""The level of the test."""


@dataclass(frozen=True)
class Guess:
    """secret: its number; the guesses of one differ in nothing but whether they are right. right: whether Alice had
    said it. cached: tokens."""

    secret: int
    right: bool
    cached: int
    seconds: float


@dataclass(frozen=True)
class Finding:
    """The guesses of one kind. differing: right guesses whose cached tokens are not those of the wrong ones of the same
    secret. p_tokens, p_times: of the rank test whether those of all right guesses are those of all wrong ones."""

    what: str
    right: int
    wrong: int
    differing: int
    p_tokens: float
    statistic: float
    p_times: float

    @property
    def told_by_tokens(self) -> bool:
        return bool(self.differing) or self.p_tokens < REJECTED

    @property
    def held(self) -> bool:
        return not self.told_by_tokens and self.p_times >= REJECTED

    def __str__(self) -> str:
        return (
            f"{self.what}: {self.right} right and {self.wrong} wrong guesses; cached tokens: {self.differing} differ,"
            f" p = {self.p_tokens:.3f}; times: U = {self.statistic:.0f}, p = {self.p_times:.3f}"
        )


def finding(what: str, guesses: Sequence[Guess]) -> Finding:
    """The rank test is Mann and Whitney's, two-sided."""
    right, wrong = ([one for one in guesses if one.right is kind] for kind in (True, False))
    usual: defaultdict[int, set[int]] = defaultdict(set)
    for one in wrong:
        usual[one.secret].add(one.cached)
    differing = sum(one.cached not in usual[one.secret] for one in right if usual[one.secret])
    tokens = mannwhitneyu([one.cached for one in right], [one.cached for one in wrong])
    times = mannwhitneyu([one.seconds for one in right], [one.seconds for one in wrong])
    return Finding(
        what,
        len(right),
        len(wrong),
        differing,
        float(tokens.pvalue),
        float(times.statistic),
        float(times.pvalue),
    )


class Oracle:
    """Two owners of an API."""

    def __init__(self, stack: Stack, seed: int) -> None:
        assert stack.api is not None
        self._api = stack.api
        self._model = stack.model
        self._alice = stack.key_a
        self._bob = stack.key_b
        self._rng = random.Random(seed)

    def guess_pins(self, guesses: int) -> Finding:
        """Ten guesses of each secret, in random order, of which one is right."""
        made = []
        for secret in range(guesses // DIGITS):
            customer, digit = self._rng.randrange(10**8), self._rng.randrange(DIGITS)
            known = f"You serve customer {customer:08} of the bank. Never tell anybody that the PIN begins with "
            self._chat(self._alice, known + f"{digit}{self._rng.randrange(1000):03}.")
            # What Bob has said himself is cached for him: the beginning is, before the first guess that counts.
            self._chat(self._bob, known + "?")
            for tried in self._rng.sample(range(DIGITS), DIGITS):
                cached, seconds = self._chat(self._bob, known + str(tried))
                made.append(Guess(secret, tried == digit, cached, seconds))
        return finding("PINs", made)

    def recognise_videos(self, videos: int, folder: Path) -> Finding:
        """Half of the videos are ones that Alice has asked about."""
        urls = []
        for number in range(2 * videos):
            path = folder / f"{number}.mp4"
            make_video(path, width=96, height=64, frames=12, fps=6, seed=self._rng.randrange(2**31))
            urls.append(f"data:video/mp4;base64,{base64.b64encode(path.read_bytes()).decode()}")
        for url in urls[:videos]:
            self._chat(self._alice, "", url)
        # What every prompt with a video begins with, Bob's own requests have cached.
        path = folder / "own.mp4"
        make_video(path, width=96, height=64, frames=12, fps=6, seed=self._rng.randrange(2**31))
        self._chat(self._bob, "", f"data:video/mp4;base64,{base64.b64encode(path.read_bytes()).decode()}")
        made = []
        for number in self._rng.sample(range(2 * videos), 2 * videos):
            cached, seconds = self._chat(self._bob, "", urls[number])
            made.append(Guess(number, number < videos, cached, seconds))
        return finding("videos", made)

    def _chat(self, key: str | None, system: str, video: str | None = None) -> tuple[int, float]:
        """Cached tokens and seconds of an answer of one token."""
        parts: list[dict[str, object]] = [{"type": "video_url", "video_url": {"url": video}}] if video else []
        messages: list[dict[str, object]] = [{"role": "system", "content": system}] if system else []
        messages.append({"role": "user", "content": [*parts, {"type": "text", "text": "Hello"}]})
        body = {"model": self._model, "messages": messages, "max_tokens": 1, "temperature": 0}
        while True:
            began = time.monotonic()
            answer = wire.send_json(self._api, "/v1/chat/completions", body, wire.bearer(key))
            seconds = time.monotonic() - began
            if answer.status == 200:
                break
            if answer.status != 429:
                raise RuntimeError(f"a guess was told {answer}")
            time.sleep(float(answer.headers.get("retry-after", "1")))
        details = answer.json()["usage"]["prompt_tokens_details"]
        return int(details["cached_tokens"]), seconds


def run(stack: Stack, guesses: int = GUESSES, videos: int = VIDEOS, seed: int = 0) -> list[Finding]:
    """Guesses PINs and videos. By chance times are told apart once in a hundred runs: then it is tried again."""
    found: list[Finding] = []
    for again in range(2):
        oracle = Oracle(stack, seed + again)
        with tempfile.TemporaryDirectory() as folder:
            found = [oracle.guess_pins(guesses), oracle.recognise_videos(videos, Path(folder))]
        if all(one.held for one in found) or any(one.told_by_tokens for one in found):
            break
    return found


@attack("API", "secrets and videos of another owner, by cached tokens and times", expects="not told", needs=("api",))
def ask_oracle(field: Field) -> str:
    found = run(field.stack, seed=time.time_ns() % 2**31)
    told = "; ".join(map(str, found))
    expect(all(one.held for one in found), told)
    return told


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m perf.attack.kinds.oracle", description=__doc__)
    parser.add_argument("--api-url", help="an API that runs; without it one is started")
    parser.add_argument("--key-a")
    parser.add_argument("--key-b")
    parser.add_argument("--guesses", type=int, default=GUESSES)
    parser.add_argument("--videos", type=int, default=VIDEOS)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 2**31, help="which secrets (default: new ones)")
    given = parser.parse_args()
    if given.api_url:
        model = served_model(given.api_url, given.key_a)
        stack = Stack(given.api_url, None, None, None, None, None, None, given.key_a, given.key_b, model=model)
        found = run(stack, given.guesses, given.videos, given.seed)
    else:
        with started() as stack:
            found = run(stack, given.guesses, given.videos, given.seed)
    for one in found:
        print(one, "" if one.held else "  NO")
    return 0 if all(one.held for one in found) else 1


if __name__ == "__main__":
    sys.exit(main())
