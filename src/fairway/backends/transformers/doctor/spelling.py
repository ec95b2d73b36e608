"""Checks of a tokenizer: what it adds to a text, and what it loses of it."""

from __future__ import annotations

import unicodedata
from typing import Any

from fairway.backends.transformers import encode
from fairway.backends.transformers.doctor.case import Case, tokens
from fairway.finding import Finding

ROLES = ("bos", "eos", "pad")
PLAIN = (
    "The CAT sat on the Mat.",
    "two  blanks,   three",
    " a blank first",
    "a blank last ",
    "one\n\n\ntwo\n",
    "a\tb\t\tc",
    "1,234.50 (x) [y] {z} 'q' @#$%^&*~`|\\<>/?",
)
"""Texts of plain ASCII that any text may hold."""
WIDE = (
    "na\u00efve caf\u00e9, \u00c5ngstr\u00f6m",
    "nai\u0308ve cafe\u0301",
    "\ufb01 \u00bd \u00b2 \u2460 \uff21",
    "no\u00a0break, \u201cquotes\u201d \u2014 dash",
    "\u65e5\u672c\u8a9e\u306e\u6587",
    "\u0e20\u0e32\u0e29\u0e32\u0e44\u0e17\u0e22",
    "\u0627\u0644\u0639\u0631\u0628\u064a\u0629",
    "\U0001f600 \U0001f469\u200d\U0001f469\u200d\U0001f467",
    "windows\r\nline",
)
"""Texts of other scripts and signs, which a model may do without."""


def doubled_bos(case: Case) -> Finding:
    """Does any usual way of tokenizing give two BOS tokens?"""
    name = "doubled BOS"
    tokenizer, bos = case.tokenizer, case.tokenizer.bos_token_id
    if bos is None:
        return Finding(name, "skipped", "the tokenizer names no BOS")
    mend = "Mend the post-processor in tokenizer.json so that it writes the BOS once."
    if case.before.count(bos) > 1:
        return Finding(
            name, "defect",
            f"a plain call gives {case.before.count(bos)} BOS tokens: ids begin {case.before}",
            mend,
        )  # fmt: skip
    if bos in tokens(tokenizer, "a"):
        return Finding(
            name, "defect", "with add_special_tokens=False the tokenizer still adds a BOS, so that "
            "every tool which puts one in front gives two", mend,
        )  # fmt: skip
    said = "one" if bos in case.before else "none"
    rendered = conversation(tokenizer, "one", "two")
    if isinstance(rendered, str):
        inside = tokenizer(rendered, add_special_tokens=False, verbose=False)["input_ids"]
        if list(inside[:2]) == [bos, bos]:
            return Finding(
                name, "defect", "the chat template writes the BOS twice",
                "Take one bos_token out of the chat template.",
            )  # fmt: skip
        if list(tokens(tokenizer, rendered, special=True)[:2]) == [bos, bos]:
            return Finding(
                name, "note", "the chat template writes a BOS and a plain call adds another: a "
                "rendered conversation that is tokenized as plain text begins with two",
                "Tokenize rendered conversations with add_special_tokens=False, or with "
                "apply_chat_template(tokenize=True). fairway --chat writes one.",
            )  # fmt: skip
    return Finding(name, "ok", f"a plain call gives {said}, add_special_tokens=False gives none")


def end_token(case: Case) -> Finding:
    """Does the tokenizer close every text with a token?"""
    name = "token at the end"
    if not case.after:
        return Finding(name, "ok", "a plain call adds nothing after a text")
    spelled = " ".join(case.tokenizer.convert_ids_to_tokens(list(case.after)))
    return Finding(
        name, "note", f"a plain call adds {spelled} after every text: prompts look finished to the "
        "model, and tools that call it plainly score that token as text",
        "Set add_eos_token to false in tokenizer_config.json. fairway never scores it.",
    )  # fmt: skip


def tied_tokens(case: Case) -> Finding:
    """Does one id stand for two things that must be told apart?"""
    name = "tied special tokens"
    tokenizer = case.tokenizer
    bos, eos, pad = (getattr(tokenizer, f"{role}_token_id") for role in ROLES)
    seen = {token for ids in case.ids for token in ids}
    for role, value in zip(ROLES, (bos, eos, pad), strict=True):
        if value is not None and value in seen:
            count = sum(ids.count(value) for ids in case.ids)
            spelled = tokenizer.convert_ids_to_tokens(value)
            return Finding(
                name, "defect", f"the {role.upper()} {spelled!r} (id {value}) is also ordinary "
                f"text: it occurs {count:,} times in the sample, and what masks or splits at it "
                "loses text",
                f"Give the tokenizer a {role}_token of its own.",
            )  # fmt: skip
    if pad is not None and pad == bos and bos in case.before:
        return Finding(
            name, "defect", f"padding is the BOS (id {pad}), which the tokenizer adds: a mask "
            "made by `ids != pad` hides it from the model",
            "Set pad_token to a token of its own; scoring needs none, since masks come from "
            "lengths.",
        )  # fmt: skip
    if pad is not None and pad == eos:
        return Finding(
            name, "note", f"padding is the EOS (id {pad}): code that masks labels equal to the "
            "padding drops every true end of text, in training and in scores",
            "Mask by lengths, or set pad_token to a token of its own.",
        )  # fmt: skip
    return Finding(name, "ok", "BOS, EOS and padding are not ordinary text, and not padding too")


