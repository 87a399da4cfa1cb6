"""Reads YAML in which everything is what it looks like: no key twice, no octal or sexagesimal numbers."""

from __future__ import annotations

from typing import Any

import yaml

INTEGER, MERGE = "tag:yaml.org,2002:int", "tag:yaml.org,2002:merge"


def read_plain_yaml(text: str) -> Any:
    """The contents of a YAML text; keys that are merged (``<<``) may be overridden.

    Raises:
        ValueError: it is not YAML, a key is there twice, or a number reads otherwise than it looks; the message
            says where.
    """
    try:
        return yaml.load(text, _Loader)
    except (yaml.YAMLError, RecursionError, KeyError, AttributeError) as error:  # these of !!bool x
        raise ValueError(f"is not YAML: {' '.join(str(error).split())}") from error


class _Loader(yaml.SafeLoader):
    """YAML's rules let the last of several keys win without a word, and read 010 as 8, 1:30 as 90."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._checked: set[int] = set()

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Merge ``<<``; afterwards a key that was written twice looks like one that was overridden."""
        if id(node) not in self._checked:
            self._checked.add(id(node))
            self._refuse_repeated(node)
        super().flatten_mapping(node)

    def _refuse_repeated(self, node: yaml.MappingNode) -> None:
        found: dict[Any, int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == MERGE:
                continue
            value, line = self.construct_object(key), key.start_mark.line + 1
            if value in found:
                raise ValueError(
                    f"has the key '{key.value}' twice, in lines {found[value]} and {line}; remove one of them"
                )
            found[value] = line


def _integer(loader: _Loader, node: yaml.ScalarNode) -> int:
    """A whole number whose decimal digits say its value.

    Raises:
        ValueError: it is octal or sexagesimal.
    """
    value, text = int(loader.construct_yaml_int(node)), node.value.replace("_", "")
    digits = text.lstrip("+-")
    if ":" in digits or (digits.isdecimal() and int(digits) != abs(value)):
        raise ValueError(
            f"line {node.start_mark.line + 1}: '{node.value}' is {value} in YAML; write {value}, or put it in quotes"
        )
    return value


_Loader.add_constructor(INTEGER, _integer)
