"""Where LIBERO's meshes, textures and scenes are: a given folder, an installed one, or the Hub."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from .package import package_root

ASSETS_VARIABLE = "HILAM_LIBERO_ASSETS"
HUB_REPOSITORY = "lerobot/libero-assets"
DOWNLOAD_FOLDER = Path("~/.cache/libero/assets")
"""Where hf-libero puts what it downloads."""
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
    installed package's own `assets`, the folder `~/.cache/libero/assets` to which hf-libero downloads, and the Hub's
    `lerobot/libero-assets` (kept in the Hub's cache). The first two must be whole where they are given.

    Args:
        folder: Folder of assets, which may hold them in one subfolder.

    Returns:
        The folder.

    Raises:
        FileNotFoundError: A given folder lacks something, or there are no assets anywhere; the message says what was
            looked for and where assets can be had.

    Example:
        >>> find_assets("libero_assets")  # doctest: +SKIP
    """
    return local_assets(folder) or _from_hub()


def local_assets(folder: str | Path | None = None) -> Path | None:
    """Find LIBERO's assets on this machine; None where there are none, see `find_assets`.

    Raises:
        FileNotFoundError: A given folder lacks something.
    """
    given = folder if folder is not None else os.environ.get(ASSETS_VARIABLE)
    if given:
        return _checked(Path(given).expanduser())
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
        f"give a folder that holds {', '.join(PARTS)} by --assets or {ASSETS_VARIABLE}; "
        f"they are in the Hub's {HUB_REPOSITORY} and in the folder libero/libero/assets of LIBERO's repository"
    )