def lossy(case: Case) -> Finding:
    """Does decoding give back what was encoded?"""
    name = "lossy tokenizer"
    sample = [(f"text {n} of the sample", text) for n, text in enumerate(case.texts, 1)]
    reformed = ""
    for where, text in (*sample, *(("a probe", text) for text in PLAIN)):
        change = _change(case.tokenizer, text)
        if change is not None and change[0] == "form":
            reformed = reformed or f"{where}, {change[1]}"
        elif change is not None:
            return Finding(
                name, "defect", f"{where} changes: {change[1]}",
                "Bytes and words are counted in the text, and the model is scored on another. Mend "
                "the normaliser or the vocabulary, or compare only with models that lose the same.",
            )  # fmt: skip
    if reformed:
        return Finding(
            name, "note", f"the tokenizer brings text into another Unicode form: in {reformed}",
            "Bring the corpus into that form (usually NFC) before scoring; else bytes are counted "
            "that the model never saw.",
        )  # fmt: skip
    changed = [change for text in WIDE if (change := _change(case.tokenizer, text))]
    other = [evidence for kind, evidence in changed if kind == "other"]
    if other:
        return Finding(
            name, "note", f"the sample comes back as it was, {len(other)} of {len(WIDE)} probes of "
            f"other scripts and signs do not: {other[0]}",
            "Do not score text that holds such characters, or expect the mark `lossy` on it.",
        )  # fmt: skip
    count = len(sample) + len(PLAIN) + len(WIDE)
    if changed:
        return Finding(
            name, "ok", f"{count} texts come back as they were but for their Unicode form: the "
            f"tokenizer normalises, which changes nothing in the sample ({changed[0][1]})",
        )  # fmt: skip
    return Finding(name, "ok", f"{count} texts come back as they were, sample and probes")


def template(case: Case) -> Finding:
    """Does the chat template run, and write contents as they are?"""
    name = "chat template"
    tokenizer = case.tokenizer
    if not getattr(tokenizer, "chat_template", None):
        return Finding(name, "skipped", "there is none, as is usual for a base model")
    question, answer = 'Is 2 < 3 & "so" on?\n\n  Yes, or NO?', "Ja  \u2014 caf\u00e9."
    rendered = conversation(tokenizer, question, answer)
    if not isinstance(rendered, str):
        return Finding(
            name, "defect", f"it refuses a user's question and an answer: {rendered}",
            "Mend the chat template; apply_chat_template shows the line.",
        )  # fmt: skip
    for role, content in (("user", question), ("assistant", answer)):
        if content not in rendered:
            return Finding(
                name, "defect", f"it changes or drops what the {role} says: {content!r} is not in "
                f"its output {rendered[:160]!r}",
                "Let the template write message['content'] as it is.",
            )  # fmt: skip
    trimmed = "  edges  " not in str(conversation(tokenizer, "  edges  ", answer))
    return Finding(
        name, "ok", "contents come out as they are" + (", blanks at their ends trimmed" * trimmed)
    )


def _change(tokenizer: Any, text: str) -> tuple[str, str] | None:
    """Say how a text is changed by encoding and decoding it: ``form`` or ``other``, evidence."""
    ids = tokens(tokenizer, text)
    back = encode.decode(tokenizer, ids)
    if back == text:
        return None
    at = next(
        (i for i, (a, b) in enumerate(zip(text, back, strict=False)) if a != b),
        min(len(text), len(back)),
    )
    evidence = f"{text[at : at + 12]!r} becomes {back[at : at + 12]!r} at character {at}"
    if unicodedata.normalize("NFC", text) == unicodedata.normalize("NFC", back):
        return "form", evidence
    unknown = tokenizer.unk_token_id
    if unknown is not None and unknown in ids:
        evidence += f"; {ids.count(unknown)} unknown tokens"
        if getattr(tokenizer, "is_fast", False):
            offsets = tokenizer(
                text, add_special_tokens=False, split_special_tokens=True, verbose=False,
                return_offsets_mapping=True,
            )  # fmt: skip
            pairs = zip(offsets["input_ids"], offsets["offset_mapping"], strict=True)
            start, end = next((span for token, span in pairs if token == unknown), (0, 0))
            evidence += f", first for {text[start:end]!r}"
    return "other", evidence


def conversation(tokenizer: Any, question: str, answer: str) -> str | Exception | None:
    """Render a question and an answer; the problem where that fails, None without a template."""
    if not getattr(tokenizer, "chat_template", None):
        return None
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    try:
        return str(tokenizer.apply_chat_template(messages, tokenize=False))
    except Exception as problem:  # templates raise whatever their author wrote
        return problem
