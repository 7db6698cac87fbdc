"""Grammars are compiled in a process of their own first: one that takes minutes or gigabytes ends that process only.

A compilation cannot be interrupted where it runs, and llguidance's limits do not bound all of it: in version 1.9.1 the
schema {"type": "integer", "multipleOf": 99999989} takes minutes. The process reads a request and writes its error,
empty for none, a JSON line each.
"""

from __future__ import annotations

import json
import resource
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from llguidance import LLTokenizer

from engines.pytorch.grammar.grammar import Grammar, GrammarError, load_tokens
from engines.response_format import ResponseFormat

MAX_SECONDS = 1.0
MAX_BYTES = 2 << 30


class GrammarTrial:
    """The process, started when it is needed. Called from one thread."""

    def __init__(self, tokenizer: Path, vocab_size: int, eos_token_ids: Sequence[int]) -> None:
        self._arguments = [str(tokenizer.resolve()), str(vocab_size), *map(str, eos_token_ids)]
        self._process: subprocess.Popen[str] | None = None

    def run(self, wanted: ResponseFormat) -> None:
        """Returns when the grammar compiles within the limits. Raises GrammarError where it does not."""
        process = self._process or self._start()
        assert process.stdin is not None
        assert process.stdout is not None
        line = ""
        try:
            process.stdin.write(json.dumps([wanted.kind, wanted.grammar]) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except BrokenPipeError:
            pass
        if not line:
            self.close()
            raise GrammarError(f"it takes more than {MAX_SECONDS:g} seconds or {MAX_BYTES >> 30} GiB to compile")
        if error := json.loads(line):
            raise GrammarError(error)

    def close(self) -> None:
        """Ends the process."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def _start(self) -> subprocess.Popen[str]:
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, *self._arguments],
            cwd=Path(__file__).parents[3],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        return self._process


def main(tokenizer: str, vocab_size: str, *eos_token_ids: str) -> None:
    """The process: ends with its standard input, or by SIGPROF where a grammar uses up its time."""
    tokens = load_tokens(Path(tokenizer), int(vocab_size), map(int, eos_token_ids))
    resource.setrlimit(resource.RLIMIT_AS, (MAX_BYTES, MAX_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for line in sys.stdin:
        signal.setitimer(signal.ITIMER_PROF, MAX_SECONDS)
        error = _try(tokens, ResponseFormat(*json.loads(line)))
        signal.setitimer(signal.ITIMER_PROF, 0)
        print(json.dumps(error), flush=True)


def _try(tokens: LLTokenizer, wanted: ResponseFormat) -> str:
    try:
        Grammar(tokens, wanted).try_first_mask()
    except GrammarError as error:
        return str(error)
    return ""


if __name__ == "__main__":
    main(*sys.argv[1:])
