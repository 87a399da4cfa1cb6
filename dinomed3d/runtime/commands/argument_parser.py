"""The parser of all console commands: argparse whose errors are one line and name what was probably meant."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import Any, NoReturn

from dinomed3d.runtime.messages.suggestion import suggestion

_STOPS: ContextVar[bool] = ContextVar("stops", default=False)
"""Whether parsers are handed to `parser_of` instead of being used."""
_CHOICE = re.compile(r"invalid choice: '?(?P<word>.*?)'? \((?:choose|maybe).*?\)?$")


class ArgumentParser(argparse.ArgumentParser):
    """Argparse's parser; the same for the parsers of its verbs.

    An option that is not known is reported by the verb that does not know it, even where another one is missing.
    """

    def __init__(self, *words: Any, example: str = "", **settings: Any) -> None:
        """As argparse's.

        Args:
            words: as argparse takes them.
            example: a command that works, for the end of ``--help`` and for messages about what is missing.
            settings: as argparse takes them.
        """
        super().__init__(*words, **settings)
        self.example = example

    def format_help(self) -> str:
        """As argparse's, with the example at the end."""
        text = super().format_help()
        return f"{text}\nexample:\n  {self.example}\n" if self.example else text

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse; unknown words are an error here and not of the parser above, which does not know the verb."""
        if _STOPS.get():
            raise _Stopped(self)
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
        if self.example and "arguments are required" in message:
            meant += f"; example: {self.example}"
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


def port_number(text: str) -> int:
    """The type of an option that takes a port, 0 for any that is free.

    Raises:
        ArgumentTypeError: it is no port.
    """
    if not (text.isascii() and text.isdecimal() and int(text) < 2**16):
        raise argparse.ArgumentTypeError(f"must be a port from 0 to 65535, got {text!r}")
    return int(text)


class _Stopped(BaseException):
    """Carries a parser out of the command that was about to use it."""

    def __init__(self, parser: ArgumentParser) -> None:
        self.parser = parser


def parser_of(main: Callable[[list[str]], object]) -> ArgumentParser:
    """The parser of a command, which is stopped where it begins to parse.

    Args:
        main: the function that a console command runs; it takes the words after the command's name.

    Raises:
        RuntimeError: it parses nothing.
    """
    token = _STOPS.set(True)
    try:
        main([])
    except _Stopped as stopped:
        return stopped.parser
    finally:
        _STOPS.reset(token)
    raise RuntimeError(f"{main.__module__}: parses no arguments")
