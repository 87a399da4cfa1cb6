"""What the Hugging Face hub's client raises, as sentences that say what to do."""

from __future__ import annotations

from collections.abc import Callable

from dinomed3d.hub.name import HubName
from dinomed3d.runtime.errors import UserError

BUSY = 429
"""HTTP status: too many requests."""


def _status(error: BaseException) -> int | None:
    """The HTTP status that the hub answered with; None if it did not answer."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    return status if isinstance(status, int) else None


def cannot_answer(error: Exception) -> str:
    """Why the hub cannot say anything now, so that a cached copy is what there is; empty if it did answer."""
    from huggingface_hub.utils import OfflineModeIsEnabled

    if isinstance(error, UserError):
        return ""
    if isinstance(error, OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set"
    status = _status(error)
    if status is None:
        return f"the hub cannot be reached: {_reason(error)}"
    return f"the hub answers with status {status}" if status >= 500 or status == BUSY else ""


def _reason(error: Exception) -> str:
    first = (str(error).strip() or type(error).__name__).splitlines()[0]
    return f"{first:.200}"


def explained(error: Exception, name: HubName, file: str, advice: Callable[[], str]) -> UserError:
    """The error of a look-up in one sentence.

    Args:
        error: what the hub's client raised.
        name: of the model.
        file: that was looked for.
        advice: says what to do where the repository has no such file.
    """
    from huggingface_hub import constants
    from huggingface_hub.utils import (
        EntryNotFoundError,
        GatedRepoError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    if isinstance(error, UserError):
        return error
    what, page = f"model {name}", f"{constants.ENDPOINT}/{name.repository}"
    login = "log in with 'hf auth login' or set HF_TOKEN"
    if reason := cannot_answer(error):
        return UserError(
            f"{what}: is not in the cache {constants.HF_HUB_CACHE}, and {reason}; look it up once with a network (from "
            "then on the cache has it), or give the path of a copy"
        )
    if isinstance(error, GatedRepoError):
        return UserError(f"{what}: is gated; ask for access on {page}, then {login}")
    if isinstance(error, RepositoryNotFoundError):
        return UserError(
            f"{what}: there is no such repository on the hub, or it is private; check the name, and for a private one "
            f"{login}"
        )
    if isinstance(error, RevisionNotFoundError):
        return UserError(
            f"{what}: has no revision {name.revision!r}; name a branch, a tag or a whole commit of {page}/commits/main"
        )
    if isinstance(error, EntryNotFoundError):
        return UserError(f"{what}: has no file {file}; {advice()}")
    return UserError(
        f"{what}: the hub refuses it with status {_status(error)} ({_reason(error)}); {login} with an account that "
        "may read it"
    )
