"""Upload of a model and its card to the Hugging Face hub, in one commit, with the account that is logged in."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from dinomed3d.hub.ask import first_answer
from dinomed3d.hub.local_model import ModelKind
from dinomed3d.hub.model_card import LICENCE_FILE, is_written_by_somebody
from dinomed3d.hub.name import PREFIX, check_repository
from dinomed3d.runtime.errors import UserError

log = logging.getLogger(__name__)

CARD = "README.md"
LARGEST_CARD = 1 << 20
MIB = 1 << 20


def check_push(repository: str | None, *, private: bool) -> str | None:
    """What can be known of an upload before hours of work: its repository's name, and that somebody is logged in.

    Args:
        repository: as the user named it; None: nothing is to be uploaded.
        private: whether the repository must be private.

    Returns:
        `owner/name`; None if nothing is to be uploaded.

    Raises:
        UserError: not of that form; nobody is logged in; uploads are forbidden; --private without --push.
    """
    if repository is None:
        if private:
            raise UserError("--private: is for --push OWNER/NAME")
        return None
    from huggingface_hub import constants, get_token

    repository = check_repository(repository, "--push")
    if constants.HF_HUB_OFFLINE:
        raise UserError(f"--push {repository}: HF_HUB_OFFLINE is set, which forbids every upload")
    if get_token() is None:
        raise UserError(
            f"--push {repository}: nobody is logged in; run 'hf auth login' once, or set HF_TOKEN, with a token that "
            "may write"
        )
    return repository


def push_package(
    package: Path,
    repository: str,
    *,
    kind: ModelKind,
    card: bytes | None,
    make_card: Callable[[str], bytes],
    licence: bytes | None,
    private: bool,
    command: str,
) -> str:
    """Upload a package under its kind's name, with its card and its licence.

    Args:
        package: the file.
        repository: `owner/name`.
        kind: what the package is.
        card: text of somebody's own; None: it is made.
        make_card: makes the card for the model's name on the hub.
        licence: its text; None: the package has none.
        private: whether the repository must be private.
        command: that packages, for messages.

    Returns:
        The model's name on the hub, with its commit.

    Raises:
        UserError: as `push`.
    """
    name = f"{PREFIX}{repository}"
    files: dict[str, Path | bytes] = {kind.file: package}
    files[CARD] = make_card(name) if card is None else card
    if licence is not None:
        files[LICENCE_FILE] = licence
    again = f"{command} {package} --push {repository}{' --private' if private else ''}"
    commit = push(repository, files, private=private, again=again, keep_card=card is None)
    return f"{name}@{commit}"


def push(
    repository: str,
    files: Mapping[str, Path | bytes],
    *,
    private: bool,
    again: str,
    keep_card: bool,
) -> str:
    """Upload files; a repository that does not exist is made. What is uploaded, and where, is logged first.

    Args:
        repository: `owner/name`.
        files: name in the repository -> path or content.
        private: whether the repository must be private.
        again: the command that uploads again, for messages.
        keep_card: whether a card that somebody wrote in the repository stays.

    Returns:
        The commit.

    Raises:
        UserError: nobody is logged in, or may not write there; a public repository where a private one is wanted;
            the upload was not finished.
    """
    from huggingface_hub import CommitOperationAdd, HfApi, constants

    check_push(repository, private=private)
    api = HfApi()
    try:
        is_private = _repository(api, repository, private)
        if keep_card and _has_card(repository):
            files = {name: file for name, file in files.items() if name != CARD}
        sizes = ", ".join(f"{name} ({_size(file) / MIB:,.2f} MiB)" for name, file in files.items())
        log.warning(
            "uploading to %s/%s, which is %s: %s",
            constants.ENDPOINT,
            repository,
            "private" if is_private else "PUBLIC",
            sizes,
        )
        adds = [CommitOperationAdd(name, _content(file)) for name, file in files.items()]
        done = api.create_commit(repository, adds, commit_message="Model and card")
        _compare(api, repository, done.oid, files)
    except UserError:
        raise
    except Exception as error:  # the hub's client raises many kinds, from OSError to its own
        raise _explained(error, repository, again) from error
    return str(done.oid)


def _repository(api: Any, repository: str, private: bool) -> bool:
    """Make the repository unless it exists; whether it is private."""
    from huggingface_hub.utils import RepositoryNotFoundError

    try:
        found = first_answer(lambda: api.model_info(repository))
    except RepositoryNotFoundError:
        api.create_repo(repository, private=True if private else None, exist_ok=True)
        found = api.model_info(repository)
    if private and not found.private:
        raise UserError(
            f"--push {repository}: the repository is public, and --private was asked for; make it private in its "
            "settings, or name another"
        )
    return bool(found.private)


def _has_card(repository: str) -> bool:
    """Whether a repository has a card that somebody wrote, which is said."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.utils import EntryNotFoundError

    try:
        with open(hf_hub_download(repository, CARD), "rb") as stream:
            there = stream.read(LARGEST_CARD).decode("utf-8", "replace")
    except EntryNotFoundError:
        return False
    if not is_written_by_somebody(there):
        return False
    log.warning("%s of %s was written by somebody and stays; --card replaces it", CARD, repository)
    return True


def _compare(api: Any, repository: str, commit: str, files: Mapping[str, Path | bytes]) -> None:
    """Ask the hub whether it has the large files as they are here."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    for name, file in files.items():
        said = get_hf_file_metadata(hf_hub_url(repository, name, revision=commit)).etag or ""
        if len(said) == 64 and said != _sha256(file):
            raise UserError(
                f"--push {repository}: {name} is another file on the hub; upload it again"
            )


def _content(file: Path | bytes) -> str | bytes:
    return file if isinstance(file, bytes) else str(file)


def _size(file: Path | bytes) -> int:
    return len(file) if isinstance(file, bytes) else file.stat().st_size


def _sha256(file: Path | bytes) -> str:
    if isinstance(file, bytes):
        return hashlib.sha256(file).hexdigest()
    digest = hashlib.sha256()
    with open(file, "rb") as stream:
        while block := stream.read(MIB):
            digest.update(block)
    return digest.hexdigest()


def _explained(error: Exception, repository: str, again: str) -> UserError:
    """The error of an upload in one sentence."""
    while isinstance(error.__cause__, Exception):  # threads of the client wrap what happened
        error = error.__cause__
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403, 404):
        return UserError(
            f"--push {repository}: the account that is logged in may not write there (status {status}); give your own "
            "user or organization as owner, and a token that may write ('hf auth login')"
        )
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return UserError(
        f"--push {repository}: the upload was not finished ({reason:.200}); once the hub can be reached: {again}"
    )
