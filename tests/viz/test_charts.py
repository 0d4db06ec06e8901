from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from hilam_hf.viz import figure_png, plot_boundary_rates, plot_success_bars, plot_training_curves
from hilam_hf.viz.charts import running_mean, short_number


def success(successes: int, low: float, high: float) -> dict[str, float]:
    return {"successes": successes, "trials": 10, "rate": successes / 10, "low": low, "high": high}


RESULTS = {
    "with pretraining": {"drawer-open": success(9, 0.6, 0.98), "door-open": success(10, 0.72, 1.0)},
    "without pretraining": {"drawer-open": success(4, 0.17, 0.69), "door-open": success(0, 0.0, 0.28)},
}


def test_training_curves_draw_every_value():
    figure = plot_training_curves({"loss": [(0, 4.0), (10, 2.0), (20, 1.0)], "rate": [(0, 0.1), (20, 0.2)]})
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["loss", "rate"]
    np.testing.assert_allclose(figure.axes[0].lines[0].get_xydata(), [[0, 4], [10, 2], [20, 1]])
    assert len(figure.axes[0].lines) == 1


def test_long_curves_get_a_running_mean():
    figure = plot_training_curves({"loss": [(step, step % 2) for step in range(600)]})
    raw, smooth = figure.axes[0].lines
    assert len(raw.get_ydata()) == 600
    np.testing.assert_allclose(smooth.get_ydata()[50:-50], 0.5, atol=0.03)


def test_running_mean_against_a_loop():
    values = np.random.default_rng(0).normal(size=40)
    values[[3, 17, 18]] = np.nan
    expected = [np.nanmean(values[max(0, i - 4) : i + 5]) for i in range(40)]
    np.testing.assert_allclose(running_mean(values, 4), expected)


def test_values_that_are_not_finite_are_counted_not_hidden():
    figure = plot_training_curves({"loss": [(0, 1.0), (1, math.nan), (2, math.inf)], "dead": [(0, math.nan)]})
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["loss (2 not finite)", "dead (1 not finite)"]
    assert figure_png(figure)


def test_a_wide_range_gets_a_logarithmic_axis():
    figure = plot_training_curves(
        {"wide": [(0, 100.0), (1, 0.1)], "narrow": [(0, 2.0), (1, 1.0)], "zero": [(0, 9), (1, 0)]}
    )
    assert [axes.get_yscale() for axes in figure.axes] == ["log", "linear", "linear"]


def test_success_bars_have_the_rates_and_the_intervals():
    figure = plot_success_bars(RESULTS)
    (axes,) = figure.axes
    assert [bar.get_width() for bar in axes.patches] == [0.9, 1.0, 0.4, 0.0]
    tops = [bar.get_y() for bar in axes.patches]
    assert tops[0] < tops[2] < tops[1] < tops[3]  # Tasks from the top down, both ways of training side by side.
    whiskers = [line.get_segments() for line in axes.collections]
    ends = [(segment[0][0], segment[1][0]) for series in whiskers for segment in series]
    np.testing.assert_allclose(ends, [(0.6, 0.98), (0.72, 1.0), (0.17, 0.69), (0.0, 0.28)])
    assert [text.get_text() for text in axes.texts] == ["9/10", "10/10", "4/10", "0/10"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["drawer-open", "door-open"]


def test_nothing_of_the_success_bars_is_cut_off():
    results = {name: {"KITCHEN_SCENE1_put_the_black_bowl_on_the_plate": success(10, 0.7, 1.0)} for name in ("a", "b")}
    figure = plot_success_bars(results, aim=0.6)
    box = figure.axes[0].get_tightbbox()
    assert box is not None
    assert box.x0 >= 0 and box.y0 >= 0
    assert box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1


@pytest.mark.parametrize(
    ("results", "message"),
    [
        ({}, "results is empty"),
        ({"a": {}}, "no task"),
        ({"a": {"x": success(1, 0, 1)}, "b": {"y": success(1, 0, 1)}}, "'b' has tasks"),
        ({"a": {"x": {"rate": 0.1}}}, "'x': missing"),
        ({"a": {"x": success(5, 0.6, 0.9)}}, "low <= rate <= high"),
        ({"a": {"x": success(5, 0.1, math.nan)}}, "low <= rate <= high"),
    ],
)
def test_bad_results_are_named(results: dict, message: str):
    with pytest.raises(ValueError, match=message):
        plot_success_bars(results)


def test_boundary_rates_draw_each_stage_and_its_target():
    figure = plot_boundary_rates({1: [(0, 0.5), (10, 0.2)], 2: [(0, 0.4), (10, 0.3)]}, {1: 0.1, 2: 0.25})
    lines = figure.axes[0].lines
    drawn = [list(line.get_ydata()) for line in lines if line.get_transform() != figure.axes[0].transAxes]
    assert drawn[:2] == [[0.5, 0.2], [0.1, 0.1]]
    assert [0.4, 0.3] in drawn and [0.25, 0.25] in drawn
    assert {text.get_text() for text in figure.axes[0].texts} == {
        "stage 1: 20.0%\ntarget 10.0%",
        "stage 2: 30.0%\ntarget 25.0%",
    }


def test_labels_of_equal_boundary_rates_do_not_overlap():
    rates = {stage: [(0, 0.25), (10, 0.25)] for stage in (1, 2, 3)}
    figure = plot_boundary_rates(rates, dict.fromkeys(rates, 0.25))
    boxes = sorted((text.get_window_extent() for text in figure.axes[0].texts), key=lambda box: box.y0)
    assert all(below.y1 <= above.y0 for below, above in itertools.pairwise(boxes))


def test_boundary_rates_need_a_target_for_each_stage():
    with pytest.raises(ValueError, match=r"stages \[1\], but targets has \[2\]"):
        plot_boundary_rates({1: [(0, 0.5)]}, {2: 0.5})
    with pytest.raises(ValueError, match="history is empty"):
        plot_boundary_rates({}, {})
    with pytest.raises(ValueError, match="stage 1 has no values"):
        plot_boundary_rates({1: []}, {1: 0.5})


def test_training_curves_need_values():
    with pytest.raises(ValueError, match="history is empty"):
        plot_training_curves({})
    with pytest.raises(ValueError, match="'loss' has no values"):
        plot_training_curves({"loss": []})


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (0.05, "0.05"), (2500, "2500"), (2.5e-4, "2.5e-4"), (-1e-5, "-1e-5"), (2e6, "2e6")]
)
def test_short_numbers(value: float, text: str):
    assert short_number(value) == text
