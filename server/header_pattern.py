"""Which of a caller's headers are parameters of its requests too: a pattern over their names, as Triton has it.

RE2, whose expressions Triton takes too, needs time in proportion to the text: no name that a stranger makes up costs
more than its length.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

REMEMBERED_NAMES = 1024
REMEMBERED_NAME_LENGTH = 64
"""What strangers make us remember is bounded: once it is full, other names are looked at each time."""


CREDENTIALS = frozenset({"authorization", "proxy-authorization", "cookie"})
"""Headers that no pattern matches: they would show in logs and traces."""


@dataclass(frozen=True, slots=True)
class HeaderPattern:
    """A regular expression that a part of a header's name has to match, in small or capital letters alike.

    Raises `ValueError` where it is no expression of RE2.
    """

    text: str
    never: frozenset[str] = CREDENTIALS
    """Names, in small letters, that it does not match whatever it says: those of headers with secrets."""
    _search: Callable[[str], object] = field(init=False, repr=False, compare=False)
    _remembered: dict[str, bool] = field(init=False, repr=False, compare=False, default_factory=dict)

    def __post_init__(self) -> None:
        import re2  # loaded where a flag asks for it, and nowhere else

        options = re2.Options()
        options.case_sensitive = False
        options.log_errors = False
        try:
            pattern = re2.compile(self.text, options)
        except re2.error as error:
            reason = error.args[0].decode("utf-8", "replace")
            raise ValueError(f"'{self.text}' is not a regular expression of RE2: {reason}") from None
        object.__setattr__(self, "_search", pattern.search)

    def matches(self, name: str) -> bool:
        """The same few names come again and again, and RE2 takes 2 µs for one: they are remembered."""
        known = self._remembered.get(name)
        if known is None:
            known = name.lower() not in self.never and self._search(name) is not None
            if len(name) <= REMEMBERED_NAME_LENGTH and len(self._remembered) < REMEMBERED_NAMES:
                self._remembered[name] = known
        return known
