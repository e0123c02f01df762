"""The hub of pretrained weights (Hugging Face), asked once before anything is fetched from it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

_SWITCH = threading.Lock()
_PATIENCE = 5.0
"""Seconds that the hub has to answer; our choice. Its own library tries for a minute."""


@contextmanager
def hub_or_cache() -> Iterator[str]:
    """While the hub cannot be reached, use only what was fetched from it before.

    The value is a sentence about that, "" if the hub answers.
    """
    from huggingface_hub import constants

    # One at a time, because the library has one switch for the whole process.
    with _SWITCH:
        before = constants.HF_HUB_OFFLINE
        silence = "" if before else _silence(constants.ENDPOINT)
        constants.HF_HUB_OFFLINE = before or bool(silence)
        told = f"HF_HUB_OFFLINE is set, so {constants.ENDPOINT} is not asked" if before else silence
        try:
            yield told
        finally:
            constants.HF_HUB_OFFLINE = before


def _silence(endpoint: str) -> str:
    from huggingface_hub import get_session

    try:
        get_session().head(endpoint, timeout=_PATIENCE)
    except Exception as error:  # of the hub's HTTP client, which its versions have changed twice
        return f"{endpoint} cannot be reached ({error or type(error).__name__})"
    return ""
