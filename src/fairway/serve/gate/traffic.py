"""How many requests are in the house, and when there will be room."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

WINDOW = 60.0
"""Busy seconds whose answers make the pace."""
LONGEST = 600
"""Seconds that a client is told to wait at most."""


@dataclass(slots=True)
class Traffic:
    """Requests that are taken in and not yet answered.

    Attributes:
        most: of them at a time.
        stopping: the server takes no more in.
        clock: gives seconds.
    """

    most: int
    stopping: bool = False
    clock: Callable[[], float] = time.monotonic
    _within: dict[int, float] = field(default_factory=dict)
    _left: deque[float] = field(default_factory=lambda: deque(maxlen=1024))
    _told: deque[float] = field(default_factory=deque)
    _number: int = 0
    _busy: float = 0.0
    _since: float = 0.0

    def __len__(self) -> int:
        return len(self._within)

    def enter(self) -> int | None:
        """Take a request in; None where there is no room."""
        if len(self._within) >= self.most:
            return None
        if not self._within:
            self._since = self.clock()
        self._number += 1
        self._within[self._number] = self.clock()
        return self._number

    def leave(self, number: int) -> None:
        """Let an answered request go."""
        self._left.append(self._time())
        self._within.pop(number)
        if not self._within:
            self._busy += self.clock() - self._since

    def wait(self) -> int:
        """Estimate when there is room for one that was refused, in seconds, and remember it.

        An answer makes room for one. At the pace of the last busy minute, those who were told to
        wait before, and are not yet back, have their places first. Where none was answered in that
        minute, an answer takes as long as the oldest request is old.
        """
        now = self.clock()
        while self._left and self._time() - self._left[0] > WINDOW:
            self._left.popleft()
        self._told = deque(one for one in self._told if one > now)
        if len(self._left) > 1:
            pace = (self._time() - self._left[0]) / len(self._left)
        else:
            pace = now - next(iter(self._within.values()), now)
        seconds = max(1, min(LONGEST, math.ceil(pace * (1 + len(self._told)))))
        self._told.append(now + seconds)
        return seconds

    def _time(self) -> float:
        """Seconds in which there was something to answer."""
        return self._busy + (self.clock() - self._since if self._within else 0.0)
