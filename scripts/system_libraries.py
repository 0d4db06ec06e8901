"""Make sure that the libraries which pip cannot bring are there: FFmpeg and libpython for torchcodec, EGL for MuJoCo.

Looks for the libraries themselves, whatever put them there. What is missing is installed with apt-get where that needs
no password (as root), and is otherwise named with the one line that installs it; the exit status is then 1.
Uses the standard library only, because it runs before anything is installed.
"""

from __future__ import annotations

import ctypes
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain

# The libraries that torchcodec links, in the versions that FFmpeg 4, 5, 6, 7 and 8 give them.
FFMPEG_VERSIONS = {
    "avutil": (56, 57, 58, 59, 60),
    "avcodec": (58, 59, 60, 61, 62),
    "avformat": (58, 59, 60, 61, 62),
    "avdevice": (58, 59, 60, 61, 62),
    "avfilter": (7, 8, 9, 10, 11),
    "swscale": (5, 6, 7, 8, 9),
    "swresample": (3, 4, 4, 5, 6),
}
# Homebrew's folders are not on the loader's default path.
MACOS_FOLDERS = ("", "/opt/homebrew/lib/", "/usr/local/lib/")

Loads = Callable[[str], bool]


@dataclass(frozen=True)
class Requirement:
    """What the machine must offer, how to see that it does, and the packages that bring it."""

    what: str
    satisfied: Callable[[], bool]
    apt: tuple[str, ...]
    brew: tuple[str, ...] = ()


def loads(library: str) -> bool:
    """Say whether the dynamic loader finds and opens a library."""
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def ffmpeg_loads(system: str, load: Loads = loads) -> bool:
    """Say whether every library of one FFmpeg version that torchcodec supports can be opened."""
    return any(
        all(any(load(name) for name in _file_names(stem, version, system)) for stem, version in release)
        for release in zip(*([(stem, v) for v in versions] for stem, versions in FFMPEG_VERSIONS.items()), strict=True)
    )


def _file_names(stem: str, version: int, system: str) -> list[str]:
    if system == "Darwin":
        return [f"{folder}lib{stem}.{version}.dylib" for folder in MACOS_FOLDERS]
    return [f"lib{stem}.so.{version}"]


def headless_renderer_loads(load: Loads = loads, egl_starts: Callable[[], bool] | None = None) -> bool:
    """Say whether MuJoCo can draw without a screen: EGL that starts, or OSMesa."""
    egl = load("libEGL.so.1") and load("libGL.so.1") and (egl_starts or egl_starts_in_subprocess)()
    return egl or any(load(f"libOSMesa.so.{version}") for version in (8, 6))


def egl_starts_in_subprocess() -> bool:
    """Open an EGL display the way MuJoCo does, in a process of its own since a broken driver may end it."""
    probe = subprocess.run(
        [sys.executable, __file__, "--probe-egl"], capture_output=True, timeout=60, check=False, env=os.environ
    )
    return probe.returncode == 0


def open_egl_display() -> bool:
    """Initialise the first EGL device that allows it.

    Returns:
        Whether one did. MuJoCo draws on such a device, be it a GPU or Mesa's software renderer.
    """
    egl = ctypes.CDLL("libEGL.so.1")
    egl.eglGetProcAddress.restype = ctypes.c_void_p

    def function(name: bytes, result: type, *arguments: type) -> Callable[..., object]:
        address = egl.eglGetProcAddress(name)
        if not address:
            raise OSError(f"EGL lacks {name.decode()}")
        return ctypes.CFUNCTYPE(result, *arguments)(address)

    pointer, number = ctypes.c_void_p, ctypes.c_int
    query_devices = function(b"eglQueryDevicesEXT", ctypes.c_uint, number, pointer, pointer)
    get_display = function(b"eglGetPlatformDisplayEXT", pointer, ctypes.c_uint, pointer, pointer)
    initialize = function(b"eglInitialize", ctypes.c_uint, pointer, pointer, pointer)

    devices, count = (pointer * 16)(), number(0)
    if not query_devices(len(devices), devices, ctypes.byref(count)):
        return False
    platform_device = 0x313F  # EGL_PLATFORM_DEVICE_EXT
    displays = (get_display(platform_device, device, None) for device in devices[: count.value])
    return any(display and initialize(display, None, None) for display in displays)


def requirements(system: str) -> list[Requirement]:
    """List what this package needs on an operating system, as `platform.system()` names it."""
    ffmpeg = Requirement(
        "FFmpeg's shared libraries, version 4 to 8 (video)", lambda: ffmpeg_loads(system), ("ffmpeg",), ("ffmpeg",)
    )
    if system != "Linux":
        return [ffmpeg]
    python = f"libpython{sys.version_info.major}.{sys.version_info.minor}"
    return [
        ffmpeg,
        # Debian's own Python does without it; torchcodec's wheels are linked against it.
        Requirement(f"Python's shared library {python}.so.1.0 (video)", lambda: loads(f"{python}.so.1.0"), (python,)),
        Requirement(
            "EGL or OSMesa (drawing without a screen)", headless_renderer_loads, ("libegl1", "libgl1", "libosmesa6")
        ),
        Requirement("GLib (OpenCV, which LIBERO imports)", lambda: loads("libgthread-2.0.so.0"), ("libglib2.0-0",)),
    ]


def missing(needed: Sequence[Requirement]) -> list[Requirement]:
    """Return those requirements that the machine does not meet."""
    return [requirement for requirement in needed if not requirement.satisfied()]


def install_line(absent: Sequence[Requirement], system: str, has_apt: bool) -> str:
    """Write the one line that a person runs to install what is absent."""
    if system == "Darwin":
        return "brew install " + " ".join(chain.from_iterable(r.brew for r in absent))
    packages = " ".join(chain.from_iterable(r.apt for r in absent))
    if has_apt:
        return f"sudo apt-get update && sudo apt-get install -y {packages}"
    return f"install, with this system's package manager, what Debian calls: {packages}"


def apt_install(packages: Sequence[str]) -> None:
    """Install Debian packages without asking anything; needs root."""
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    install = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages]
    for command in (["apt-get", "update", "-qq"], install):
        subprocess.run(command, check=True, env=environment, capture_output=True, text=True)


def ensure(system: str | None = None) -> int:
    """Install or name what is missing.

    Returns:
        The exit status: 0 when everything is there.
    """
    system = system or platform.system()
    absent = missing(requirements(system))
    if not absent:
        return 0
    names = "; ".join(requirement.what for requirement in absent)
    has_apt = shutil.which("apt-get") is not None
    if system == "Linux" and has_apt and os.geteuid() == 0:
        packages = list(chain.from_iterable(requirement.apt for requirement in absent))
        print(f"This machine lacks {names}: installing {' '.join(packages)} with apt-get.", flush=True)
        try:
            apt_install(packages)
        except subprocess.CalledProcessError as error:
            print(f"{error.stderr}{' '.join(error.cmd)} failed (exit status {error.returncode}).", file=sys.stderr)
        absent = missing(absent)
        if not absent:
            return 0
        names = "; ".join(requirement.what for requirement in absent)
    line = install_line(absent, system, has_apt)
    print(f"This machine lacks {names}. Run this, then the same make command again:\n  {line}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    if sys.argv[1:] == ["--probe-egl"]:
        sys.exit(0 if open_egl_display() else 1)
    sys.exit(ensure())
