"""Checks of whether a tokenizer fits its model: ids, special tokens, lengths."""

from __future__ import annotations

from collections.abc import Iterable

from fairway.backends.transformers.doctor.case import Case, tokens
from fairway.backends.transformers.doctor.spelling import ROLES
from fairway.finding import Finding

UNLIMITED = 10**12
"""A model_max_length above this is the library's way of saying that there is none."""


def vocabulary(case: Case) -> Finding:
    """Is every id that can come out of the tokenizer in the model's tables?"""
    name = "vocabulary"
    highest = max(case.tokenizer.get_vocab().values(), default=-1)
    problems = []
    if highest >= case.vocabulary:
        problems.append(
            f"the tokenizer's highest id is {highest} and the model has {case.vocabulary} rows"
        )
    for owner, role, value in _named(case):
        # A negative pad id is an old way of saying that there is none.
        if value >= case.vocabulary or (value < 0 and role != "pad"):
            problems.append(
                f"the {owner}'s {role}_token_id {value} is outside the {case.vocabulary} rows"
            )
    if not problems:
        spare = case.vocabulary - highest - 1
        padded = f" ({spare} rows are spare, which is normal)" if spare else ""
        return Finding(
            name, "ok", f"ids 0 to {highest} fit the model's {case.vocabulary} rows{padded}"
        )
    return Finding(
        name, "defect", "; ".join(problems),
        "Use the tokenizer that the model was trained with, or, after adding tokens, call "
        "model.resize_token_embeddings(len(tokenizer)) and train.",
    )  # fmt: skip


def special_ids(case: Case) -> Finding:
    """Do tokenizer, config.json and generation_config.json mean the same BOS and EOS?"""
    name = "special tokens' ids"
    wrong: list[str] = []
    odd: list[str] = []
    for role, problems in (("bos", wrong), ("eos", odd)):
        own = getattr(case.tokenizer, f"{role}_token_id")
        others = [(o, v) for o, r, v in _named(case) if r == role and o != "tokenizer"]
        if own is not None and others and own not in {value for _, value in others}:
            said = ", ".join(f"{owner} {value}" for owner, value in others)
            problems.append(f"{role.upper()} is {own} for the tokenizer, and {said}")
    if wrong:
        return Finding(
            name, "defect", "; ".join(wrong + odd) + ": tools that read the one prepend another "
            "token than tools that read the other",
            "Set bos_token_id in config.json and generation_config.json to the one that the model "
            "was trained with.",
        )  # fmt: skip
    if odd:
        return Finding(
            name, "note", "; ".join(odd) + ": generation does not stop at the tokenizer's EOS",
            "Set eos_token_id in generation_config.json to the tokenizer's, or a list of both.",
        )  # fmt: skip
    return Finding(name, "ok", "tokenizer and configuration do not contradict each other")


def max_length(case: Case) -> Finding:
    """Do tokenizer, configuration and position table agree on how much the model reads?"""
    name = "max_length"
    positions, table = case.loaded.positions, case.table
    claimed = int(case.tokenizer.model_max_length)
    longest = max(map(len, case.ids), default=0)
    for text, ids in zip(case.texts, case.ids, strict=True):
        given = len(tokens(case.tokenizer, text, special=True))
        if given < len(ids):
            return Finding(
                name, "defect", f"a plain call cuts a text of {len(ids):,} tokens to {given:,}",
                "Take the truncation out of tokenizer.json.",
            )  # fmt: skip
    if table is not None and positions is not None and table < positions:
        return Finding(
            name, "defect", f"the configuration says {positions:,} positions, and the table of "
            f"learned positions has {table:,}: longer texts fail with an index error",
            f"Set the positions in config.json to {table}, or give --max-length {table}.",
        )  # fmt: skip
    if claimed > UNLIMITED or positions is None:
        said = "no limit is set" if positions is None else f"the model reads {positions:,} tokens"
        return Finding(name, "ok", said)
    if claimed < positions:
        lost = f", {longest - claimed:,} of them in the longest" if longest > claimed else ""
        return Finding(
            name, "defect", f"the tokenizer's model_max_length is {claimed:,} and the model reads "
            f"{positions:,}: truncation=True drops tokens without a word{lost}, and tools that "
            "take their window from it use a shorter one",
            f"Set model_max_length in tokenizer_config.json to {positions}. fairway reads the "
            "model's positions and never truncates.",
        )  # fmt: skip
    if claimed > positions:
        fails = table is not None
        return Finding(
            name, "defect" if fails else "note", f"the tokenizer's model_max_length is {claimed:,} "
            f"and the model has {positions:,} positions: texts between the two "
            + ("fail with an index error" if fails else "stand at positions it never trained on"),
            f"Set model_max_length in tokenizer_config.json to {positions}.",
        )  # fmt: skip
    return Finding(name, "ok", f"tokenizer and model agree on {positions:,} tokens")


def _named(case: Case) -> Iterable[tuple[str, str, int]]:
    """Give owner, role and id of each special token that somebody names."""
    generation = getattr(case.model, "generation_config", None)
    owners = (
        ("tokenizer", case.tokenizer),
        ("config", case.model.config.get_text_config()),
        ("generation config", generation),
    )
    for owner, thing in owners:
        for role in ROLES:
            value = getattr(thing, f"{role}_token_id", None)
            for one in value if isinstance(value, list | tuple) else (value,):
                if one is not None:
                    yield owner, role, int(one)
