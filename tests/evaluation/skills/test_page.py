from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from hilam_hf.evaluation.skills.page import SkillsPageEntry, write_skills_page
from hilam_hf.locks import FolderInUseError
from tests.demo.test_page import EVIL, Page


def picture(value: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (20, 10), value).save(buffer, "PNG")
    return buffer.getvalue()


def entries(count: int, **changes) -> Iterator[SkillsPageEntry]:
    for index in range(count):
        arguments = {
            "episode": f"droid_{index:04d}",
            "timeline": picture(index),
            "instruction": f"Put cup {index} down",
            "seconds": 30.0,
            "num_segments": {1: 10, 2: 3},
        }
        yield SkillsPageEntry(**(arguments | changes))


def images(page: Page) -> list[dict[str, str | None]]:
    return [image for image in page.of("img") if image.get("src")]


def test_a_short_page_has_its_pictures_inside(tmp_path):
    page = Page(write_skills_page(tmp_path / "skills.html", entries(3), title="Skills of DROID"))
    assert len(images(page)) == 3
    assert all(address.startswith("data:image/png") for address in page.addresses())
    text = page.sections[""]
    for expected in (
        *("Skills of DROID", "Put cup 2 down", "droid_0002", "30 s \N{MIDDLE DOT} stage 1: 10 segments"),
        *("3 episodes, 30 segments of stage 1, 9 segments of stage 2", "1 min 30 s of video"),
    ):
        assert expected in text
    assert [file.name for file in tmp_path.iterdir()] == ["skills.html"]


def test_a_long_page_has_its_pictures_beside_it_in_order(tmp_path):
    path = write_skills_page(tmp_path / "my skills.html", entries(12), max_inlined=4)
    page = Page(path)
    shown = images(page)
    assert [image["alt"] for image in shown] == [f"Skill timeline of droid_{index:04d}" for index in range(12)]
    assert all(image["loading"] == "lazy" for image in shown)
    assert all((image["src"] or "").startswith("my%20skills_images/") for image in shown)
    for index, image in enumerate(shown):
        file = tmp_path / (image["src"] or "").replace("%20", " ")
        assert file.read_bytes() == picture(index)
    assert path.stat().st_size < 30_000


def test_exactly_as_many_as_fit_stay_inside(tmp_path):
    page = Page(write_skills_page(tmp_path / "skills.html", entries(4), max_inlined=4))
    assert all((image["src"] or "").startswith("data:") for image in images(page))


def test_an_episode_without_an_instruction_goes_by_its_id(tmp_path):
    page = Page(write_skills_page(tmp_path / "skills.html", entries(1, instruction=None)))
    assert page.sections[""].count("droid_0000") == 1
    assert [element.get("data-search") for element in page.of("article")] == [" droid_0000"]


def test_everything_is_escaped(tmp_path):
    changes = {"episode": EVIL, "instruction": EVIL}
    page = Page(write_skills_page(tmp_path / "skills.html", entries(1, **changes), title=EVIL))
    assert len(page.of("script")) == 1
    assert "<script>alert" not in page.source


def test_bad_input_is_named(tmp_path: Path):
    path = tmp_path / "skills.html"
    with pytest.raises(ValueError, match=r"No episode to show in .*skills\.html"):
        write_skills_page(path, [])
    with pytest.raises(ValueError, match="'same' comes twice"):
        write_skills_page(path, entries(2, episode="same"))
    with pytest.raises(ValueError, match="'droid_0000' is no PNG"):
        write_skills_page(path, entries(1, timeline=b"GIF?"))
    with pytest.raises(FileNotFoundError, match=r"'droid_0000': no such file: .*gone\.png"):
        write_skills_page(path, entries(1, timeline=tmp_path / "gone.png"))
    assert not path.exists()


def test_a_second_writer_of_the_page_is_refused_and_the_first_ones_is_whole(tmp_path: Path) -> None:
    def meanwhile() -> Iterator[SkillsPageEntry]:
        for entry in entries(6):
            with pytest.raises(FolderInUseError, match=r"skills\.html is in use by another writer \(hilam view"):
                write_skills_page(tmp_path / "skills.html", entries(2), max_inlined=1)
            write_skills_page(tmp_path / "other.html", entries(2))
            yield entry

    page = Page(write_skills_page(tmp_path / "skills.html", meanwhile(), max_inlined=4))
    assert [(tmp_path / (image["src"] or "")).read_bytes() for image in images(page)] == [picture(n) for n in range(6)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other.html", "skills.html", "skills_images"]
