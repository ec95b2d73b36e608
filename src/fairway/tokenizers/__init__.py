"""Tokenizers: what they make of texts, what they lose, and how much of a perplexity is theirs."""

from fairway.tokenizers.fertility import Audit, Tally, audit
from fairway.tokenizers.sampling import Marginal, marginal
from fairway.tokenizers.shares import Split, reference_perplexity, split
from fairway.tokenizers.vocabulary import Coded, Vocabulary

__all__ = [
    "Audit",
    "Coded",
    "Marginal",
    "Split",
    "Tally",
    "Vocabulary",
    "audit",
    "marginal",
    "reference_perplexity",
    "split",
]
