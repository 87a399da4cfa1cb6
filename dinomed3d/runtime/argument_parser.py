"""The parser of all console commands: argparse whose errors are one line and name what was probably meant."""

from __future__ import annotations

import argparse
import difflib
import re
import sys
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

_CHOICE = re.compile(r"invalid choice: '?(?P<word>.*?)'? \((?:choose|maybe).*?\)?$")


class ArgumentParser(argparse.ArgumentParser):
    """Argparse's parser; the same for the parsers of its verbs.

    An option that is not known is reported by the verb that does not know it, even where another one is missing.
    """

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse; unknown words are an error here and not of the parser above, which does not know the verb."""
        self._words: Sequence[str] = list(sys.argv[1:] if args is None else args)
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return found, unknown

    def error(self, message: str) -> NoReturn:
        """End the command with one line and exit code 2.

        Raises:
            SystemExit: always.
        """
        unknown = [] if "unrecognized" in message else self._unknown_options()
        if unknown and "arguments are required" in message:
            message = f"unrecognized arguments: {' '.join(unknown)}; {message}"
        meant = self._meant(message, unknown)
        self.exit(2, f"{self.prog}: error: {message}{meant} (all options: {self.prog} --help)\n")

    def _unknown_options(self) -> list[str]:
        """Words that look like long options and begin no option of this parser."""
        options = list(self._option_string_actions)
        words = [word.partition("=")[0] for word in getattr(self, "_words", ())]
        return [
            word
            for word in words
            if re.match(r"--[a-z]", word) and not any(o.startswith(word) for o in options)
        ]

    def _meant(self, message: str, unknown: Sequence[str]) -> str:
        """`; did you mean ...?`, or nothing where no known word is close."""
        choice = _CHOICE.search(message)
        if choice is not None:
            choices = [c for action in self._actions for c in map(str, action.choices or ())]
            return suggestion([choice["word"]], choices)
        if "unrecognized arguments: " in message:
            words = unknown or message.partition("unrecognized arguments: ")[2].split()
            options = [o for o in self._option_string_actions if len(o) > 2]
            return suggestion([w.partition("=")[0] for w in words if w.startswith("-")], options)
        return ""


def suggestion(words: Iterable[str], known: Iterable[str]) -> str:
    """The known word closest to each unknown one: `; did you mean --device?`.

    Args:
        words: that are not known.
        known: that could have been meant.

    Returns:
        Empty if none is close.
    """
    known = list(known)
    close = [match for word in words for match in difflib.get_close_matches(word, known, 1, 0.6)]
    return f"; did you mean {' '.join(dict.fromkeys(close))}?" if close else ""
