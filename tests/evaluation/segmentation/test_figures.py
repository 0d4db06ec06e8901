"""Pictures of the segmentation study: what is drawn, and where."""

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from hilam_hf.evaluation.segmentation.figures import phase_color, plot_f1_bars, plot_segmentations
from hilam_hf.viz import figure_png
from hilam_hf.viz.style import segment_color

SCORES = {"random": {"f1": 0.2, "low": 0.1, "high": 0.3}, "HiLAM stage 1": {"f1": 0.5, "low": 0.45, "high": 0.6}}
PHASES = {"push/0": ["reach"] * 4 + ["push"] * 6, "pull/0": ["reach"] * 5 + ["pull"] * 2}


def cuts(*steps, length):
    return np.isin(np.arange(length), [0, *steps])


def test_bars_are_as_long_as_f1_and_carry_its_value():
    figure = plot_f1_bars(SCORES, highlighted=["HiLAM stage 1"])
    (axes,) = figure.axes
    assert [bar.get_width() for bar in axes.patches] == [0.2, 0.5]
    assert axes.patches[0].get_facecolor() != axes.patches[1].get_facecolor()
    assert [text.get_text() for text in axes.texts] == ["0.20", "0.50"]
    assert [label.get_text() for label in axes.get_yticklabels()] == list(SCORES)
    assert figure_png(figure).startswith(b"\x89PNG")


def test_bars_refuse_what_cannot_be_drawn():
    with pytest.raises(ValueError, match="scores is empty"):
        plot_f1_bars({})
    with pytest.raises(ValueError, match="'random': expected 0 <= low"):
        plot_f1_bars({"random": {"f1": 0.2, "low": 0.3, "high": 0.4}})


def test_strips_lie_where_the_segments_do():
    figure = plot_segmentations(PHASES, {"windows": {"push/0": cuts(5, length=10), "pull/0": cuts(length=7)}})
    first, second = figure.axes
    spans = [(bar.get_y() + bar.get_height() / 2, bar.get_x(), bar.get_width()) for bar in first.patches]
    assert spans == [(0, 0, 4), (0, 4, 6), (1, 0, 5), (1, 5, 5)]
    assert [label.get_text() for label in first.get_yticklabels()] == ["true phases", "windows"]
    assert first.get_title("left") == "push/0"
    # One time scale for all episodes.
    assert first.get_xlim() == second.get_xlim() == (0, 10)


def test_a_phase_has_one_colour_in_all_episodes():
    figure = plot_segmentations(PHASES, {})
    colors = [[bar.get_facecolor() for bar in axes.patches] for axes in figure.axes]
    assert colors[0][0] == colors[1][0]
    assert colors[0][1] != colors[1][1]
    legend = figure.legends[0]
    assert [text.get_text() for text in legend.get_texts()] == ["reach", "push", "pull"]
    assert len({segment_color(index) for index in range(3)}) == 3


def test_episodes_must_fit_their_segmentations():
    with pytest.raises(ValueError, match="phases is empty"):
        plot_segmentations({}, {})
    with pytest.raises(ValueError, match="'windows' has no segmentation of the 7 steps of episode 'pull/0'"):
        plot_segmentations(PHASES, {"windows": {"push/0": cuts(length=10), "pull/0": cuts(length=6)}})


def test_all_phases_of_scripted_experts_have_colours_of_their_own():
    colors = [phase_color(index) for index in range(13)]
    assert colors[:8] == [segment_color(index).lower() for index in range(8)]
    assert len(set(colors)) == 13
    # Halfway from #004488 to white.
    assert to_rgb(colors[8]) == pytest.approx((0.5, 0.5 + 0x44 / 510, 0.5 + 0x88 / 510), abs=1 / 255)
