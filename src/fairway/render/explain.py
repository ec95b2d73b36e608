"""What a number means, in plain words, and when the rule of thumb says nothing."""

from __future__ import annotations

import math

from fairway.render.companions import sentences
from fairway.render.visible import figure
from fairway.report import Report
from fairway.scores import CONDITIONAL, OWN_OUTPUT, PERPLEXITY, PSEUDO, named

BANDS = (
    (10.0, "below 10: very confident, or overfitting"),
    (50.0, "10 to 50: good for general text"),
    (100.0, "50 to 100: between good and unsure"),
    (math.inf, "above 100: unsure or under-trained"),
)
GIVEN = {
    PSEUDO: ", given what stands around it,",
    CONDITIONAL: ", given the source,",
    OWN_OUTPUT: " of what it wrote itself",
}
"""What a token was predicted from, where that is more than what stands before it."""
CAVEAT = (
    "the bands assume tokens of about 4 bytes and a general text; compare numbers only where "
    "signatures agree"
)


def withheld(report: Report) -> str | None:
    """Say why the rule of thumb does not apply; None where it does."""
    if report.perplexity != PERPLEXITY:
        article = "an" if report.perplexity[0] in "aeiou" else "a"
        return f"it is {article} {report.perplexity.replace('_', ' ')}"
    unit = report.signature.get("unit")
    if unit != "token":
        return f"its unit is the {unit or 'unknown'}, not the subword token"
    if not report.totals.scored:
        return "nothing was scored"
    if not report.totals.tokens:
        return "there is no perplexity per token"
    size = report.metrics["bytes_per_token"]
    if size == size and size < 2:
        return f"tokens are only {figure(size, 3)} bytes long, nearer to characters than to words"
    return None


def rule_of_thumb(report: Report) -> str:
    """Give the band of the perplexity, in the words of the field, with its caveat."""
    why = withheld(report)
    if why is not None:
        return f"rule of thumb: withheld, since {why}"
    value = report.metrics["perplexity"]
    band = next(words for edge, words in BANDS if value < edge or math.isinf(edge))
    return f"rule of thumb: {band} ({CAVEAT})"


def explain(report: Report) -> str:
    """Explain a report: meaning, limits of the rule of thumb, what comparing it needs."""
    metrics, fields = report.metrics, dict(report.signature.fields)
    lines = []
    value = metrics.get(report.perplexity, math.nan)
    if value == value and not math.isinf(value):
        lines.append(
            f"{report.model} was as unsure of each token of {report.data}"
            f"{GIVEN.get(report.perplexity, '')} as if choosing among {figure(value, 3)} equally "
            "likely ones."
        )
    elif math.isinf(value):
        lines.append(
            "The perplexity is too large for a floating-point number; read nats per token instead."
        )
    else:
        reason = report.reasons.get(report.perplexity, "unknown")
        lines.append(f"There is no {report.perplexity.replace('_', ' ')}: {reason}.")
    bpb = metrics[named("bits_per_byte", report.perplexity)]
    lost = report.oov
    if lost is not None and lost.tokens:
        lines.append(
            f"{lost.tokens:,} of its {lost.tokens + lost.known:,} tokens are words that it does "
            f"not know, and <unk> does not spell them: {figure(bpb, 3)} bits for each byte are no "
            "length of a code. Without these words its perplexity is "
            f"{figure(lost.metrics['perplexity_without_oov'], 3)}."
        )
    elif report.perplexity == PSEUDO:
        lines.append(
            "Its pseudo bits per byte are no code length: every token is told by those behind it, "
            "too, which no decoder has."
        )
    elif bpb == bpb:
        with_source = "" if report.perplexity == PERPLEXITY else ", to who has the source,"
        lines.append(
            f"Used as a compressor it would need{with_source} {figure(bpb, 3)} bits for each byte "
            f"of text, {figure(100 * bpb / 8, 3)}% of the original size."
        )
    why = withheld(report)
    lines.append(
        f"The rule of thumb does not apply: {why}."
        if why
        else f"{rule_of_thumb(report).capitalize()}."
    )
    if report.companions is not None:
        lines += sentences(report.companions)
    elif "companions" in report.reasons:
        why = report.reasons["companions"]
        lines.append(f"It has no accuracy, entropy and percentiles of surprisal: {why}.")
    interval = report.intervals.get(report.perplexity)
    if interval is not None:
        lines.append(
            f"The interval, {figure(interval.low)} to {figure(interval.high)}, rests on "
            f"{report.totals.documents:,} documents: made so from other samples of the same kind, "
            f"{interval.level:.0%} of such intervals hold the value for all such text."
        )
        effect = report.design_effect
        if effect == effect and effect > 1:
            lines.append(
                "Taking tokens as independent would have made this interval "
                f"{figure(math.sqrt(effect), 3)} times too narrow."
            )
    elif "intervals" in report.reasons:
        lines.append(f"It has {report.reasons['intervals']}.")
    name = report.perplexity.replace("_", " ")
    length = fields.get("length")
    same = f"tokenizer is the same (tok:{fields.get('tok', '?')})"
    if fields.get("unit") == "word":
        same = "vocabulary is the same"
    other = f"; otherwise compare {named('bits_per_byte', report.perplexity).replace('_', ' ')}"
    if lost is not None and lost.tokens:
        other = ""
    lines.append(
        f"To compare it: another model's {name} per token only where the {same}{other}, on the "
        f"same text (digest:{fields.get('digest', '?')}), protocol ({report.protocol})"
        + (f" and context length ({length} tokens)." if length else ".")
    )
    return "\n".join(lines)
