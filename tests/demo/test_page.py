from __future__ import annotations

import base64
import copy
import io
import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from hilam_hf.demo.page import write_report
from hilam_hf.viz import figure_png
from hilam_hf.viz.style import new_figure

TASKS = ["drawer-open", "door-open"]


def success(successes: int, low: float, high: float) -> dict:
    return {"successes": successes, "trials": 10, "rate": successes / 10, "low": low, "high": high}


def make_report() -> dict:
    return {
        "title": "A policy from video",
        "summary": "Videos became skills.",
        "steps": [
            {"name": "Record", "seconds": 75.0, "detail": "6 episodes"},
            {"name": "Train the LAM", "seconds": 5.04, "detail": "100 steps"},
        ],
        "lam": {
            "next_frame_error": 0.0123,
            "copy_error": 0.0205,
            "error_vs_copy": 0.6,
            "probe_r2": 0.714,
            "stride": 10,
        },
        "hilam": {
            "next_latent_error": 0.3,
            "repeat_error": 0.4,
            "error_vs_repeat": 0.75,
            "stages": [
                {
                    "stage": 1,
                    "boundary_rate": 0.21,
                    "target_rate": 1 / 6,
                    "mean_segment_length": 4.75,
                    "one_step_share": 0.79,
                    "median_length": 1,
                    "length_90": 23,
                    "segments_per_episode": 13.5,
                    "warning": "stage 1: 79% of the segments are one step long",
                },
                {
                    "stage": 2,
                    "boundary_rate": 0.29,
                    "target_rate": 0.25,
                    "mean_segment_length": 16.4,
                    "one_step_share": 0.0,
                    "median_length": 14,
                    "length_90": 30,
                    "segments_per_episode": 3.25,
                    "warning": None,
                },
            ],
        },
        "skills": {"num_episodes": 6, "num_segments": {"1": 1234, "2": 57}},
        "policies": {
            "tasks": TASKS,
            "with_pretraining": {
                "overall": success(8, 0.49, 0.94),
                "tasks": dict(zip(TASKS, [success(9, 0.6, 0.98), success(7, 0.4, 0.89)], strict=True)),
            },
            "without_pretraining": {
                "overall": success(2, 0.06, 0.51),
                "tasks": dict(zip(TASKS, [success(4, 0.17, 0.69), success(0, 0.0, 0.28)], strict=True)),
            },
            "demonstrations_per_task": 5,
            "finetune_steps": 1500,
        },
        "aims": [
            {"name": "error", "aim": "at most 0.75", "value": 0.6, "met": True},
            {"name": "time", "aim": "at most 15 minutes", "value": "16 minutes", "met": False},
            {"name": "memory", "aim": "at most 6 GB", "value": None, "met": None},
        ],
        "artifacts": [{"name": "HiLAM", "path": "out/hilam", "load": 'HiLAMModel.from_pretrained("out/hilam")'}],
        "provenance": {"seed": 20261121, "versions": {"torch": "2.13.0"}, "rollout": {"image": {"size": 128}}},
    }


