"""Run the shell in this process, so that Python imports rsir only once."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from typing import Any, NamedTuple
from unittest.mock import patch

from rsir import cli

TRAIN = ["--backbone", "resnet10t", "--weights", "none", "-s", "image_size=32", "-s", "workers=0"]


class Done(NamedTuple):
    status: int
    out: str
    err: str


Shell = Callable[..., Done]


def run(*arguments: Any, answer: str = "") -> Done:
    """Run one command; answer: the text on its stdin."""
    out, err = io.StringIO(), io.StringIO()
    words = ["rsir", *map(str, arguments)]
    with (
        patch.object(sys, "argv", words),
        patch.object(sys, "stdin", io.StringIO(answer)),
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        try:
            cli.main()
            status = 0
        except SystemExit as leaving:
            status = leaving.code if isinstance(leaving.code, int) else int(bool(leaving.code))
    return Done(status, out.getvalue(), err.getvalue())
