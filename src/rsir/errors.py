"""One hierarchy of errors; every message says what to change.

`RsirError` is everything that a person can put right: the shell prints its message without a
traceback and exits with the class's `exit_status` (1 failed, 2 wrong usage).
"""

from __future__ import annotations


class RsirError(Exception):
    """Something the caller can put right; the message says how."""

    exit_status = 1


class UsageError(RsirError):
    """An argument, an option or a name is wrong."""

    exit_status = 2


class DataError(RsirError):
    """A labelled set, a split or a folder of images is missing something or is inconsistent."""


class LeakageError(DataError):
    """The same content is in two parts of a split that must not share any."""


class ImageError(DataError):
    """One image cannot be read faithfully; whoever reads many counts it, lists it and goes on."""


class ModelError(RsirError):
    """A model file is missing, is not ours, is damaged, or does not fit what it is used for."""


class ArchiveError(RsirError):
    """An archive is missing, is not ours, is damaged, or belongs to another model."""


class UnknownIdError(ArchiveError):
    """An archive has no record of an id."""


class MissingExtraError(RsirError):
    """A library that only some users need is not installed; the message names the command."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} needs the extra '{extra}': pip install 'rsir[{extra}]'")
        self.extra = extra
