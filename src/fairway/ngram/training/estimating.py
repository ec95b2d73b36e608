"""Interpolated modified Kneser-Ney from adjusted counts, as lmplz computes it.

    p(w | c) = (a(c w) - D(a)) / sum_x a(c x) + gamma(c) p(w | c without its first word)
    gamma(c) = (D1 N1(c) + D2 N2(c) + D3 N3+(c) + counts of pruned c x) / sum_x a(c x)

Below unigrams lies the uniform distribution over the vocabulary, ``<unk>`` and ``</s>`` counted and
``<s>`` not. Chen and Goodman 1998, section 4.1.6; Heafield et al. 2013, section 3.3.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from fairway.ngram.training.counting import occurrences
from fairway.ngram.training.database import columns, once, rows
from fairway.ngram.training.discounts import Discounts, estimate
from fairway.ngram.training.reading import BOS, EOS, UNK
from fairway.ngram.training.settings import Settings


def discounts(connection: Any, ids: Path, settings: Settings) -> list[Discounts]:
    """Estimate the discounts of every order.

    Raises:
        InputError: where an order allows no estimate and there is no fallback.
    """
    last = _last(connection, settings.order)
    out = []
    for k in range(1, settings.order + 1):
        counts = dict(
            rows(connection, f"SELECT a, count(*) FROM g{k} WHERE a BETWEEN 1 AND 4 GROUP BY a")
        )
        if k < settings.order and k <= len(last):
            # lmplz counts the last n-gram in its order by its occurrences: so do its models.
            words = last[-k:]
            where = " AND ".join(f"w{at} = {word}" for at, word in enumerate(words, 1))
            adjusted = rows(connection, f"SELECT a FROM g{k} WHERE {where}")[0][0]
            raw = adjusted if words[0] == BOS else occurrences(ids, words)
            counts[adjusted] = counts.get(adjusted, 0) - 1
            counts[raw] = counts.get(raw, 0) + 1
        out.append(estimate(k, counts, settings.fallback))
    return out


def _last(connection: Any, order: int) -> tuple[int, ...]:
    """Find the n-gram that comes last when sorted by its last word, the one before it, and so on.

    Words are sorted by where they first occur.
    """
    found: tuple[int, ...] = ()
    for k in range(1, order):
        where = " AND ".join(f"w{at} = {word}" for at, word in enumerate(found, 2)) or "true"
        word = rows(connection, f"SELECT max(w1) FROM g{k} WHERE {where}")[0][0]
        found = (word, *found)
        if word == BOS:
            break
    return found


def estimate_all(
    connection: Any,
    settings: Settings,
    found: list[Discounts],
    show: Callable[[str, float], None],
) -> None:
    """Make the tables ``c1`` to ``cn`` (contexts: ``den``, ``gamma``) and ``p1`` to ``pn``.

    Args:
        connection: of a database with the tables ``g1`` to ``gn``.
        settings: of the training.
        found: the orders' discounts.
        show: takes a stage and how much of it is done.
    """
    order = settings.order
    for k in range(1, order + 1):
        show("estimating", (k - 1) / order)
        threshold, d = settings.prune[k - 1], found[k - 1]
        once(connection, f"contexts {k}", partial(_contexts, connection, k, threshold, d))
        if k == 1:
            interpolate = settings.interpolate_unigrams
            work = partial(_unigrams, connection, threshold, interpolate, d)
        else:
            work = partial(_probabilities, connection, k, threshold, d)
        once(connection, f"probabilities {k}", work)


def _kept(k: int, threshold: int) -> str:
    if threshold == 0:
        return "true"
    return f"(raw > {threshold}" + (f" OR w1 <= {EOS})" if k == 1 else ")")


def _contexts(connection: Any, k: int, threshold: int, d: Discounts) -> None:
    kept = _kept(k, threshold)
    group = ", ".join(columns(k - 1))
    lead = f"{group}, " if group else ""
    counted = ", ".join(
        f"count(*) FILTER (WHERE {kept} AND a {size})::DOUBLE AS n{j}"
        for j, size in enumerate(("= 1", "= 2", ">= 3"), 1)
    )
    cut = "0.0" if kept == "true" else f"coalesce(sum(a) FILTER (WHERE NOT {kept}), 0)::DOUBLE"
    connection.execute(
        f"CREATE TABLE c{k} AS SELECT {lead} den, "
        "(?::DOUBLE * n1 + ?::DOUBLE * n2 + ?::DOUBLE * n3 + cut) / den AS gamma FROM "
        f"(SELECT {lead} sum(a)::DOUBLE AS den, {counted}, {cut} AS cut FROM g{k}"
        + (f" GROUP BY {group})" if group else ")"),
        [d.one, d.two, d.more],
    )


_DISCOUNTED = (
    "(a - CASE WHEN a >= 3 THEN ?::DOUBLE WHEN a = 2 THEN ?::DOUBLE "
    "WHEN a = 1 THEN ?::DOUBLE ELSE 0 END) / den"
)


def _unigrams(connection: Any, threshold: int, interpolate: bool, d: Discounts) -> None:
    kept = _kept(1, threshold)
    share = f"gamma / (SELECT count(*) - 1 FROM g1 WHERE {kept})"
    if not interpolate:
        share = f"CASE WHEN w1 = {UNK} THEN gamma ELSE 0 END"
    connection.execute(
        f"CREATE TABLE p1 AS SELECT w1, CASE WHEN w1 = {BOS} THEN 1.0::DOUBLE ELSE "
        f"{_DISCOUNTED} + {share} END AS p FROM g1, c1 WHERE {kept}",
        [d.more, d.two, d.one],
    )


def _probabilities(connection: Any, k: int, threshold: int, d: Discounts) -> None:
    context = " AND ".join(f"g.w{at} = c.w{at}" for at in range(1, k))
    suffix = " AND ".join(f"g.w{at + 1} = low.w{at}" for at in range(1, k))
    connection.execute(
        f"CREATE TABLE p{k} AS SELECT {', '.join(columns(k, table='g.'))}, "
        f"{_DISCOUNTED} + gamma * low.p AS p "
        f"FROM g{k} AS g JOIN c{k} AS c ON {context} JOIN p{k - 1} AS low ON {suffix} "
        f"WHERE {_kept(k, threshold)}",
        [d.more, d.two, d.one],
    )
