"""Which library draws, and that quality changes what it should and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from hilam_hf.envs import rendering
from hilam_hf.envs.rendering import RendererProbe, RenderingError, RenderQuality, configure_rendering

SCENE = """
<mujoco>
  <visual><quality shadowsize="1024" offsamples="4"/></visual>
  <asset><material name="mirror" reflectance="0.8" rgba="0.5 0.5 0.5 1"/></asset>
  <worldbody>
    <light pos="1 1 3" dir="-1 -1 -3" castshadow="true"/>
    <geom type="plane" size="2 2 0.1" material="mirror"/>
    <geom type="box" size="0.1 0.1 0.4" pos="0 0 0.5" euler="0 20 30" rgba="0.9 0.2 0.1 1"/>
  </worldbody>
</mujoco>
"""


@pytest.fixture
def no_choice(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """A Linux process that has neither chosen a backend nor imported MuJoCo."""
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    monkeypatch.delenv(rendering._PROBED_VARIABLE, raising=False)
    monkeypatch.setattr(rendering, "_imported_backend", lambda: None)
    monkeypatch.setattr(rendering.platform, "system", lambda: "Linux")
    yield monkeypatch
    # configure_rendering() sets these itself, behind monkeypatch.
    os.environ.pop("MUJOCO_GL", None)
    os.environ.pop(rendering._PROBED_VARIABLE, None)


def drawing(*backends: str) -> Any:
    """Return a stand-in for `probe_renderer` with which only these backends draw."""

    def probe(backend: str) -> RendererProbe:
        if backend not in backends:
            raise RenderingError(f"{backend} does not draw: no library")
        return RendererProbe(backend, "vendor", "device", 1.0, "3.3.0")

    return probe


@pytest.mark.parametrize(("able", "chosen"), [(("egl", "osmesa"), "egl"), (("osmesa",), "osmesa")])
def test_auto_takes_egl_then_osmesa(no_choice: pytest.MonkeyPatch, able: tuple[str, ...], chosen: str) -> None:
    no_choice.setattr(rendering, "probe_renderer", drawing(*able))
    assert configure_rendering() == chosen
    assert os.environ["MUJOCO_GL"] == chosen


def test_nothing_that_draws_names_both_faults_and_the_remedy(no_choice: pytest.MonkeyPatch) -> None:
    no_choice.setattr(rendering, "probe_renderer", drawing())
    with pytest.raises(RenderingError, match=r"egl does not draw.*osmesa does not draw.*apt-get install .*libosmesa6"):
        configure_rendering()
    assert "MUJOCO_GL" not in os.environ


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        (
            "MUJOCO_EGL_DEVICE_ID",
            "99",
            "RuntimeError: The MUJOCO_EGL_DEVICE_ID environment variable must be ... got 99",
        ),
        ("PYOPENGL_PLATFORM", "osmesa", "ImportError: The PYOPENGL_PLATFORM environment variable is set to 'osmesa'"),
    ],
)
def test_a_wrong_variable_is_the_cause_that_is_named(
    no_choice: pytest.MonkeyPatch, variable: str, value: str, said: str
) -> None:
    # What MuJoCo's destructors say after the cause, as it was seen.
    noise = (
        "Exception ignored in: <function GLContext.__del__>\nAttributeError: 'GLContext' has no attribute '_context'"
    )
    ended = subprocess.CompletedProcess([], 1, stdout="", stderr=f"Traceback\n  File\n{said}\n{noise}\n")
    no_choice.setattr(rendering.subprocess, "run", lambda *_, **__: ended)
    no_choice.setattr(rendering, "probe_renderer", rendering.probe_renderer.__wrapped__)
    no_choice.setenv(variable, value)
    with pytest.raises(RenderingError) as raised:
        configure_rendering("egl")
    assert str(raised.value) == (
        f"MuJoCo cannot draw here (egl does not draw: {said}); unset {variable}, which is '{value}', or give it "
        "another value"
    )


def test_a_gpu_that_is_no_number_is_refused(no_choice: pytest.MonkeyPatch) -> None:
    no_choice.setenv("MUJOCO_EGL_DEVICE_ID", "first")
    with pytest.raises(RenderingError, match="MUJOCO_EGL_DEVICE_ID: got 'first', expected the number of a GPU"):
        configure_rendering()


def test_the_users_choice_is_kept(no_choice: pytest.MonkeyPatch) -> None:
    no_choice.setattr(rendering, "probe_renderer", drawing("egl", "osmesa"))
    no_choice.setenv("MUJOCO_GL", "OSMesa")
    assert configure_rendering() == "osmesa"


def test_the_users_choice_is_not_replaced_when_it_does_not_draw(no_choice: pytest.MonkeyPatch) -> None:
    no_choice.setattr(rendering, "probe_renderer", drawing("egl"))
    no_choice.setenv("MUJOCO_GL", "osmesa")
    with pytest.raises(RenderingError, match="osmesa does not draw"):
        configure_rendering()


def test_child_processes_do_not_try_again(no_choice: pytest.MonkeyPatch) -> None:
    no_choice.setattr(rendering, "probe_renderer", drawing("egl"))
    assert configure_rendering() == "egl"
    no_choice.setattr(rendering, "probe_renderer", drawing())
    assert configure_rendering() == "egl"


def test_unknown_backends_are_refused(no_choice: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="one of auto, egl, osmesa, glfw; got 'vulkan'"):
        configure_rendering("vulkan")  # type: ignore[arg-type]
    no_choice.setenv("MUJOCO_GL", "vulkan")
    with pytest.raises(ValueError, match="MUJOCO_GL must be one of egl, osmesa, glfw, or unset; got 'vulkan'"):
        configure_rendering()


def test_a_mujoco_imported_too_early_is_reported(no_choice: pytest.MonkeyPatch) -> None:
    no_choice.setattr(rendering, "probe_renderer", drawing("egl", "osmesa", "glfw"))
    no_choice.setattr(rendering, "_imported_backend", lambda: "glfw")
    with pytest.raises(RenderingError, match=r"imported before configure_rendering.*glfw instead of egl"):
        configure_rendering("egl")


@pytest.mark.parametrize(("system", "default"), [("Darwin", "cgl"), ("Windows", "glfw")])
def test_other_systems_keep_mujocos_default(no_choice: pytest.MonkeyPatch, system: str, default: str) -> None:
    no_choice.setattr(rendering.platform, "system", lambda: system)
    assert configure_rendering() == default
    assert "MUJOCO_GL" not in os.environ


def test_quality_names_are_checked() -> None:
    assert RenderQuality("fast") is RenderQuality.FAST
    assert RenderQuality(RenderQuality.EXACT) is RenderQuality.EXACT
    with pytest.raises(ValueError, match="one of exact, fast; got 'medium'"):
        RenderQuality("medium")


@pytest.mark.sim
def test_a_real_frame_is_drawn_in_a_fresh_process() -> None:
    environment = {k: v for k, v in os.environ.items() if k not in ("MUJOCO_GL", rendering._PROBED_VARIABLE)}
    code = (
        "from hilam_hf.envs.rendering import renderer_provenance; import json; print(json.dumps(renderer_provenance()))"
    )
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    provenance = rendering.json.loads(done.stdout.splitlines()[-1])
    assert provenance["backend"] in ("egl", "osmesa", "glfw", "cgl")
    assert provenance["gl_renderer"]
    assert provenance["quality"] is None


@pytest.mark.sim
def test_fast_leaves_out_shadows_reflections_and_multisampling() -> None:
    exact, fast = (_draw(quality) for quality in ("exact", "fast"))
    # A shadow darkens part of the floor; without it, with the same light, no shaded floor is left beside the box.
    assert np.abs(exact.astype(int) - fast).mean() > 1
    # Multisampling mixes the box's red with the floor at its edges; without it every pixel is box or not.
    assert _mixed_edge_pixels(exact) > 4 * _mixed_edge_pixels(fast)


@pytest.mark.sim
def test_the_model_is_as_before_and_flags_follow_the_quality() -> None:
    mujoco = pytest.importorskip("mujoco")
    model = mujoco.MjModel.from_xml_string(SCENE)
    flag = mujoco.mjtRndFlag
    for quality, shown in (("fast", 0), ("exact", 1)):
        with rendering.make_renderer(model, 32, 32, quality) as renderer:
            assert renderer.scene.flags[flag.mjRND_SHADOW] == shown
            assert renderer.scene.flags[flag.mjRND_REFLECTION] == shown
    assert (model.vis.quality.offsamples, model.vis.quality.shadowsize) == (4, 1024)
    with rendering.apply_render_quality(model, "fast"):
        assert (model.vis.quality.offsamples, model.vis.quality.shadowsize) == (0, 0)
    with pytest.raises(RuntimeError), rendering.apply_render_quality(model, "fast"):
        raise RuntimeError
    assert (model.vis.quality.offsamples, model.vis.quality.shadowsize) == (4, 1024)


@pytest.mark.sim
def test_a_backend_that_cannot_draw_says_why() -> None:
    # EGL refuses a device that does not exist.
    rendering.probe_renderer.cache_clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MUJOCO_EGL_DEVICE_ID", "999")
        with pytest.raises(RenderingError, match=r"egl does not draw: .*MUJOCO_EGL_DEVICE_ID.* got 999"):
            rendering.probe_renderer("egl")
    rendering.probe_renderer.cache_clear()


@pytest.mark.sim
def test_gpus_that_are_not_there_are_named(no_choice: pytest.MonkeyPatch) -> None:
    with pytest.raises(RenderingError, match=r"render_gpus: GPU 999: egl does not draw: .* got 999.*; name GPUs that"):
        rendering.check_render_gpus([999])
    no_choice.setenv("MUJOCO_GL", "osmesa")
    with pytest.raises(RenderingError, match="render_gpus: MUJOCO_GL is 'osmesa', which draws on no numbered GPU"):
        rendering.check_render_gpus([0])
    rendering.check_render_gpus([])


def _draw(quality: str) -> np.ndarray:
    mujoco = pytest.importorskip("mujoco")
    model = mujoco.MjModel.from_xml_string(SCENE)
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    with rendering.make_renderer(model, 96, 96, quality) as renderer:
        renderer.update_scene(data)
        return renderer.render().copy()


def _mixed_edge_pixels(picture: np.ndarray) -> int:
    """Count pixels whose redness lies between that of the grey floor and that of the box's faces."""
    red, green = picture[..., 0].astype(float) + 1, picture[..., 1].astype(float) + 1
    ratio = red / green
    return int(((ratio > 1.3) & (ratio < 3)).sum())
