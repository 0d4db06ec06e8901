from __future__ import annotations

import numpy as np
import pytest
import torch

from hilam_hf.viz import plot_next_frames
from hilam_hf.viz.frames import amplification


def constant_frames(*values: float) -> torch.Tensor:
    return torch.tensor(values).view(-1, 1, 1, 1).expand(len(values), 3, 6, 8).contiguous()


CURRENT = constant_frames(0.1, 0.2, 0.3)
PREDICTED = constant_frames(0.35, 0.4, 0.55)
TARGET = constant_frames(0.4, 0.4, 0.5)


def pictures(figure, row: int) -> list[float]:
    """The first value of each picture of a row of three."""
    return [float(np.asarray(axes.images[0].get_array())[0, 0, 0]) for axes in figure.axes[3 * row : 3 * row + 3]]


def texts(figure) -> list[str]:
    return [text.get_text() for text in figure.texts]


def test_rows_are_current_predicted_target_and_the_amplified_difference():
    figure = plot_next_frames(CURRENT, PREDICTED, TARGET, amplify=4)
    assert len(figure.axes) == 4 * 3
    np.testing.assert_allclose(pictures(figure, 0), [0.1, 0.2, 0.3], rtol=1e-6)
    np.testing.assert_allclose(pictures(figure, 1), [0.35, 0.4, 0.55], rtol=1e-6)
    np.testing.assert_allclose(pictures(figure, 2), [0.4, 0.4, 0.5], rtol=1e-6)
    np.testing.assert_allclose(pictures(figure, 3), [0.2, 0.0, 0.2], atol=1e-6)
    assert "difference \N{MULTIPLICATION SIGN}4" in texts(figure)


def test_a_baseline_gets_a_row_with_the_same_amplification_and_its_errors():
    figure = plot_next_frames(CURRENT, PREDICTED, TARGET, baseline=CURRENT, amplify=2)
    assert len(figure.axes) == 5 * 3
    np.testing.assert_allclose(pictures(figure, 4), [0.6, 0.4, 0.4], atol=1e-6)
    printed = texts(figure)
    assert printed.count("difference \N{MULTIPLICATION SIGN}2") == 2
    at = printed.index("error, predicted")
    assert [float(text) for text in printed[at + 1 : at + 4]] == pytest.approx([0.05, 0.0, 0.05], abs=1e-6)
    assert printed[at + 4 : at + 8] == ["error, copy of $I_t$", "0.300", "0.200", "0.200"]


def test_rows_do_not_overlap_and_columns_line_up():
    figure = plot_next_frames(CURRENT, PREDICTED, TARGET, baseline=CURRENT, titles=["a", "b", "c"])
    boxes = [axes.get_position() for axes in figure.axes]
    for row in range(4):
        assert boxes[3 * row].y0 > boxes[3 * (row + 1)].y1
        assert boxes[3 * row].x0 == boxes[3 * (row + 1)].x0
    assert min(box.y0 for box in boxes) > 0 and max(box.y1 for box in boxes) < 1


def test_given_errors_are_printed():
    figure = plot_next_frames(CURRENT, PREDICTED, TARGET, errors=[1.5, 2.5, 3.5])
    assert texts(figure)[-4:] == ["error", "1.50", "2.50", "3.50"]
    figure = plot_next_frames(CURRENT, PREDICTED, TARGET, errors={"LPIPS": torch.tensor([0.5, 0.25, 1])})
    assert texts(figure)[-4:] == ["LPIPS", "0.500", "0.250", "1.00"]


def test_uint8_and_float_frames_draw_the_same():
    as_bytes = (CURRENT * 255).round().to(torch.uint8)
    figure = plot_next_frames(as_bytes, PREDICTED, as_bytes.float() / 255)
    np.testing.assert_allclose(pictures(figure, 0), pictures(figure, 2), rtol=1e-6)


@pytest.mark.parametrize(("largest", "factor"), [(0.9, 1), (0.4, 2), (0.2, 4), (0.1, 8), (0.01, 16), (0.0, 16)])
def test_amplification_is_the_largest_that_does_not_saturate(largest: float, factor: int):
    assert amplification([torch.linspace(0, largest, 1000)]) == factor


def test_amplification_ignores_one_value_in_a_hundred():
    values = torch.cat([torch.full((990,), 0.05), torch.ones(10)])
    assert amplification([values]) == 16
    assert amplification([torch.cat([values, torch.ones(10)])]) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"predicted": PREDICTED[:2]}, "predicted must have shape"),
        ({"target": TARGET[..., :4]}, "target must have shape"),
        ({"baseline": PREDICTED[:, :1]}, "baseline must have shape"),
        ({"current": CURRENT[0]}, "current must have shape"),
        ({"target": TARGET.long()}, "target must be uint8 or float"),
        ({"titles": ["one"]}, "titles has 1 entries for 3"),
        ({"errors": [0.1]}, "'error' has 1 values for 3"),
        ({"amplify": 0}, "amplify must be above 0"),
    ],
)
def test_bad_input_is_named(change: dict, message: str):
    arguments = {"current": CURRENT, "predicted": PREDICTED, "target": TARGET} | change
    with pytest.raises(ValueError, match=message):
        plot_next_frames(**arguments)
