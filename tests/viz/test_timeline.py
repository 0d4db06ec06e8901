from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex
from matplotlib.patches import Rectangle

from hilam_hf.viz import figure_png, plot_skill_timeline, save_figure, segment_spans
from hilam_hf.viz.style import SEGMENT_COLORS, relative_luminance, text_color_on
from hilam_hf.viz.timeline import id_font_size, thumbnail_slots


def make_frames(num_frames: int, height: int = 12, width: int = 16) -> torch.Tensor:
    """Frames whose grey value is their index."""
    values = torch.arange(num_frames, dtype=torch.uint8).view(-1, 1, 1, 1)
    return values.expand(num_frames, 3, height, width).contiguous()


def make_boundaries(length: int, starts: list[int]) -> torch.Tensor:
    boundaries = torch.zeros(length, dtype=torch.bool)
    boundaries[starts] = True
    return boundaries


def patches(axes, prefix: str) -> list[Rectangle]:
    return [patch for patch in axes.patches if (patch.get_gid() or "").startswith(prefix)]


def edges(axes) -> list[tuple[float, float]]:
    return [(patch.get_x(), patch.get_x() + patch.get_width()) for patch in patches(axes, "segment-")]


def test_segments_lie_where_the_boundaries_are_in_seconds():
    boundaries = {2: make_boundaries(16, [0, 6]), 1: make_boundaries(16, [0, 2, 6, 15])}
    figure = plot_skill_timeline(make_frames(20), boundaries, fps=4)
    strip, stage_1, stage_2 = figure.axes
    assert edges(stage_1) == [(0, 0.5), (0.5, 1.5), (1.5, 3.75), (3.75, 4.0)]
    assert edges(stage_2) == [(0, 1.5), (1.5, 4.0)]
    for axes in (strip, stage_1, stage_2):
        assert axes.get_xlim() == (0, 5.0)
    # The same seconds are at the same place on the page in the strip and in both rows.
    places = [axes.get_position() for axes in (strip, stage_1, stage_2)]
    assert len({(place.x0, place.x1) for place in places}) == 1
    assert places[0].y0 > places[1].y1 > places[1].y0 > places[2].y1


def test_frames_without_a_latent_action_are_hatched():
    figure = plot_skill_timeline(make_frames(20), {1: make_boundaries(16, [0, 5])}, fps=4)
    (tail,) = patches(figure.axes[1], "no-latent-action")
    assert (tail.get_x(), tail.get_width()) == (4.0, 1.0)
    assert tail.get_hatch()
    assert not any(segment.get_hatch() for segment in patches(figure.axes[1], "segment-"))


def test_no_tail_when_every_frame_has_a_latent_action():
    figure = plot_skill_timeline(make_frames(8), {1: make_boundaries(8, [0])}, fps=4)
    assert patches(figure.axes[1], "no-latent-action") == []


def printed_ids(axes) -> dict[str, float]:
    return {text.get_text(): text.get_position()[0] for text in axes.texts if text.get_text().isdecimal()}


def test_ids_count_from_one_in_the_middle_of_their_segments():
    figure = plot_skill_timeline(make_frames(20), {1: make_boundaries(20, [0, 4, 12])}, fps=2)
    assert printed_ids(figure.axes[1]) == {"1": 1.0, "2": 4.0, "3": 8.0}
    assert (
        printed_ids(plot_skill_timeline(make_frames(20), {1: make_boundaries(20, [0, 4])}, fps=2, ids=False).axes[1])
        == {}
    )


def test_an_id_is_left_out_where_its_segment_is_too_narrow_and_fits_where_it_is_printed():
    length = 240
    starts = [0, *range(100, 200), 220]
    figure = plot_skill_timeline(make_frames(length), {1: make_boundaries(length, starts)}, fps=30)
    axes = figure.axes[1]
    assert set(printed_ids(axes)) == {"1", "101", "102"}
    segments = patches(axes, "segment-")
    for text in axes.texts:
        if text.get_text().isdecimal():
            segment = segments[int(text.get_text()) - 1].get_window_extent()
            box = text.get_window_extent()
            assert segment.x0 < box.x0 and box.x1 < segment.x1
            assert segment.y0 < box.y0 and box.y1 < segment.y1