class Page(HTMLParser):
    """What a test asks of a page: every element with its attributes, and the text of each section."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.sections: dict[str, str] = {"": ""}
        self.open: list[str] = []
        self.section = ""
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        self.elements.append((tag, attributes))
        if tag not in ("img", "input", "meta"):
            self.open.append(tag)
        if tag == "section":
            self.section = attributes["id"] or ""
            self.sections[self.section] = ""

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes another element"
        if tag == "section":
            self.section = ""

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in ("style", "script"):
            self.sections[self.section] += data.replace("\N{NO-BREAK SPACE}", " ") + "\n"

    def addresses(self) -> list[str]:
        return [
            attributes[name] or "" for _, attributes in self.elements for name in ("src", "href") if name in attributes
        ]

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def small_figure() -> Figure:
    figure = new_figure(3, 1)
    figure.add_axes((0, 0, 1, 1)).plot([0, 1], [1, 0])
    return figure


def png_bytes() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (30, 20), "red").save(buffer, "PNG")
    return buffer.getvalue()


def write(
    tmp_path: Path, report: dict, figures: dict | None = None, videos: list[Path] | None = None, **options
) -> Page:
    path = write_report(tmp_path / "report.html", report, figures or {}, videos or [], **options)
    assert path == tmp_path / "report.html"
    page = Page(path)
    assert page.open == []
    return page


def test_sections_stand_in_the_order_of_the_story(tmp_path):
    page = write(tmp_path, make_report())
    assert [name for name in page.sections if name] == [
        *("steps", "lam", "hilam", "skills", "policies", "artifacts", "provenance", "aims"),
    ]


@pytest.mark.parametrize(
    ("section", "texts"),
    [
        (
            "",
            [
                "A policy from video",
                "Videos became skills.",
                "40 % lower",
                "R² 0.71",
                "25 % lower",
                "57 skills",
                "80 %",
            ],
        ),
        ("", ["20 % without", "1 of 3", "1 not measured"]),
        ("steps", ["Record", "6 episodes", "1 min 15 s", "5.0 s", "1 min 20 s"]),
        ("lam", ["0.0123", "0.0205", "0.6 (40 % lower)", "0.714", "stride", "10"]),
        ("hilam", ["0.3\n", "0.4\n", "0.75 (25 % lower)", "21.0 %", "16.7 %", "4.75", "29.0 %", "25.0 %", "16.4"]),
        ("skills", ["1,234", "57"]),
        ("policies", ["5 demonstrations", "1,500 steps", "drawer-open", "door-open", "All tasks"]),
        ("policies", ["90 %", "9/10 [60, 98]", "70 %", "40 %", "4/10 [17, 69]", "0/10 [0, 28]", "8/10 [49, 94]"]),
        ("artifacts", ["HiLAM", "out/hilam", 'HiLAMModel.from_pretrained("out/hilam")']),
        ("provenance", ["20261121", "versions", "torch", "2.13.0", "image \N{MIDDLE DOT} size", "128"]),
        ("aims", ["\N{CHECK MARK} met", "\N{BALLOT X} not met", "16 minutes", "not measured"]),
    ],
)
def test_the_numbers_are_on_the_page(tmp_path, section: str, texts: list[str]):
    page = write(tmp_path, make_report())
    for text in texts:
        assert text in page.sections[section]


def test_a_collapse_of_the_segments_is_on_the_page(tmp_path):
    section = write(tmp_path, make_report()).sections["hilam"]
    for text in ("segments of one step", "79 %", "23", "13.5", "segments an episode"):
        assert text in section
    assert section.count("Warning: ") == 1
    assert "Warning: stage 1: 79% of the segments are one step long." in section


def test_bars_are_as_long_as_their_numbers(tmp_path):
    page = write(tmp_path, make_report())
    styles = [attributes["style"] for attributes in page.of("i")]
    assert styles[:2] == ["width:100.00%", "width:6.72%"]  # 75 s and 5.04 s.
    assert styles[2:6] == ["width:60.00%", "width:100.00%", "width:75.00%", "width:100.00%"]
    intervals = [attributes["style"] for attributes in page.of("b")]
    assert intervals[:2] == ["left:16.67%;width:0.00%", "left:25.00%;width:0.00%"]
    assert intervals[2] == "left:60.00%;width:38.00%"


def test_the_page_needs_nothing_beside_it(tmp_path):
    video = tmp_path / "drawer-open_with_pretraining.mp4"
    video.write_bytes(b"a small video")
    page = write(tmp_path, make_report(), {"lam/next_frames": small_figure(), "skills/a": png_bytes()}, [video])
    assert all(address.startswith(("data:", "#")) for address in page.addresses())
    assert not any(tag in ("link", "iframe", "object", "embed", "base") for tag, _ in page.elements)
    assert re.search(r"url\(|@import|https?://", page.source) is None
    assert all("src" not in attributes for attributes in page.of("script"))


def test_every_link_in_the_contents_leads_somewhere(tmp_path):
    page = write(tmp_path, make_report())
    targets = {attributes["href"] for attributes in page.of("a")}
    assert targets == {f"#{name}" for name in page.sections if name}


def test_figures_are_inside_their_section_in_order(tmp_path):
    figure, path = small_figure(), tmp_path / "picture.png"
    path.write_bytes(png_bytes())
    figures = {"skills/droid_0002": path, "lam/next_frames": figure, "skills/droid_0001": png_bytes()}
    page = write(tmp_path, make_report(), figures, captions={"skills/droid_0001": "Put the mug down"})
    images = [image for image in page.of("img") if image.get("src")]
    contents = [base64.b64decode((image["src"] or "").removeprefix("data:image/png;base64,")) for image in images]
    assert contents == [figure_png(figure), png_bytes(), png_bytes()]
    assert [image["alt"] for image in images][1:] == ["droid_0002", "Put the mug down"]
    # 3 x 1 inches are 288 x 96 CSS pixels; a picture that names no resolution has its own size.
    assert [(image["width"], image["height"]) for image in images] == [("288", "96"), ("30", "20"), ("30", "20")]
    assert "what the forward dynamics model makes of them" in page.sections["lam"]
    assert page.sections["skills"].index("droid_0002") < page.sections["skills"].index("Put the mug down")


@pytest.mark.parametrize("key", ["next_frames", "lam/", "unknown/next_frames", "policies/success"])
def test_a_figure_without_a_place_is_refused(tmp_path, key: str):
    report = make_report()
    del report["policies"]
    with pytest.raises(ValueError, match=f"'{key}' has no place"):
        write_report(tmp_path / "report.html", report, {key: png_bytes()})


def test_figures_that_are_no_pictures(tmp_path):
    with pytest.raises(ValueError, match="'lam/x' is no PNG"):
        write_report(tmp_path / "report.html", make_report(), {"lam/x": b"<svg/>"})
    with pytest.raises(FileNotFoundError, match=r"'lam/x': no such file: .*gone\.png"):
        write_report(tmp_path / "report.html", make_report(), {"lam/x": tmp_path / "gone.png"})
    assert not (tmp_path / "report.html").exists()


def test_videos_are_inside_while_they_fit_and_linked_after(tmp_path):
    sizes = {"first_one.mp4": 60, "too big & odd #1.webm": 50, "last.webm": 40}
    for name, size in sizes.items():
        (tmp_path / "rollouts").mkdir(exist_ok=True)
        (tmp_path / "rollouts" / name).write_bytes(b"x" * size)
    videos = [tmp_path / "rollouts" / name for name in sizes]
    page = write(tmp_path, make_report(), {}, videos, inline_video_bytes=100, captions={"last.webm": "The last"})
    sources = [attributes["src"] for attributes in page.of("video")]
    assert sources == [
        f"data:video/mp4;base64,{base64.b64encode(b'x' * 60).decode()}",
        f"data:video/webm;base64,{base64.b64encode(b'x' * 40).decode()}",
    ]
    assert page.of("a")[-1]["href"] == "rollouts/too%20big%20%26%20odd%20%231.webm"
    assert "Too large" in page.sections["rollouts"]
    assert "First one" in page.sections["rollouts"] and "The last" in page.sections["rollouts"]


def test_bad_videos(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"gone\.mp4"):
        write_report(tmp_path / "report.html", make_report(), {}, [tmp_path / "gone.mp4"])
    with pytest.raises(ValueError, match=r"x\.avi cannot be shown"):
        write_report(tmp_path / "report.html", make_report(), {}, [tmp_path / "x.avi"])


EVIL = "<script>alert('x')</script>\"&'"


def spoil(value):
    """The same report with something dangerous at the end of every text in it, keys of free mappings included."""
    if isinstance(value, dict):
        return {key: spoil(child) for key, child in value.items()}
    if isinstance(value, list):
        return [spoil(child) for child in value]
    return value + EVIL if isinstance(value, str) else value


def test_everything_is_escaped(tmp_path):
    report = make_report()
    policies = report.pop("policies")
    report = spoil(report)
    report["skills"]["num_segments"] = {"1": 3}
    report["provenance"][EVIL] = {EVIL: [EVIL]}
    report[EVIL] = EVIL
    report["lam"][EVIL] = EVIL
    policies["tasks"] = [task + EVIL for task in TASKS]
    for arm in ("with_pretraining", "without_pretraining"):
        policies[arm]["tasks"] = {task + EVIL: value for task, value in policies[arm]["tasks"].items()}
    report["policies"] = policies
    page = write(tmp_path, report, {f"skills/{EVIL.replace('/', '')}": png_bytes()})
    assert len(page.of("script")) == 1
    assert "<script>alert" not in page.source
    assert "alert" in page.sections["provenance"] and "alert" in page.sections["further"]
    assert page.sections["policies"].count(EVIL) == len(TASKS)


@pytest.mark.parametrize("section", ["lam", "hilam", "skills", "policies"])
def test_an_absent_section_is_left_out(tmp_path, section: str):
    report = make_report()
    del report[section]
    page = write(tmp_path, report)
    assert section not in page.sections
    assert f"#{section}" not in page.addresses()


@pytest.mark.parametrize(
    "path",
    [
        *("title", "summary", "steps", "aims", "artifacts", "provenance"),
        *("steps.1.seconds", "aims.0.met", "artifacts.0.load"),
        *("lam.next_frame_error", "lam.copy_error", "lam.error_vs_copy", "lam.probe_r2"),
        *("hilam.error_vs_repeat", "hilam.stages", "hilam.stages.1.target_rate"),
        *("skills.num_episodes", "skills.num_segments"),
        *(
            "policies.tasks",
            "policies.without_pretraining",
            "policies.with_pretraining.overall",
            "policies.finetune_steps",
        ),
        *("policies.with_pretraining.tasks.door-open", "policies.with_pretraining.tasks.door-open.low"),
    ],
)
def test_a_missing_key_is_named_with_its_path(tmp_path, path: str):
    report = make_report()
    *parents, key = path.split(".")
    record = report
    for parent in parents:
        record = record[int(parent) if isinstance(record, list) else parent]
    del record[key]
    named = re.sub(r"\.(\d)", r"[\1]", path)
    with pytest.raises(ValueError, match=f"misses {re.escape(named)}(,|\\.)"):
        write_report(tmp_path / "report.html", report, {})
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize(
    ("section", "key", "value", "message"),
    [
        ("lam", "probe_r2", "0.7", r"lam\.probe_r2 .* got str: '0\.7'"),
        ("lam", "copy_error", True, r"lam\.copy_error .* got bool"),
        ("skills", "num_segments", {}, r"skills\.num_segments .* empty"),
        ("skills", "num_segments", {"deep": 3}, "stage 'deep'"),
        ("skills", "num_segments", {"1": 2.5}, r"skills\.num_segments\.1"),
        ("hilam", "stages", "none", r"hilam\.stages"),
        ("policies", "tasks", ["drawer-open"], r"with_pretraining\.tasks\.door-open, but"),
        ("policies", "finetune_steps", 1.5, r"policies\.finetune_steps"),
    ],
)
def test_a_wrong_value_is_named(tmp_path, section: str, key: str, value: object, message: str):
    report = make_report()
    report[section][key] = value
    with pytest.raises(ValueError, match=message):
        write_report(tmp_path / "report.html", report, {})


def test_an_impossible_interval_is_refused(tmp_path):
    report = make_report()
    report["policies"]["with_pretraining"]["overall"]["low"] = 0.95
    with pytest.raises(ValueError, match=r"policies\.with_pretraining\.overall .* low 0\.95"):
        write_report(tmp_path / "report.html", report, {})


def test_what_was_not_measured_or_diverged_says_so(tmp_path):
    report = make_report()
    report["lam"] |= {"probe_r2": None, "next_frame_error": math.nan, "error_vs_copy": math.inf}
    page = write(tmp_path, report)
    assert "not measured; aim: at least 0.5" in page.sections["lam"]
    assert "not finite" in page.sections["lam"]
    assert "R²" not in page.sections[""]
    assert "nan" not in page.sections["lam"]


def test_a_worse_model_is_not_made_to_look_better(tmp_path):
    report = make_report()
    report["lam"] |= {"error_vs_copy": 1.3, "next_frame_error": 0.026, "copy_error": 0.02}
    page = write(tmp_path, report)
    assert "30 % higher" in page.sections[""]
    assert "lower" not in page.sections["lam"].replace("lower is better", "")


def test_keys_beyond_the_schema_are_shown(tmp_path):
    report = make_report()
    report["lam"]["held_out_episodes"] = 12
    report["command"] = {"options": {"smallest": True, "tasks": ["a", "b"], "none": []}}
    page = write(tmp_path, report)
    assert "held out episodes\n12\n" in page.sections["lam"]
    for text in ("command", "smallest", "yes", "a, b"):
        assert text in page.sections["further"]


def test_a_report_read_back_from_json_or_with_numpy_numbers_gives_the_same_page(tmp_path):
    report = make_report()
    expected = write(tmp_path, report).source
    assert write(tmp_path, json.loads(json.dumps(report))).source == expected
    report["lam"]["probe_r2"] = np.float64(0.714)
    report["skills"]["num_episodes"] = np.int64(6)
    report["skills"]["num_segments"] = {1: 1234, 2: 57}
    assert write(tmp_path, report).source == expected


def test_the_report_is_not_changed(tmp_path):
    report = make_report()
    before = copy.deepcopy(report)
    write(tmp_path, report)
    assert report == before


def test_a_full_disk_leaves_the_old_page(tmp_path, monkeypatch):
    write(tmp_path, make_report())
    before = (tmp_path / "report.html").read_text()

    def fail(self, text, **_):
        raise OSError("No space left on device")

    monkeypatch.setattr(Path, "write_text", fail)
    with pytest.raises(OSError, match="No space left"):
        write_report(tmp_path / "report.html", make_report() | {"title": "New"}, {})
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]
    assert (tmp_path / "report.html").read_text() == before
