"""Training interpolated modified Kneser-Ney models on texts of any size."""

from fairway.ngram.training.discounts import Discounts
from fairway.ngram.training.settings import Settings
from fairway.ngram.training.training import Trained, train

__all__ = ["Discounts", "Settings", "Trained", "train"]