def test_id_font_size_shrinks_and_then_gives_up():
    sizes = [id_font_size(88, width) for width in (40, 14, 12, 9)]
    assert sizes == [9.5, 8.0, 6.5, None]


@pytest.mark.parametrize("num_segments", [100, 400])
def test_many_segments_keep_their_geometry_and_their_colour(num_segments: int):
    length = 3 * num_segments
    figure = plot_skill_timeline(
        make_frames(length + 10), {1: torch.arange(length) % 3 == 0, 2: torch.arange(length) % 60 == 0}, fps=30
    )
    drawn = edges(figure.axes[1])
    assert len(drawn) == num_segments
    np.testing.assert_allclose(drawn, [(3 * i / 30, 3 * (i + 1) / 30) for i in range(num_segments)])
    # Most of a narrow segment's width is its colour, not the gaps between segments.
    (gaps,) = figure.axes[1].collections
    points_per_segment = patches(figure.axes[1], "segment-")[0].get_window_extent().width / figure.dpi * 72
    assert max(gaps.get_linewidths()[:-1]) <= 0.21 * points_per_segment


def lightness(color: str) -> float:
    """CIE L*, 0 to 100."""
    luminance = relative_luminance(color)
    return 116 * luminance ** (1 / 3) - 16


def test_neighbouring_segments_differ_in_greyscale():
    figure = plot_skill_timeline(make_frames(40), {1: torch.ones(40, dtype=torch.bool)}, fps=30)
    colors = [to_hex(patch.get_facecolor()) for patch in patches(figure.axes[1], "segment-")]
    assert len(colors) == 40
    differences = [abs(lightness(a) - lightness(b)) for a, b in itertools.pairwise(colors)]
    assert min(differences) >= 25


def test_luminance_agrees_with_known_values_and_ids_have_enough_contrast():
    assert relative_luminance("#ffffff") == pytest.approx(1)
    assert relative_luminance("#000000") == 0
    assert relative_luminance("#ff0000") == pytest.approx(0.2126)
    for color in SEGMENT_COLORS:
        bright, dark = sorted((relative_luminance(color), relative_luminance(text_color_on(color))), reverse=True)
        assert (bright + 0.05) / (dark + 0.05) >= 4.5  # WCAG AA


def test_thumbnails_show_the_frames_in_the_middle_of_their_slots():
    assert thumbnail_slots(10, 5) == [(0, 2, 1), (2, 4, 3), (4, 6, 5), (6, 8, 7), (8, 10, 9)]
    figure = plot_skill_timeline(make_frames(10), {1: make_boundaries(8, [0])}, fps=2, num_thumbnails=5)
    images = figure.axes[0].images
    assert [int(image.get_array()[0, 0, 0]) for image in images] == [1, 3, 5, 7, 9]
    centres = [sum(image.get_extent()[:2]) / 2 for image in images]
    np.testing.assert_allclose(centres, [0.5, 1.5, 2.5, 3.5, 4.5])


@pytest.mark.parametrize(("height", "width"), [(12, 16), (16, 16), (64, 16)])
def test_thumbnails_keep_their_shape(height: int, width: int):
    figure = plot_skill_timeline(make_frames(30, height, width), {1: make_boundaries(28, [0])}, fps=10)
    box = figure.axes[0].images[3].get_window_extent()
    assert box.height / box.width == pytest.approx(height / width, rel=0.02)


def test_fewer_frames_than_thumbnails():
    figure = plot_skill_timeline(make_frames(2), {1: make_boundaries(1, [0])}, fps=30, num_thumbnails=10)
    assert len(figure.axes[0].images) == 2
    assert figure_png(figure).startswith(b"\x89PNG")


