"""Names of models on the Hugging Face hub: `hf:owner/name`, a revision, a file. Imports nothing heavy."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import PurePath

from dinomed3d.runtime.errors import UserError

PREFIX = "hf:"
"""What begins with it is a name on the hub; a file of such a name is written `./hf:...`."""
FORM = "hf:owner/name, hf:owner/name@revision or hf:owner/name/file"
DEFAULT = "main"
"""The branch that is read where no revision is named."""
_PART = r"[A-Za-z0-9](?:[\w.-]*[A-Za-z0-9_])?"
_REVISION = r"refs/(?:pr|convert)/[\w.-]+|[\w.-]+"
_NAME = re.compile(
    rf"(?P<repository>{_PART}/{_PART})(?:@(?P<revision>{_REVISION}))?(?:/(?P<file>[^/].*))?",
    re.ASCII,
)
_PAGE = re.compile(r"https?:/+(?:www\.)?(?:huggingface\.co|hf\.co)/+(?P<name>[^/]+/[^/?#]+)")
LONGEST = 96
"""Characters of `owner/name` that the hub allows."""


@dataclass(frozen=True)
class HubName:
    """A model on the hub, as a user names it."""

    repository: str
    """`owner/name`."""
    revision: str = DEFAULT
    """Branch, tag or commit."""
    file: str | None = None
    """File in the repository; None for the one that the command looks for."""

    def __str__(self) -> str:
        at = "" if self.revision == DEFAULT else f"@{self.revision}"
        return f"{PREFIX}{self.repository}{at}" + ("" if self.file is None else f"/{self.file}")


def is_hub_name(source: str | os.PathLike[str]) -> bool:
    """Whether a setting names a model on the hub instead of a path."""
    return str(source).startswith(PREFIX)


def hub_name(source: str | os.PathLike[str]) -> HubName | None:
    """The model on the hub that a setting names; None for a path.

    Raises:
        UserError: it begins as a name and is none, or is the address of a page of the hub.
    """
    if not isinstance(source, str | os.PathLike):
        raise UserError(f"a model must be a path or {FORM}, got {type(source).__name__}")
    text = PurePath(source).as_posix() if isinstance(source, os.PathLike) else source
    if page := _PAGE.match(text):
        raise UserError(f"model {text}: is a web page; write {PREFIX}{page['name']}")
    if not text.startswith(PREFIX):
        return None
    found = _NAME.fullmatch(text.removeprefix(PREFIX).lstrip("/"))  # hf://owner/name, too
    if found is None or not _is_valid(found["repository"], found["revision"], found["file"]):
        raise UserError(
            f"model {text}: must be {FORM}; a model on this computer is named by its path"
        )
    return HubName(found["repository"], found["revision"] or DEFAULT, found["file"])


def check_repository(text: str, option: str) -> str:
    """A repository to write to, `owner/name` with or without `hf:`.

    Raises:
        UserError: not of that form.
    """
    found = _NAME.fullmatch(text.removeprefix(PREFIX))
    valid = found is not None and _is_valid(found["repository"], None, None)
    if found is None or not valid or found["revision"] or found["file"]:
        raise UserError(
            f"{option} must be owner/name, the repository on the Hugging Face hub, got {text!r}"
        )
    return found["repository"]


def _is_valid(repository: str, revision: str | None, file: str | None) -> bool:
    """The hub's rules of names, and no path that leads out of the repository."""
    owner = repository.split("/")[0]
    return (
        len(repository) <= LONGEST
        and "--" not in repository
        and ".." not in repository
        and not repository.endswith(".git")
        and owner not in ("datasets", "spaces", "models")
        and (revision is None or ".." not in revision)
        and not (file is not None and {"", ".", ".."} & set(file.split("/")))
        and not (file is not None and "\\" in file)
    )
