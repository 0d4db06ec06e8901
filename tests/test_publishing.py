"""What is told of folders and of text of unknown origin."""

from pathlib import Path

import pytest

from hilam_hf.publishing import public_name, public_values, table_cell


@pytest.mark.parametrize(
    ("source", "told"),
    [
        *(("org/hilam", "org/hilam"), ("all-MiniLM-L6-v2", "all-MiniLM-L6-v2"), ("lam/idm", "lam/idm"), ("", "")),
        *(("/disk/ada/runs/hilam", "hilam"), ("/disk/ada/runs/hilam/", "hilam"), ("../ada/runs/hilam", "hilam")),
        *(("~/runs/hilam", "hilam"), ("runs/ada/hilam", "hilam"), ("C:\\Users\\ada\\hilam", "hilam")),
    ],
)
def test_hub_ids_are_told_and_of_folders_the_last_name(source: str, told: str) -> None:
    assert public_name(source) == told


def test_a_folder_that_is_there_is_no_hub_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ada" / "hilam").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert public_name("ada/hilam") == public_name(Path("ada/hilam")) == "hilam"
    monkeypatch.chdir(tmp_path / "ada" / "hilam")
    assert public_name(".") == "hilam" and public_name("..") == "ada"


def test_paths_within_values_are_told_so_too() -> None:
    values = {"videos": "/disk/ada/videos", "lists": [("/disk/ada/a", 3)], "rate": 0.5, "text": "a/b", "none": None}
    assert public_values(values) == {"videos": "videos", "lists": [["a", 3]], "rate": 0.5, "text": "a/b", "none": None}


def test_a_table_cell_holds_no_html_and_no_further_cell() -> None:
    assert table_cell("<img src=x onerror=alert(1)> | a\n| b & c") == (
        "&lt;img src=x onerror=alert(1)&gt; \\| a \\| b &amp; c"
    )
