"""The grammar that an answer must follow, by llguidance: which tokens may come next, and where an answer stands.

This module runs in the process that tries grammars too: it imports no PyTorch.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from llguidance import LLMatcher, LLParserLimits, LLTokenizer

from engines.response_format import ResponseFormat

# A tenth to a half of llguidance's own: what one step's masks and one answer's automaton may cost.
_LIMITS = LLParserLimits(
    initial_lexer_fuel=200_000,
    step_lexer_fuel=100_000,
    step_max_items=20_000,
    max_lexer_states=20_000,
    max_grammar_size=50_000,
    # It runs large expressions against the whole vocabulary at once: a second of one thread.
    precompute_large_lexemes=False,
    verbose_errors=False,
)
# Between a JSON document's parts: room for indented ones, but no answer that is blank to its end.
_WHITESPACE = r"[ \n]{0,20}"
_MAX_ERROR_CHARACTERS = 300


class GrammarError(ValueError):
    """Says why a grammar cannot be compiled, or not be followed any further."""


def load_tokens(tokenizer: Path, vocab_size: int, eos_token_ids: Iterable[int]) -> LLTokenizer:
    """The tokens that grammars are about, from a tokenizer.json; a second for 150,000 of them.

    vocab_size: the model's, which may be larger; ids beyond the tokenizer are never allowed.
    """
    return LLTokenizer(tokenizer.read_text(encoding="utf-8"), n_vocab=vocab_size, eos_token=list(eos_token_ids))


class Grammar:
    """One answer's grammar. Its end is a token of the checkpoint's own eos, which is allowed where it is complete."""

    def __init__(self, tokens: LLTokenizer, wanted: ResponseFormat) -> None:
        """Compiles: milliseconds as a rule, but some grammars take minutes. Raises GrammarError."""
        if wanted.kind == "regex":
            grammar = LLMatcher.grammar_from_regex(wanted.grammar)
        else:
            try:
                grammar = LLMatcher.grammar_from_json_schema(
                    wanted.grammar, overrides={"whitespace_pattern": _WHITESPACE}
                )
            except ValueError as error:
                raise GrammarError(_one_line(str(error))) from None
        self.matcher = LLMatcher(tokens, grammar, log_level=0, limits=_LIMITS)
        self.check()

    def try_first_mask(self) -> None:
        """Computes what the first step needs. Raises GrammarError where that is beyond the limits already."""
        self.matcher.compute_bitmask()
        self.check()

    def advance(self, token_id: int) -> None:
        """Takes the answer's next token, one of those that were allowed."""
        self.matcher.consume_token(token_id)

    def check(self) -> None:
        """Raises GrammarError after anything that failed: a matcher never says so by itself."""
        if self.matcher.is_error():
            raise GrammarError(_one_line(self.matcher.get_error()))


def _one_line(error: str) -> str:
    line = " ".join(error.split())
    return line if len(line) <= _MAX_ERROR_CHARACTERS else line[: _MAX_ERROR_CHARACTERS - 1] + "…"
