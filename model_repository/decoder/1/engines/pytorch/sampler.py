"""The next token of each sequence, drawn for the whole batch at once."""

from __future__ import annotations

from collections.abc import Sequence as SequenceOf

import torch

from engines.pytorch.grammar.constraint import constrain
from engines.pytorch.sequence import Sequence
from engines.pytorch.transfer import to_device

# As in vLLM: below it, dividing logits by the temperature overflows, and the draw would be greedy anyway.
GREEDY_BELOW = 1e-5


def sample(logits: torch.Tensor, sequences: SequenceOf[Sequence]) -> torch.Tensor:
    """One token id per row of `logits` [sequences, vocabulary] (float32; changed in place): int64 [sequences].

    Order and semantics are vLLM's: min_tokens, penalties, temperature, min_p, top_k, top_p. Each sequence draws from a
    random generator of its own, one number per token, so that a seed gives the same answer in any batch.

    Raises invalid_argument, before anything is drawn, where a grammar cannot be followed any further.
    """
    constrain(logits, [sequence.grammar for sequence in sequences])
    _forbid_early_stop(logits, sequences)
    _penalise(logits, sequences)
    tokens = logits.argmax(dim=-1)
    drawn = [row for row, sequence in enumerate(sequences) if sequence.sampling.temperature >= GREEDY_BELOW]
    if drawn:
        rows = to_device(torch.tensor(drawn), logits.device)
        tokens[rows] = _draw(logits[rows], [sequences[row] for row in drawn])
    return tokens


def _forbid_early_stop(logits: torch.Tensor, sequences: SequenceOf[Sequence]) -> None:
    for row, sequence in enumerate(sequences):
        if sequence.generated < sequence.sampling.min_tokens and sequence.stop_token_ids:
            stops = to_device(torch.tensor(list(sequence.stop_token_ids)), logits.device)
            logits[row].index_fill_(0, stops, float("-inf"))


def _penalise(logits: torch.Tensor, sequences: SequenceOf[Sequence]) -> None:
    penalised = [(row, s.sampling, s.counts) for row, s in enumerate(sequences) if s.counts is not None]
    if not penalised:
        return
    rows = to_device(torch.tensor([row for row, _, _ in penalised]), logits.device)
    output = torch.stack([counts.output for _, _, counts in penalised])
    seen = torch.stack([counts.prompt for _, _, counts in penalised]) | (output > 0)

    penalties = [(s.repetition_penalty, s.frequency_penalty, s.presence_penalty) for _, s, _ in penalised]
    repetition, frequency, presence = _columns(penalties, logits.device)
    chosen = logits[rows]
    chosen = torch.where(seen, torch.where(chosen > 0, chosen / repetition, chosen * repetition), chosen)
    logits[rows] = chosen - frequency * output - presence * (output > 0)


def _draw(logits: torch.Tensor, sequences: SequenceOf[Sequence]) -> torch.Tensor:
    """Inverse of the cumulative distribution over the tokens that min_p, top_k and top_p keep, likeliest first."""
    vocabulary = logits.shape[1]
    sampling = [sequence.sampling for sequence in sequences]
    widths = [s.top_k if 0 < s.top_k < vocabulary else vocabulary for s in sampling]
    temperature, min_p, top_p, top_k, uniform = _columns(
        [
            (s.temperature, s.min_p, s.top_p, width, sequence.random.random())
            for sequence, s, width in zip(sequences, sampling, widths, strict=True)
        ],
        logits.device,
    )
    # Only as many candidates as the widest top_k: sorting a whole vocabulary is the dearest part of sampling.
    logits, token_ids = (logits / temperature).topk(max(widths), dim=-1)
    rank = torch.arange(logits.shape[1], device=logits.device)
    kept = (rank < top_k) & (logits >= logits[:, :1] + min_p.log())
    probabilities = logits.masked_fill(~kept, float("-inf")).softmax(dim=-1)
    cumulative = probabilities.cumsum(dim=-1)
    # The first token that reaches top_p is kept too.
    kept_mass = torch.where(cumulative - probabilities < top_p, cumulative, 0.0).amax(dim=-1, keepdim=True)
    choice = (cumulative >= uniform * kept_mass).to(torch.uint8).argmax(dim=-1, keepdim=True)
    return token_ids.gather(1, choice).squeeze(1)


def _columns(rows: SequenceOf[tuple[float, ...]], device: torch.device) -> tuple[torch.Tensor, ...]:
    """Each parameter as a column [rows, 1]; in one tensor, because it goes to the device at once."""
    return to_device(torch.tensor(rows, dtype=torch.float32), device).split(1, dim=1)
