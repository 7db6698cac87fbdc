"""The next token of each sequence, drawn for the whole batch at once."""

from __future__ import annotations

from collections.abc import Sequence as SequenceOf

import torch

from engine.pytorch.sequence import Sequence
from engine.sampling_parameters import SamplingParameters

# As in vLLM: below it, dividing logits by the temperature overflows, and the draw would be greedy anyway.
GREEDY_BELOW = 1e-5


def sample(logits: torch.Tensor, sequences: SequenceOf[Sequence]) -> list[int]:
    """One token id per row of `logits` [sequences, vocabulary] (float32; changed in place).

    Order and semantics are vLLM's: min_tokens, penalties, temperature, min_p, top_k, top_p. Each sequence draws from a
    random generator of its own, one number per token, so that a seed gives the same answer in any batch.
    """
    _forbid_early_stop(logits, sequences)
    _penalise(logits, sequences)
    tokens = logits.argmax(dim=-1)
    drawn = [row for row, sequence in enumerate(sequences) if sequence.sampling.temperature >= GREEDY_BELOW]
    if drawn:
        rows = torch.tensor(drawn, device=logits.device)
        uniform = torch.tensor([sequences[row].random.random() for row in drawn], device=logits.device)
        tokens[rows] = _draw(logits[rows], [sequences[row].sampling for row in drawn], uniform)
    return tokens.tolist()


def _forbid_early_stop(logits: torch.Tensor, sequences: SequenceOf[Sequence]) -> None:
    for row, sequence in enumerate(sequences):
        if len(sequence.output) < sequence.sampling.min_tokens and sequence.stop_token_ids:
            logits[row, list(sequence.stop_token_ids)] = float("-inf")


def _penalise(logits: torch.Tensor, sequences: SequenceOf[Sequence]) -> None:
    penalised = [(row, s.sampling, s.counts) for row, s in enumerate(sequences) if s.counts is not None]
    if not penalised:
        return
    rows = torch.tensor([row for row, _, _ in penalised], device=logits.device)
    output = torch.stack([counts.output for _, _, counts in penalised])
    seen = torch.stack([counts.prompt for _, _, counts in penalised]) | (output > 0)

    def column(name: str) -> torch.Tensor:
        return _column([sampling for _, sampling, _ in penalised], name, logits.device)

    chosen = logits[rows]
    repetition = column("repetition_penalty")
    chosen = torch.where(seen, torch.where(chosen > 0, chosen / repetition, chosen * repetition), chosen)
    chosen -= column("frequency_penalty") * output
    chosen -= column("presence_penalty") * (output > 0)
    logits[rows] = chosen


def _draw(logits: torch.Tensor, sampling: SequenceOf[SamplingParameters], uniform: torch.Tensor) -> torch.Tensor:
    """Inverse of the cumulative distribution over the tokens that top_k, top_p and min_p keep, likeliest first."""
    vocabulary = logits.shape[1]
    top_k = [s.top_k if 0 < s.top_k < vocabulary else vocabulary for s in sampling]
    # Only as many candidates as the widest top_k: sorting a whole vocabulary is the dearest part of sampling.
    logits, token_ids = (logits / _column(sampling, "temperature", logits.device)).topk(max(top_k), dim=-1)
    rank = torch.arange(logits.shape[1], device=logits.device)
    kept = rank < torch.tensor(top_k, device=logits.device).unsqueeze(1)
    kept &= logits >= logits[:, :1] + _column(sampling, "min_p", logits.device).log()
    probabilities = logits.masked_fill(~kept, float("-inf")).softmax(dim=-1)
    before = probabilities.cumsum(dim=-1) - probabilities
    kept &= (before < _column(sampling, "top_p", logits.device)) | (rank == 0)
    cumulative = (probabilities * kept).cumsum(dim=-1)
    threshold = uniform.unsqueeze(1) * cumulative[:, -1:]
    choice = (cumulative > threshold).to(torch.uint8).argmax(dim=-1, keepdim=True)
    return token_ids.gather(1, choice).squeeze(1)


def _column(sampling: SequenceOf[SamplingParameters], name: str, device: torch.device) -> torch.Tensor:
    return torch.tensor([[getattr(s, name)] for s in sampling], dtype=torch.float32, device=device)
