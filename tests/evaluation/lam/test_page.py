"""The page and the figures of a latent action model's report."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hilam_hf.evaluation.lam.figures import (
    plot_code_use,
    plot_episode_ratios,
    plot_latent_spread,
    plot_same_frame,
    plot_transfer,
)
from hilam_hf.evaluation.lam.page import write_lam_page
from hilam_hf.viz.style import new_figure

SECTIONS = ("findings", "decoding", "listening", "latents", "probe", "appearance", "transfer", "videos", "provenance")
EPISODES = [
    {"id": f"e{number}", "num_pairs": 4, "next_frame_error": 0.1, "copy_error": 0.2, "error_vs_copy": ratio}
    for number, ratio in enumerate((0.5, 0.7, None))
]


def make_report(**changes: Any) -> dict[str, Any]:
    """What `LamReport.to_dict` gives, small."""
    report: dict[str, Any] = {
        "title": "Latent action model report",
        "findings": [
            {
                "code": "decoder_ignores_latents",
                "severity": "warning",
                "reason": "it does not listen",
                "remedy": "make <it> listen",
            },
            {"code": "one_video", "severity": "note", "reason": "there is one", "remedy": "give more"},
        ],
        "videos": {
            "num_videos": 3,
            "num_pairs": 1200,
            "mean_change": 0.01,
            "rejected": [{"path": "bad & short.mp4", "reason": "it holds 1 frame"}],
        },
        "decoding": {
            "num_pairs": 12,
            "next_frame_error": 0.12,
            "copy_error": 0.2,
            "shuffled_error": 0.15,
            "constant_error": 0.14,
            "constant_latent": "mean",
            "shuffled_within_episode": 0,
            "error_vs_copy": 0.6,
            "error_vs_copy_interval": [0.5, 0.7],
            "shuffled_vs_own": 1.25,
            "shuffled_vs_own_interval": None,
            "constant_vs_own": 1.17,
            "improvement_lost_shuffled": 0.375,
            "improvement_lost_constant": None,
            "psnr": 9.2,
            "copy_psnr": None,
            "episodes": EPISODES,
        },
        "latents": {
            "num_latents": 1200,
            "num_not_finite": 0,
            "width": 3,
            "std": [1.0, 0.5, None],
            "relative_spread": 0.9,
            "dead_dimensions": 1,
            "participation_ratio": 1.5,
            "entropy_rank": 1.7,
            "variance_shares": [0.8, 0.2, 0.0],
        },
        "codes": None,
        "appearance": {
            "still_share": 0.2,
            "between_episode_share": 0.3,
            "between_episode_share_by_chance": 0.01,
        },
        "probe": {
            "names": ["x", "mean"],
            "constant_dimensions": ["z"],
            "unit": "m",
            "kind": "positions",
            "source": "the arm",
            "r2": 0.6,
            "r2_per_dimension": [0.9, 0.3],
            "pixels_r2": 0.4,
            "pixels_r2_per_dimension": [0.5, -0.2],
            "control_r2": -0.01,
            "regularisation": 10.0,
            "num_fitted_episodes": 2,
            "num_held_out_episodes": 1,
            "num_fitted_pairs": 8,
            "num_held_out_pairs": 4,
            "num_episodes_without_motion": 5,
        },
        "provenance": {"model": {"name": "org/<lam>", "inverse_dynamics": "IDM"}, "strides_in_frames": [5]},
    }
    return report | changes


CODES = {
    "num_latents": 4,
    "codebook_size": 8,
    "num_positions": 2,
    "counts": [[2, 1, 1, 0, 0, 0, 0, 0], [0, 0, 0, 4, 0, 0, 0, 0]],
    "perplexity": [2.83, 1.0],
    "used": [3, 1],
    "dead_codes": [4, 5, 6, 7],
    "distinct_sequences": 3,
    "possible_sequences": 64,
    "sequence_perplexity": 2.83,
}


class Reader(HTMLParser):
    """The sections' ids and all text of a page."""

    def __init__(self, page: Path):
        super().__init__()
        self.sections: list[str] = []
        self.links: list[str] = []
        self.sources: list[str] = []
        self.text = ""
        self.feed(page.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        if tag == "section":
            self.sections.append(attributes["id"] or "")
        if "href" in attributes:
            self.links.append(attributes["href"] or "")
        if "src" in attributes:
            self.sources.append(attributes["src"] or "")

    def handle_data(self, data: str) -> None:
        self.text += data.replace("\N{NO-BREAK SPACE}", " ") + "\n"


def written(tmp_path: Path, figures: Any = None, **changes: Any) -> Reader:
    return Reader(write_lam_page(tmp_path / "report.html", make_report(**changes), figures or {}))


def test_every_section_is_there_and_the_contents_lead_to_it(tmp_path: Path) -> None:
    page = written(tmp_path)
    assert page.sections == [*SECTIONS]
    assert page.links == [f"#{name}" for name in SECTIONS]
    assert written(tmp_path, codes=CODES).sections == [*SECTIONS[:3], "codes", *SECTIONS[3:]]


def test_numbers_findings_and_rejected_videos_are_shown(tmp_path: Path) -> None:
    text = written(tmp_path).text
    for shown in (
        "org/<lam>, measured on 1,200 pairs of frames of 3 videos. 1 warning: it does not listen.",
        "Make <it> listen.",
        "40 % lower",
        "\N{MULTIPLICATION SIGN} 1.25",
        "0.50 to 0.70",
        "9.2 dB",
        "38 %",
        "bad & short.mp4",
        "left out, as they do not vary",
        "the arm (m)",
    ):
        assert shown in text, shown
    assert "No warning" in written(tmp_path, findings=[]).text


def test_pictures_are_inside_and_nothing_is_fetched(tmp_path: Path) -> None:
    figures = {"decoding/next_frames": (new_figure(2, 1), "Next <frames>."), "transfer/1": (new_figure(2, 1), "Moved.")}
    page = written(tmp_path, figures)
    # Ratios by video, the two given ones, and the spread of latents.
    assert len(page.sources) == 4
    assert all(source.startswith("data:image/png;base64,") for source in page.sources)
    assert "Next <frames>." in page.text and "Moved." in page.text


def test_what_was_not_measured_is_said_in_words(tmp_path: Path) -> None:
    page = written(
        tmp_path,
        decoding={"reason": "this model has no forward dynamics model"},
        probe={"reason": "no actions are known"},
        appearance=dict.fromkeys(make_report()["appearance"]),
    )
    assert page.text.count("Not measured: this model has no forward dynamics model.") == 3
    assert "Not measured: no actions are known." in page.text
    assert page.sections == [*SECTIONS]


def test_unknown_numbers_do_not_stop_the_page(tmp_path: Path) -> None:
    decoding = make_report()["decoding"]
    unknown = {key: None for key, value in decoding.items() if isinstance(value, float | list)} | {"episodes": []}
    latents = make_report()["latents"] | {"entropy_rank": None, "participation_ratio": None, "variance_shares": []}
    text = written(tmp_path, decoding=decoding | unknown, latents=latents).text
    assert "not measured" in text and "there is no gain" in text


def test_a_figure_without_a_place_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="figure 'probe/x' has no place"):
        written(tmp_path, {"probe/x": (new_figure(1, 1), "")})


