"""Reading, renaming and checking checkpoints that were published elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from hilam_hf.models.published import check_weights, listed, read_checkpoint, rename

WEIGHTS = {"a": torch.arange(600.0), "b": torch.ones(2, 3)}


def test_tensors_are_read_as_they_were_written(tmp_path: Path) -> None:
    torch.save(WEIGHTS, tmp_path / "net.pth")
    read = read_checkpoint(tmp_path / "net.pth", "a net")
    assert read.keys() == WEIGHTS.keys()
    assert all(torch.equal(read[name], WEIGHTS[name]) for name in WEIGHTS)


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "net.pt"
    torch.save(WEIGHTS, file)
    whole = file.read_bytes()
    for content in (whole[:1000], whole[: len(whole) // 2], b"", b"\x80\x02not a pickle", b"<html>404</html>"):
        file.write_bytes(content)
        with pytest.raises(ValueError, match=r"net\.pt: (damaged, or no checkpoint|.*or is no checkpoint)"):
            read_checkpoint(file, "a net")
    tensors = tmp_path / "net.safetensors"
    tensors.write_bytes(whole)
    with pytest.raises(ValueError, match=r"net\.safetensors: damaged"):
        read_checkpoint(tensors, "a net")


@pytest.mark.parametrize("content", [torch.zeros(3), {}, [torch.zeros(2)], {"model": {"a": torch.zeros(1)}}, {"a": 1}])
def test_other_contents_are_refused(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "net.pt")
    with pytest.raises(ValueError, match="expected a state dict: tensors by name"):
        read_checkpoint(tmp_path / "net.pt", "a net")


def test_whole_names_are_renamed_by_the_first_pattern_that_fits() -> None:
    renames = [(r"a\.(\d)", r"layers.\1"), (r"a\.(\d+)", r"others.\1"), (r"b", r"bias")]
    assert rename("a.3", renames) == "layers.3"
    assert rename("a.12", renames) == "others.12"
    assert rename("ab", renames) is None


def test_every_difference_is_named() -> None:
    expected = {"a": torch.ones(2), "b": torch.ones(3), "c": torch.ones(1), "count": torch.tensor(0)}
    check_weights({name: value.clone() for name, value in expected.items()}, expected, "a net", "")
    weights = {"a": torch.ones(5), "c": torch.ones(1, dtype=torch.int8), "count": torch.tensor(7), "d": torch.ones(1)}
    with pytest.raises(ValueError, match="those of a net") as caught:
        check_weights(weights, expected, "a net", "Do that.")
    for part in ("1 missing: b", "1 unexpected: d", "a (5,) instead of (2,)", "1 of integers: c.", "Do that."):
        assert part in str(caught.value)


def test_long_lists_are_cut() -> None:
    assert listed(list("abc")) == "a, b, c"
    assert listed(list("abcdefg")) == "a, b, c, d, e, ..."
