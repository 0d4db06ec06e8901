"""How MuJoCo draws: which graphics library it uses without a screen, and at what quality.

MuJoCo chooses its graphics library when it is first imported, from the environment variable `MUJOCO_GL`; so
`configure_rendering()` comes before the first `import mujoco`. Worker processes inherit the choice.

Quality decides the cost on a CPU. Milliseconds a 128 x 128 frame of Meta-World's `corner2` camera, one thread of a
2-core machine, Mesa's llvmpipe through EGL (OSMesa takes the same):

| | ms |
| --- | --- |
| `exact`: MuJoCo's defaults | 101-110 |
| without multisampling | 71-84 |
| without shadows | 29-34 |
| without both | 13-15 |
| `fast`: without both and without reflections | 8-10 |

A fast frame differs from an exact one by 10 of 255 a pixel, nearly all of it shading, so record which was used.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from enum import Enum
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

from ..optional import require

if TYPE_CHECKING:
    import mujoco

Backend = Literal["auto", "egl", "osmesa", "glfw"]

BACKENDS = ("egl", "osmesa", "glfw")
HEADLESS_BACKENDS = ("egl", "osmesa")
INSTALL_COMMAND = "apt-get install -y libegl1 libgl1 libosmesa6"

# Set beside MUJOCO_GL once a frame was drawn with that backend, so that worker processes need not try again.
_PROBED_VARIABLE = "HILAM_PROBED_MUJOCO_GL"
_PROBE_SECONDS = 120
_GPU_VARIABLE = "MUJOCO_EGL_DEVICE_ID"
_VARIABLES = (_GPU_VARIABLE, "PYOPENGL_PLATFORM")
_PROBE_SCENE = """
<mujoco>
  <worldbody>
    <light pos="0 0 3"/>
    <geom type="plane" size="1 1 0.1" rgba="0.3 0.5 0.7 1"/>
    <geom type="sphere" size="0.2" pos="0 0 0.2" rgba="0.9 0.2 0.1 1"/>
  </worldbody>
