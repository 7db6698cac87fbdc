"""The answer of a session: text as it becomes certain, progress, and the end."""

from __future__ import annotations

import json
from typing import Any

from engines.sampling_parameters import SamplingParameters
from sessions.detokenizer import TextStream, Vocabulary
from sessions.reply import Reply, Response

PROGRESS_INTERVAL_SECONDS = 0.1


class Answer:
    """Turns generated tokens into responses.

    stream: send text piece by piece; else all of it with the end. progress: send progress too.
    """

    def __init__(
        self, reply: Reply, vocabulary: Vocabulary, sampling: SamplingParameters, *, stream: bool, progress: bool
    ) -> None:
        self.sampling = sampling
        self.token_ids: list[int] = []
        self._reply = reply
        self._stream = stream
        self._wants_progress = progress
        self._text = TextStream(vocabulary, sampling.stop, skip_special_tokens=sampling.skip_special_tokens)
        self._unsent = ""
        self._progress: dict[str, Any] = {}
        self._progress_sent = 0.0

    def add(self, token_ids: tuple[int, ...], finish_reason: str) -> str:
        """Takes generated tokens and the engine's finish reason; returns why the answer is over, empty if it is not.

        A stop string ends the answer at the token that completes it; tokens after it do not count.
        """
        for place, token_id in enumerate(token_ids):
            self.token_ids.append(token_id)
            if finish_reason == "stop" and place == len(token_ids) - 1:
                break
            may_stop = len(self.token_ids) > self.sampling.min_tokens
            self._unsent += self._text.push(token_id, may_stop=may_stop)
            if self._text.stopped:
                return "stop"
        return finish_reason

    def flush(self) -> None:
        """Sends the text that has gathered, if it is wanted piece by piece."""
        if self._stream and self._unsent:
            text, self._unsent = self._unsent, ""
            self._reply.send(Response(text))

    def progress(self, phase: str, prompt_tokens: int, prefilled_tokens: int, now: float, **more: int) -> None:
        """Sends how far the prompt is: at once when the phase changes or ends, else not too often."""
        changed = phase != self._progress.get("phase") or prefilled_tokens == prompt_tokens
        self._progress = {"phase": phase, "prompt_tokens": prompt_tokens, "prefilled_tokens": prefilled_tokens, **more}
        if changed or now - self._progress_sent >= PROGRESS_INTERVAL_SECONDS:
            self.repeat_progress(now)

    def repeat_progress(self, now: float) -> None:
        """Sends the latest progress: again, as a sign of life, where nothing has happened since."""
        self._progress_sent = now
        if self._wants_progress:
            self._reply.send(Response(progress=json.dumps(self._progress)))

    def finish(self, reason: str, usage: dict[str, Any]) -> None:
        """Sends what is left of the text, the finish reason and the usage."""
        usage["completion_tokens"] = len(self.token_ids)
        if self.sampling.return_token_ids:
            usage["token_ids"] = self.token_ids
        self._reply.send(Response(self._unsent + self._text.finish(), reason, json.dumps(usage)), final=True)
