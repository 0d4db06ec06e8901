"""Damage that decoders hide: FFmpeg fills broken parts of a picture from others, and only its log says so."""

from __future__ import annotations

import logging
import re
import shutil
import subprocess
from functools import lru_cache
from pathlib import Path

logger = logging.getLogger(__name__)

# Lines of the output, about times and not about pictures.
_OF_OUTPUT = re.compile(r"\[(null|out|vost)\b")


def reported_damage(path: str | Path) -> str | None:
    """What FFmpeg reports while it decodes a whole video.

    torchcodec gives the repaired frames without a word, so this takes the program `ffmpeg`; where it is not installed,
    that is logged once, and nothing is reported. Not all damage is noticed: a changed bit may give another valid
    picture.

    Returns:
        The first message; None where there is none.
    """
    program = _ffmpeg()
    if program is None:
        return None
    options = ["-nostdin", "-v", "error", "-threads", "1"]
    source = ["-protocol_whitelist", "file", "-i", f"file:{Path(path).absolute()}", "-map", "0:v:0", "-f", "null", "-"]
    run = subprocess.run([program, *options, *source], capture_output=True, check=False)
    lines = run.stderr.decode(errors="replace").splitlines()
    messages = [re.sub(r"^\[[^\]]*\] ", "", line) for line in lines if not _OF_OUTPUT.match(line)]
    if not messages and run.returncode:
        messages = [f"ffmpeg ended with {run.returncode}"]
    return messages[0] if messages else None


@lru_cache
def _ffmpeg() -> str | None:
    program = shutil.which("ffmpeg")
    if program is None:
        logger.warning(
            "the program ffmpeg is not installed: damage in the middle of videos is found only where nothing can be "
            "decoded; install it with `apt-get install -y ffmpeg`"
        )
    return program
