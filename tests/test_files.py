"""Paths that files name stay inside their folder."""

from pathlib import Path
from typing import Any

import pytest

from hilam_hf.files import path_inside

OUTSIDE = [
    "../x.mp4",
    "a/../../x.mp4",
    "/etc/passwd",
    "C:\\x.mp4",
    "..\\x.mp4",
    "\\\\host\\x.mp4",
    "a\\..\\..\\x.mp4",
    "..",
]


@pytest.mark.parametrize("relative", OUTSIDE)
def test_a_path_that_leads_out_of_its_folder_is_refused(tmp_path: Path, relative: str) -> None:
    with pytest.raises(ValueError, match=r"row 3: names .* which lies outside of"):
        path_inside(tmp_path, relative, where="row 3")


@pytest.mark.parametrize("relative", [None, 5, "", "a\0b", {"bytes": b""}])
def test_what_is_no_path_is_refused(tmp_path: Path, relative: Any) -> None:
    with pytest.raises(ValueError, match=r"row 3: got .*, expected the path of a file in"):
        path_inside(tmp_path, relative, where="row 3")


def test_a_path_inside_is_given_without_its_detours(tmp_path: Path) -> None:
    assert path_inside(tmp_path, "a/../b/c..d.mp4", where="") == tmp_path / "b" / "c..d.mp4"
    assert path_inside(str(tmp_path), "./a.mp4", where="") == tmp_path / "a.mp4"


def test_links_lead_out_for_reading_only(tmp_path: Path) -> None:
    """The Hub's cache and disks of videos are linked; what is deleted must lie in the folder itself."""
    (tmp_path / "elsewhere").mkdir()
    root = tmp_path / "root"
    root.mkdir()
    (root / "linked").symlink_to(tmp_path / "elsewhere")
    assert path_inside(root, "linked/a.mp4", where="") == root / "linked" / "a.mp4"
    with pytest.raises(ValueError, match="lies outside of"):
        path_inside(root, "linked/a.mp4", where="journal", follow_links=False)
