"""Reads XML from other programs safely: no document types, no entities, bounded in size, depth and elements."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from pointseg.images.readers.frame import ImagesError

MOST_BYTES, MOST_DEPTH, MOST_ELEMENTS = 2**28, 64, 2_000_000


class _Kept:
    """Builds a tree of the elements with some names alone."""

    def __init__(self, path: Path, names: Collection[str]) -> None:
        self.path, self.names, self.tree = path, names, TreeBuilder()
        self.depth = self.passed_over = self.count = 0

    def start(self, name: str, attributes: Mapping[str, str]) -> None:
        self.depth += 1
        if self.depth > MOST_DEPTH:
            raise ImagesError(
                f"{self.path}: has elements in each other {MOST_DEPTH} deep; is it damaged?"
            )
        if self.passed_over or name not in self.names:
            self.passed_over += 1
            return
        self.count += 1
        if self.count > MOST_ELEMENTS:
            raise ImagesError(f"{self.path}: has more than {MOST_ELEMENTS} elements")
        self.tree.start(name, dict(attributes))

    def end(self, name: str) -> None:
        self.depth -= 1
        if self.passed_over:
            self.passed_over -= 1
        else:
            self.tree.end(name)

    def data(self, text: str) -> None:
        if not self.passed_over and self.depth:
            self.tree.data(text)

    def refuse(self, *_: object) -> None:
        raise ImagesError(
            f"{self.path}: declares a document type or entities, which no export of cameras does; it is not read"
        )


def read_xml(path: Path, names: Collection[str]) -> Element:
    """The root of an XML file, with the elements of some names; others are passed over with what is in them.

    Args:
        path: the file.
        names: of the elements, the root's among them.

    Raises:
        ImagesError: it is missing, too large, damaged, or declares a document type.
    """
    kept, parser = _Kept(path, names), expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler, parser.EndElementHandler = kept.start, kept.end
    parser.CharacterDataHandler = kept.data
    parser.StartDoctypeDeclHandler = parser.EntityDeclHandler = kept.refuse
    try:
        if path.stat().st_size > MOST_BYTES:
            raise ImagesError(
                f"{path}: has more than {MOST_BYTES >> 20} MiB; is it a list of cameras?"
            )
        with open(path, "rb") as stream:
            parser.ParseFile(stream)
    except OSError as error:
        raise ImagesError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (expat.ExpatError, ValueError, LookupError) as error:
        raise ImagesError(f"{path}: cannot be read as XML: {error}") from error
    if not kept.count:
        raise ImagesError(f"{path}: has none of the elements {', '.join(sorted(names)[:5])}, ...")
    return kept.tree.close()
