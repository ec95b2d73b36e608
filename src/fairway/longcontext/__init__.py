"""Does a model use its context, and how far back: bits by position, gains, LongPPL."""

from __future__ import annotations

from fairway.longcontext.examining import DRAWN, default_lengths, examine
from fairway.longcontext.report import ContextReport

__all__ = ["DRAWN", "ContextReport", "default_lengths", "examine"]