def labels(figure: Any) -> list[str]:
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def test_ratios_are_sorted_and_the_overall_one_is_named() -> None:
    figure = plot_episode_ratios([0.9, 0.3, 1.2], 0.8, (0.4, 1.1))
    (points,) = (line for line in figure.axes[0].lines if len(line.get_xdata()) == 3)
    assert list(points.get_ydata()) == [0.3, 0.9, 1.2]
    assert labels(figure) == ["copying", "all pairs: 0.80"]
    with pytest.raises(ValueError, match="ratios is empty"):
        plot_episode_ratios([], None)


@pytest.mark.parametrize("overall", [0.0, 0.97, 1.0, 1.04, 3.0])
def test_labels_of_ratios_do_not_overlap(overall: float) -> None:
    figure = plot_episode_ratios([overall], overall)
    figure.canvas.draw()
    first, second = (text.get_window_extent() for text in figure.axes[0].texts)
    assert not first.overlaps(second)


def test_the_spread_shows_every_dimension_and_ends_at_all_variance() -> None:
    left, right = plot_latent_spread([1.0, 0.5], [0.75, 0.25], 1.75).axes
    assert [bar.get_height() for bar in left.patches] == [1.0, 0.5]
    assert list(right.lines[0].get_ydata()) == [0, 0.75, 1.0]
    assert "effective rank 1.8" in labels(plot_latent_spread([1.0, 0.5], [0.75, 0.25], 1.75))[0]
    assert labels(plot_latent_spread([0.0], [], None)) == []


def test_code_use_shows_shares_of_each_position() -> None:
    figure = plot_code_use(CODES["counts"])  # type: ignore[arg-type]
    np.testing.assert_allclose(figure.axes[0].images[0].get_array()[0, :4], [0.5, 0.25, 0.25, 0])
    assert labels(figure)[:4] == ["50%", "25%", "25%", "0%"]
    assert labels(plot_code_use(np.ones((2, 64), dtype=int))) == []
    with pytest.raises(ValueError, match="counts must be D rows of K counts"):
        plot_code_use([[0, 0]])


def first_pixels(figure: Any, columns: int) -> list[list[float]]:
    values = [round(float(np.asarray(axes.images[0].get_array())[0, 0, 0]), 4) for axes in figure.axes]
    return [values[start : start + columns] for start in range(0, len(values), columns)]


def frames(*values: float) -> torch.Tensor:
    return torch.tensor(values)[:, None, None, None].expand(-1, 3, 4, 4)


def test_a_transfer_shows_source_its_decoding_and_the_target() -> None:
    figure = plot_transfer(frames(0.1, 0.2, 0.3), frames(0.1, 0.25, 1.5), frames(0.7, 0.8, -1), 5)
    assert first_pixels(figure, 3) == [[0.1, 0.2, 0.3], [0.1, 0.25, 1.0], [0.7, 0.8, 0.0]]
    assert re.findall(r"\d+", "".join(axes.get_title(loc="center") for axes in figure.axes)) == ["5", "10"]


def test_one_frame_with_several_latents_shows_the_change() -> None:
    figure = plot_same_frame(frames(0.5)[0], frames(0.1, 0.2), frames(0.3, 0.4), frames(0.5, 0.75), [[1, 2], [3, 4]])
    # The largest factor that keeps 0.25 below 1 is 4.
    assert first_pixels(figure, 2) == [[0.1, 0.2], [0.3, 0.4], [0.5, 0.75], [0.0, 1.0]]
    assert [axes.get_title(loc="center") for axes in figure.axes[:2]] == ["1 2", "3 4"]