</mujoco>
"""


class RenderingError(OSError):
    """MuJoCo cannot draw on this machine; the message says what to do."""


class RenderQuality(str, Enum):
    """What a picture shows beside the objects' own colours.

    `exact` is what the simulator draws by itself: 4-fold multisampling, shadows, reflections. `fast` has none of them
    and costs a tenth on a CPU. Both a member and its name are accepted wherever a quality is asked for.
    """

    EXACT = "exact"
    FAST = "fast"

    @classmethod
    def _missing_(cls, value: object) -> RenderQuality:
        raise ValueError(f"render quality must be one of {', '.join(q.value for q in cls)}; got {value!r}")


@dataclass(frozen=True)
class RendererProbe:
    """What one backend drew with.

    Attributes:
        backend: `egl`, `osmesa`, `glfw`, or `cgl` on macOS.
        gl_vendor: The graphics driver's vendor.
        gl_renderer: The device, such as `llvmpipe (LLVM 15.0.6, 256 bits)` for a CPU.
        milliseconds: Time of one 128 x 128 frame of a plane and a sphere.
        mujoco: MuJoCo's version.
    """

    backend: str
    gl_vendor: str
    gl_renderer: str
    milliseconds: float
    mujoco: str


def configure_rendering(backend: Backend = "auto") -> str:
    """Choose the graphics library that MuJoCo draws with, and see that it draws.

    Call it before the first `import mujoco`. The choice is kept in `MUJOCO_GL`, for this process and its children.

    Args:
        backend: `auto` keeps a `MUJOCO_GL` that is already set; otherwise, on Linux, it takes the first of EGL and
            OSMesa that draws a frame in a process of its own, and elsewhere MuJoCo's own default.

    Returns:
        The backend: `egl`, `osmesa`, `glfw`, or `cgl` on macOS.

    Raises:
        ValueError: `backend` or the value of `MUJOCO_GL` is not a backend.
        RenderingError: The backend does not draw, or MuJoCo was imported with another one before.

    Example:
        >>> configure_rendering()  # doctest: +SKIP
        'egl'
    """
    if backend not in ("auto", *BACKENDS):
        raise ValueError(f"rendering backend must be one of auto, {', '.join(BACKENDS)}; got {backend!r}")
    _check_gpu_variable()
    wanted = _backend_from_environment() if backend == "auto" else backend
    if wanted is None and platform.system() != "Linux":
        return _platform_default()
    imported = _imported_backend()
    if imported is not None and wanted in (None, imported):
        wanted = imported
    chosen = _first_that_draws(HEADLESS_BACKENDS if wanted is None else (wanted,))
    if imported is not None and imported != chosen:
        raise RenderingError(
            f"mujoco was imported before configure_rendering() and draws with {imported} instead of {chosen}; "
            f"call configure_rendering() first, or set MUJOCO_GL={chosen}"
        )
    os.environ["MUJOCO_GL"] = os.environ[_PROBED_VARIABLE] = chosen
    return chosen


@contextmanager
def apply_render_quality(model: mujoco.MjModel, quality: RenderQuality | str) -> Iterator[None]:
    """Make renderers that are created inside the block draw with or without multisampling and shadows.

    MuJoCo reads both from the model when a renderer is made; afterwards the model is as it was. Reflections are a
    flag of the renderer's scene: see `apply_scene_flags`. `make_renderer` does both for `mujoco.Renderer`.

    Args:
        model: The model that is drawn.
        quality: A quality or its name.

    Raises:
        ValueError: There is no such quality.
    """
    settings = model.vis.quality
    before = settings.offsamples, settings.shadowsize
    if RenderQuality(quality) is RenderQuality.FAST:
        settings.offsamples, settings.shadowsize = 0, 0
    try:
        yield
    finally:
        settings.offsamples, settings.shadowsize = before


def apply_scene_flags(scene: mujoco.MjvScene, quality: RenderQuality | str) -> None:
    """Switch shadows and reflections of a renderer's scene on or off.

    The scene is `renderer.scene` of a `mujoco.Renderer`, and `viewer.scn` of gymnasium's `OffScreenViewer` and of
    robosuite's `MjRenderContext`.

    Args:
        scene: The scene that is drawn; it keeps the flags from frame to frame.
        quality: A quality or its name.

    Raises:
        ValueError: There is no such quality.
    """
    flag = require("mujoco", extra="metaworld").mjtRndFlag
    shown = RenderQuality(quality) is RenderQuality.EXACT
    scene.flags[flag.mjRND_SHADOW] = shown
    scene.flags[flag.mjRND_REFLECTION] = shown


def make_renderer(model: mujoco.MjModel, height: int, width: int, quality: RenderQuality | str) -> mujoco.Renderer:
    """Make a renderer of a given quality.

    Args:
        model: The model that is drawn.
        height: Height of pictures in pixels.
        width: Width of pictures in pixels.
        quality: A quality or its name.

    Returns:
        The renderer; close it when done.

    Raises:
        ValueError: There is no such quality, or the picture is larger than the model's offscreen buffer.
    """
    mujoco = require("mujoco", extra="metaworld")
    with apply_render_quality(model, quality):
        renderer = mujoco.Renderer(model, height, width)
    apply_scene_flags(renderer.scene, quality)
    return renderer


def renderer_provenance(quality: RenderQuality | str | None = None) -> dict[str, Any]:
    """Describe what draws pictures here, for the record beside a measurement.

    Args:
        quality: The quality that was used, if pictures were drawn.

    Returns:
        `backend`, `gl_vendor`, `gl_renderer`, `mujoco` (its version), and `quality` (a name or None).

    Raises:
        RenderingError: Nothing draws here.
    """
    probe = asdict(probe_renderer(configure_rendering()))
    del probe["milliseconds"]
    return {**probe, "quality": None if quality is None else RenderQuality(quality).value}


@cache
def probe_renderer(backend: str, gpu: int | None = None) -> RendererProbe:
    """Draw one frame with a backend, in a process of its own since a broken driver can end it.

    Args:
        backend: `egl`, `osmesa`, `glfw` or `cgl`.
        gpu: Number of the GPU that draws, of EGL's; None for that of `MUJOCO_EGL_DEVICE_ID`, or EGL's choice.

    Returns:
        What drew, and how fast. The answer is kept for this process.

    Raises:
        RenderingError: It does not draw; the message holds what the process said of the cause.
    """
    command = [sys.executable, "-m", __name__]
    environment = {**os.environ, "MUJOCO_GL": backend}
    if gpu is not None:
        environment[_GPU_VARIABLE] = str(gpu)
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=_PROBE_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise RenderingError(f"{backend} drew nothing in {_PROBE_SECONDS} s") from error
    if done.returncode != 0:
        # Destructors of what was half made complain after the cause.
        said = done.stderr.partition("Exception ignored in")[0].strip().splitlines()
        said = said or [f"ended with status {done.returncode}"]
        raise RenderingError(f"{backend} does not draw: {said[-1].strip()}")
    return RendererProbe(**json.loads(done.stdout.strip().splitlines()[-1]))


def check_render_gpus(gpus: Sequence[int]) -> None:
    """See that MuJoCo draws on each of some GPUs.

    Args:
        gpus: Their numbers, as EGL counts them.

    Raises:
        RenderingError: One does not draw, or another graphics library than EGL is chosen.
    """
    if gpus and (backend := _backend_from_environment() or "egl") != "egl":
        raise RenderingError(
            f"render_gpus: MUJOCO_GL is {backend!r}, which draws on no numbered GPU; set MUJOCO_GL=egl, or name no GPU"
        )
    for gpu in dict.fromkeys(gpus):
        try:
            probe_renderer("egl", gpu)
        except RenderingError as error:
            raise RenderingError(f"render_gpus: GPU {gpu}: {error}; name GPUs that there are, or none") from error


def _backend_from_environment() -> str | None:
    value = os.environ.get("MUJOCO_GL", "").strip().lower()
    if not value:
        return None
    if value not in (*BACKENDS, "cgl"):
        raise ValueError(f"MUJOCO_GL must be one of {', '.join(BACKENDS)}, or unset; got {value!r}")
    return value


def _platform_default() -> str:
    return "cgl" if platform.system() == "Darwin" else "glfw"


def _imported_backend() -> str | None:
    """Return the backend of a MuJoCo that is already imported."""
    module = sys.modules.get("mujoco.gl_context")
    if module is None:
        return None
    return str(module.GLContext.__module__).rpartition(".")[2]


def _first_that_draws(backends: tuple[str, ...]) -> str:
    failures = []
    for backend in backends:
        if os.environ.get(_PROBED_VARIABLE) == backend:
            return backend
        try:
            return probe_renderer(backend).backend
        except RenderingError as error:
            failures.append(str(error))
    raise RenderingError(f"MuJoCo cannot draw here ({'; '.join(failures)}); {_remedy(failures)}")


def _remedy(failures: list[str]) -> str:
    """The variables that the failures are about, or else what to install."""
    blamed = [name for name in _VARIABLES if name in os.environ and any(name in failure for failure in failures)]
    if blamed:
        return " and ".join(f"unset {name}, which is {os.environ[name]!r}, or give it another value" for name in blamed)
    return f"on Debian or Ubuntu install a renderer, as root, with: apt-get update && {INSTALL_COMMAND}"


def _check_gpu_variable() -> None:
    number = os.environ.get(_GPU_VARIABLE)
    if number and not number.isdecimal():
        raise RenderingError(f"{_GPU_VARIABLE}: got {number!r}, expected the number of a GPU, such as 0; or unset it")


def _draw_probe_frame() -> RendererProbe:
    """Draw a scene with the backend in `MUJOCO_GL`, and look at it."""
    import mujoco
    from OpenGL import GL

    model = mujoco.MjModel.from_xml_string(_PROBE_SCENE)
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    with make_renderer(model, 128, 128, RenderQuality.FAST) as renderer:
        renderer.update_scene(data)
        # The first frame also uploads and compiles.
        renderer.render()
        start = time.perf_counter()
        picture = renderer.render()
        milliseconds = (time.perf_counter() - start) * 1e3
        vendor, device = (GL.glGetString(name).decode() for name in (GL.GL_VENDOR, GL.GL_RENDERER))
    if picture.min() == picture.max():
        raise RenderingError("the frame is of one colour")
    backend = os.environ.get("MUJOCO_GL") or _platform_default()
    return RendererProbe(backend, vendor, device, round(milliseconds, 2), mujoco.__version__)


if __name__ == "__main__":
    print(json.dumps(asdict(_draw_probe_frame())))
