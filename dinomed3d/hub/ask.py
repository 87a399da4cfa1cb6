"""The first question to the Hugging Face hub, which ends soon where no network is."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from huggingface_hub import HfFileMetadata

log = logging.getLogger(__name__)

LONGEST_S = 10.0
"""Seconds to wait for the first answer. Timeouts of a connection count for each address of a host, and for none of
the time that looking up its name takes; without a network both can take minutes."""
PATIENCE_S = 2.0
"""Seconds after which it is said what is waited for."""
Answer = TypeVar("Answer")


def file_on_hub(repository: str, file: str, *, revision: str | None = None) -> HfFileMetadata:
    """What the hub says about a file, asked once.

    Args:
        repository: `owner/name`.
        file: its path there.
        revision: branch, tag or commit; None for the main branch.

    Raises:
        Exception: of many kinds of the hub's client; OfflineModeIsEnabled where HF_HUB_OFFLINE is set; TimeoutError.
    """
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url
    from huggingface_hub.utils import OfflineModeIsEnabled

    if constants.HF_HUB_OFFLINE:
        raise OfflineModeIsEnabled("HF_HUB_OFFLINE is set")
    url = hf_hub_url(repository, file, revision=revision)
    return first_answer(lambda: get_hf_file_metadata(url, timeout=LONGEST_S))


def first_answer(ask: Callable[[], Answer]) -> Answer:
    """The result of a question, or its error, within `LONGEST_S`.

    Raises:
        TimeoutError: there is no answer yet; the question is left to itself.
    """
    answers: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()

    def work() -> None:
        try:
            answers.put((ask(), None))
        except BaseException as error:
            answers.put((None, error))

    threading.Thread(target=work, name="question to the hub", daemon=True).start()
    try:
        answer, error = answers.get(timeout=min(PATIENCE_S, LONGEST_S))
    except queue.Empty:
        log.warning("waiting for an answer of the hub, at most %g s", LONGEST_S)
        try:
            answer, error = answers.get(timeout=max(0.0, LONGEST_S - PATIENCE_S))
        except queue.Empty:
            raise TimeoutError(f"no answer within {LONGEST_S:g} s") from None
    if error is not None:
        raise error
    return answer  # type: ignore[no-any-return]