def test_a_long_title_is_cut_and_is_not_read_as_mathematics():
    frames, boundaries = make_frames(20), {1: make_boundaries(20, [0])}
    figure = plot_skill_timeline(frames, boundaries, fps=10, title="put the $5 note_in the drawer " * 12)
    (title,) = figure.axes[0].texts
    assert title.get_text().endswith("\N{HORIZONTAL ELLIPSIS}")
    assert title.get_window_extent().x1 <= figure.axes[0].get_window_extent().x1 + 1
    (title,) = plot_skill_timeline(frames, boundaries, fps=10, title="pay $1 or $2").axes[0].texts
    assert title.get_text() == "pay $1 or $2"


def test_the_look_does_not_depend_on_the_callers_settings():
    import matplotlib

    arguments = (make_frames(20), {1: make_boundaries(16, [0, 5])})
    expected = figure_png(plot_skill_timeline(*arguments, fps=10))
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red", "axes.spines.top": False}):
        assert figure_png(plot_skill_timeline(*arguments, fps=10)) == expected


def test_segment_spans_cover_the_latent_actions():
    flags = torch.rand(50, generator=torch.Generator().manual_seed(0)) < 0.3
    flags[0] = True
    spans = segment_spans(flags, num_frames=60)
    assert len(spans) == int(flags.sum())
    assert [frame for start, stop in spans for frame in range(start, stop)] == list(range(50))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"boundaries": {}}, "boundaries is empty"),
        ({"boundaries": {1: torch.zeros(5, dtype=torch.bool)}}, "stage 1 must start with a boundary"),
        ({"boundaries": {2: torch.ones(21, dtype=torch.bool)}}, "stage 2 have length 21, expected 1 to 20"),
        ({"boundaries": {1: torch.ones(0, dtype=torch.bool)}}, "have length 0"),
        ({"boundaries": {1: torch.ones(5)}}, "must be bool"),
        ({"boundaries": {1: torch.ones(5, 2, dtype=torch.bool)}}, "must be bool"),
        ({"fps": 0}, "fps must be"),
        ({"fps": float("nan")}, "fps must be"),
        ({"num_thumbnails": 0}, "num_thumbnails must be"),
        ({"frames": torch.zeros(20, 3, 8, 8)}, "torch.uint8"),
        ({"frames": torch.zeros(20, 8, 8, 3, dtype=torch.uint8)}, "shape"),
        ({"frames": torch.zeros(0, 3, 8, 8, dtype=torch.uint8)}, "shape"),
    ],
)
def test_bad_input_is_named(change: dict, message: str):
    arguments = {"frames": make_frames(20), "boundaries": {1: make_boundaries(16, [0])}, "fps": 10} | change
    with pytest.raises(ValueError, match=message):
        plot_skill_timeline(**arguments)


def test_save_figure(tmp_path):
    figure = plot_skill_timeline(make_frames(4), {1: make_boundaries(4, [0])}, fps=10)
    path = save_figure(figure, tmp_path / "new folder" / "timeline.png")
    assert path.read_bytes() == figure_png(figure)
    assert save_figure(figure, tmp_path / "timeline.pdf").read_bytes().startswith(b"%PDF")
    with pytest.raises(ValueError, match=r"timeline\.xyz.*'\.xyz'"):
        save_figure(figure, tmp_path / "timeline.xyz")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["new folder", "timeline.pdf"]


def test_a_failed_save_leaves_the_old_picture(tmp_path, monkeypatch):
    figure = plot_skill_timeline(make_frames(4), {1: make_boundaries(4, [0])}, fps=10)
    path = tmp_path / "timeline.png"
    path.write_bytes(b"old")

    def fail(file, **_):
        file.write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(figure, "savefig", fail)
    with pytest.raises(OSError, match="No space left"):
        save_figure(figure, path)
    assert [file.name for file in tmp_path.iterdir()] == ["timeline.png"]
    assert path.read_bytes() == b"old"
