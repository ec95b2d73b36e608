"""Discounts of modified Kneser-Ney, from how many n-grams have which count."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from fairway.errors import InputError


class Discounts(NamedTuple):
    """What is taken off the counts of an order.

    Attributes:
        one: of count 1.
        two: of count 2.
        more: of counts from 3.
        estimated: from the text, and not the fallback.
    """

    one: float
    two: float
    more: float
    estimated: bool = True


def estimate(
    order: int,
    counts: Mapping[int, int],
    fallback: tuple[float, float, float] | None = None,
) -> Discounts:
    """Estimate an order's discounts: ``D_j = j - (j + 1) Y n_(j+1) / n_j``, ``Y = n1/(n1 + 2 n2)``.

    Equation 26 of Chen and Goodman, An Empirical Study of Smoothing Techniques for Language
    Modeling, Harvard TR-10-98, 1998.

    Args:
        order: of the n-grams, for the message.
        counts: how many n-grams have adjusted count 1, 2, 3, 4.
        fallback: what to take where there is no estimate; None = refuse.

    Raises:
        InputError: where there is no estimate and no fallback.
    """
    n = [0, *(counts.get(j, 0) for j in range(1, 5))]
    missing = [str(j) for j in range(1, 4) if not n[j]]
    if missing:
        problem = f"no {order}-gram has an adjusted count of {' or '.join(missing)}"
    else:
        y = n[1] / (n[1] + 2 * n[2])
        found = [j - (j + 1) * y * n[j + 1] / n[j] for j in range(1, 4)]
        below = [j for j in range(1, 4) if found[j - 1] < 0]
        if not below:
            return Discounts(found[0], found[1], found[2])
        problem = f"that of {order}-grams of count {below[0]} would be {found[below[0] - 1]:.3f}"
    if fallback is not None:
        return Discounts(*fallback, estimated=False)
    raise InputError(
        f"This text allows no estimate of Kneser-Ney discounts: {problem}. It is small, repeats "
        "itself or was made by a rule; remove repeated lines, or pass --discount-fallback."
    )
