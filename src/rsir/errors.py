"""One hierarchy of errors; every message tells the user what to change.

`RsirError` is the base of all errors that a user can correct: the shell prints the message without
a traceback and exits with the class's `exit_status` (1 failed, 2 wrong usage).
"""

from __future__ import annotations


class RsirError(Exception):
    """An error that the caller can correct; the message says how."""

    exit_status = 1


class UsageError(RsirError):
    """A wrong argument, option or name."""

    exit_status = 2


class DataError(RsirError):
    """A labelled set, a split or a folder of images is incomplete or inconsistent."""


class LeakageError(DataError):
    """Two parts of a split have an image in common."""


class ImageError(DataError):
    """An image cannot be read faithfully; code for many images skips, counts and lists it."""


class ModelError(RsirError):
    """A model is missing, foreign, damaged, or unsuitable for its use."""


class ArchiveError(RsirError):
    """An archive is missing, foreign, damaged, or belongs to another model."""


class UnknownIdError(ArchiveError):
    """The archive has no record with this id."""


class MissingExtraError(RsirError):
    """An optional library is not installed; the message names the command that installs it."""

    def __init__(self, feature: str, extra: str) -> None:
        super().__init__(f"{feature} needs the extra '{extra}': pip install 'rsir[{extra}]'")
        self.extra = extra
