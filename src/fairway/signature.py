"""The line that says how a number was made: ``key:value`` pairs joined by ``|``.

Values are percent-escaped, so that ``parse(str(signature)) == signature`` for any text.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from fairway.errors import InputError

Value = str | int | float | bool | None

ORDER = (
    "kind", "model", "revision", "weights", "adapter", "dtype", "quant", "cache", "tok", "protocol",
    "prefix", "special", "length", "stride", "windows", "state", "order", "eos", "segment", "pll",
    "words", "join", "norm", "normaliser", "chat", "context", "start", "data", "split", "digest",
    "documents", "unit", "bytes", "agg", "seed", "version",
)  # fmt: skip
"""The order of the fields in the line; any other key comes behind them, in its given order."""

UNKNOWN = "unknown"
"""Value of a field that another tool's log does not record."""

_ESCAPED = {c: f"%{ord(c):02X}" for c in "%|: \t\n\r"}


def escape(value: str) -> str:
    """Escape what would break the line: ``% | :`` , blanks and control characters."""
    out = []
    for char in value:
        if char in _ESCAPED:
            out.append(_ESCAPED[char])
        elif not char.isprintable():
            out.extend(f"%{byte:02X}" for byte in char.encode("utf-8", "surrogatepass"))
        else:
            out.append(char)
    return "".join(out)


def unescape(value: str) -> str:
    """Undo `escape`.

    Raises:
        InputError: when a percent sign is not followed by two hexadecimal digits.
    """
    out = bytearray()
    position = 0
    while position < len(value):
        char = value[position]
        if char == "%":
            try:
                out.append(int(value[position + 1 : position + 3], 16))
            except ValueError:
                raise InputError(
                    f"The signature value {value!r} holds a '%' that escapes nothing."
                ) from None
            position += 3
        else:
            out += char.encode("utf-8", "surrogatepass")
            position += 1
    return out.decode("utf-8", "surrogatepass")


def _text(value: Value) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)


@dataclass(frozen=True, slots=True)
class Signature:
    """Everything that changes the number, and nothing else, in a fixed order.

    Attributes:
        fields: ``(key, value)`` pairs; values are text.
    """

    fields: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, values: Mapping[str, Value]) -> Signature:
        """Build one from plain values: None is left out, booleans become yes and no."""
        rank = {key: index for index, key in enumerate(ORDER)}
        kept = [(key, _text(value)) for key, value in values.items() if value is not None]
        return cls(tuple(sorted(kept, key=lambda pair: rank.get(pair[0], len(ORDER)))))

    def with_(self, **values: Value) -> Signature:
        """Return a copy with fields added or replaced; None takes one away."""
        return Signature.of({**dict(self.fields), **values})

    def without(self, *keys: str) -> Signature:
        """Return a copy that lacks the given fields."""
        return Signature(tuple(pair for pair in self.fields if pair[0] not in keys))

    def __getitem__(self, key: str) -> str:
        return dict(self.fields)[key]

    def get(self, key: str) -> str | None:
        """Return the value of a field, or None where it is absent."""
        return dict(self.fields).get(key)

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(self.fields)

    def __str__(self) -> str:
        return "|".join(f"{escape(key)}:{escape(value)}" for key, value in self.fields)

    def short(self) -> str:
        """Give the few fields that a table has room for; it cannot be parsed back."""
        keys = ("model", "protocol", "prefix", "length", "stride", "dtype", "data", "version")
        kept = dict(self.fields)
        return "|".join(f"{key}:{escape(kept[key])}" for key in keys if key in kept)


def parse(line: str) -> Signature:
    """Read a signature back from its line.

    Raises:
        InputError: when the line is not ``key:value`` pairs joined by ``|``.
    """
    pairs = []
    for part in line.strip().split("|") if line.strip() else ():
        key, colon, value = part.partition(":")
        if not colon or not key:
            raise InputError(
                f"{part!r} is not a key:value pair of a signature; copy the whole line as printed."
            )
        pairs.append((unescape(key), unescape(value)))
    return Signature(tuple(pairs))


def diff(a: Signature, b: Signature, ignore: Iterable[str] = ()) -> dict[str, tuple[str, str]]:
    """Name the fields in which two signatures differ, with both values (empty where absent)."""
    left, right, skipped = dict(a.fields), dict(b.fields), set(ignore)
    keys = [*left, *(key for key in right if key not in left)]
    return {
        key: (left.get(key, ""), right.get(key, ""))
        for key in keys
        if key not in skipped and left.get(key) != right.get(key)
    }
