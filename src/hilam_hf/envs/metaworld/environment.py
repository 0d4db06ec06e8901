"""Meta-World tasks as gymnasium environments: camera pictures and end-effector state in, four numbers out.

Legend: H and W are the picture's height and width (equal here). Positions are in metres in the simulator's world frame,
where the robot stands at the origin and looks along +y.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...optional import require
from ..imports import require_simulator
from ..rendering import RenderQuality, make_renderer
from .tasks import INSTRUCTIONS, normalize_task

if TYPE_CHECKING:
    import gymnasium
    from gymnasium import spaces
else:
    gymnasium = require("gymnasium", extra="metaworld")
    spaces = gymnasium.spaces

ACTION_DIM = 4
"""Numbers in an action: end-effector displacement along x, y, z (1 is one centimetre) and the gripper's effort."""
AGENT_POS_DIM = 4
"""Numbers in `agent_pos`: end-effector x, y, z in metres, then the gripper's opening (0 closed to 1 open)."""
PRIVILEGED_DIM = 39
"""Numbers in Meta-World's own observation: this step's state (18), the last step's (18) and the goal (3)."""


@dataclass(frozen=True)
class CameraView:
    """Where a camera stands.

    Attributes:
        model_camera: Name of a camera of Meta-World's model; None for a pose given by the other fields.
        upside_down: The model's camera is mounted upside down: its picture has to be turned by 180 degrees.
        lookat: Point that the camera looks at, in metres.
        distance: Distance from that point in metres.
        azimuth: Direction in the table's plane that it looks in, in degrees.
        elevation: Angle to the table's plane in degrees; negative looks down.
    """

    model_camera: str | None = None
    upside_down: bool = False
    lookat: tuple[float, float, float] = (0.0, 0.0, 0.0)
    distance: float = 1.0
    azimuth: float = 90.0
    elevation: float = -45.0


CAMERAS: dict[str, CameraView] = {
    "corner": CameraView("corner", upside_down=True),
    "corner2": CameraView("corner2", upside_down=True),
    # corner2 moved to (0.75, 0.075, 0.7), a pose in common use; the model calls it corner4.
    "corner2_close": CameraView("corner4", upside_down=True),
    "corner3": CameraView("corner3", upside_down=True),
    "topview": CameraView("topview"),
    "behindGripper": CameraView("behindGripper"),
    "gripperPOV": CameraView("gripperPOV"),
    # From corner2's side, near enough for the gripper and the object to show at 64 pixels.
    "workspace": CameraView(lookat=(0.0, 0.66, 0.14), distance=1.08, azimuth=135.0, elevation=-30.0),
}


class MetaWorldEnv(gymnasium.Env[dict[str, Any], NDArray[np.float32]]):
    """One Meta-World task seen through cameras.

    An observation is `{"pixels": {camera: uint8 (H, W, 3)}, "agent_pos": float32 (4,)}`, where `agent_pos` is the
    end effector's x, y, z in metres and the gripper's opening (0 closed to 1 open). Pictures are the right way up.
    `pixels` is absent with `render=False`; `privileged` (float64 (39,), Meta-World's own observation with the poses
    of objects and goal) is there only with `privileged=True`.

    An action is float32 (4,) in [-1, 1]: displacement of the end effector along x, y, z, where 1 is one centimetre,
    and the gripper's effort, where 1 closes. Values outside are clipped.

    `reset(seed=s)` fully determines the episode: object and goal poses depend on the task and the seed alone, not on
    episodes before it nor on the process. `info` holds `success` (and the same as `is_success`), `task`,
    `instruction` and `seed`.

    Args:
        task: Task of MT50, with or without `-v3`.
        camera: Name of a view in `CAMERAS`, or several names.
        image_size: Height and width of pictures in pixels.
        quality: `"fast"` (no shadows, reflections nor multisampling) or another quality of `RenderQuality`.
        max_steps: Steps after which an episode is truncated.
        render: Whether observations hold pictures; without them no renderer is started.
        privileged: Whether observations hold the simulator's state, for experts and probes.
        terminate_on_success: Whether an episode ends at its first step with success.

    Raises:
        ValueError: The task, the camera or a number is not valid.
        ImportError: Meta-World is not installed.

    Example:
        >>> env = MetaWorldEnv("drawer-open", image_size=64, render=False)
        >>> observation, info = env.reset(seed=0)
        >>> observation["agent_pos"].shape, info["instruction"]
        ((4,), 'open the drawer')
        >>> env.close()
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 80}  # noqa: RUF012 (gymnasium's own form)

    def __init__(
        self,
        task: str = "drawer-open",
        *,
        camera: str | Sequence[str] = "corner2",
        image_size: int = 128,
        quality: str | RenderQuality = "fast",
        max_steps: int = 200,
        render: bool = True,
        privileged: bool = False,
        terminate_on_success: bool = True,
    ) -> None:
        self.task = normalize_task(task)
        self.instruction = INSTRUCTIONS[self.task]
        self.cameras = camera_names(camera)
        self.image_size = _positive("image_size", image_size)
        self.max_steps = _positive("max_steps", max_steps)
        self.quality = RenderQuality(quality)
        self.render_pixels = render
        self.privileged = privileged
        self.terminate_on_success = terminate_on_success
        self.render_mode = "rgb_array"

        self._simulator = _make_simulator(self.task, self.max_steps, drawing=render)
        self.fps = 1.0 / float(self._simulator.dt)
        self.metadata = {**self.metadata, "render_fps": round(self.fps)}
        self._renderer: Any = None
        self._close_renderer: weakref.finalize | None = None
        self._raw_observation: NDArray[np.float64] | None = None
        self._episode_seed = 0
        self._steps = 0

        self.action_space = spaces.Box(-1.0, 1.0, (ACTION_DIM,), np.float32)
        self.observation_space = self._make_observation_space()

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Start an episode.

        Args:
            seed: Seed that determines object and goal poses; None draws the next one from the environment's generator.
            options: Not used.

        Returns:
            The first observation and `info`.
        """
        super().reset(seed=seed)
        self._episode_seed = int(self.np_random.integers(2**31)) if seed is None else seed
        self._raw_observation = _reset_simulator(self._simulator, self._episode_seed)
        self._steps = 0
        return self._observation(), self._info(success=False)

    def step(self, action: NDArray[np.float32]) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """Act for one control step (12.5 ms of simulated time).

        Args:
            action: (4,), end-effector displacement and gripper effort in [-1, 1].

        Returns:
            The observation, Meta-World's reward, whether the episode has ended by success, whether it was cut off
            after `max_steps`, and `info`.

        Raises:
            ValueError: The action has another shape, or holds NaN or infinity.
            RuntimeError: The environment has not been reset.
        """
        if self._raw_observation is None:
            raise RuntimeError("step() called before reset()")
        action = np.asarray(action, dtype=np.float32)
        if action.shape != (ACTION_DIM,) or not np.isfinite(action).all():
            raise ValueError(
                f"{self.task}, step {self._steps}: an action must be {ACTION_DIM} finite numbers, got "
                f"{np.array2string(action, threshold=8)} of shape {action.shape}"
            )
        raw, reward, _, _, details = self._simulator.step(np.clip(action, -1.0, 1.0))
        self._raw_observation = raw
        self._steps += 1
        success = bool(details["success"])
        terminated = success and self.terminate_on_success
        truncated = not terminated and self._steps >= self.max_steps
        return self._observation(), float(reward), terminated, truncated, self._info(success=success)

    def privileged_state(self) -> NDArray[np.float64]:
        """Return Meta-World's own observation, for experts and probes.

        Returns:
            (39,): end-effector position (3), gripper opening (1), poses of up to two objects (14); the same a step
            earlier (18); the goal's position (3). Metres and unit quaternions.

        Raises:
            RuntimeError: The environment has not been reset.
        """
        if self._raw_observation is None:
            raise RuntimeError("privileged_state() called before reset()")
        return self._raw_observation.copy()

    def render(self) -> NDArray[np.uint8]:
        """Draw the first camera's view now.

        Returns:
            uint8 (H, W, 3), the right way up.
        """
        return self._draw(self.cameras[0])

    def close(self) -> None:
        """Release the renderer and the simulator; closing twice is harmless."""
        if self._close_renderer is not None:
            self._close_renderer()
            self._close_renderer = None
            self._renderer = None
        self._simulator.close()

    def _observation(self) -> dict[str, Any]:
        state = self.privileged_state()
        observation: dict[str, Any] = {"agent_pos": state[:AGENT_POS_DIM].astype(np.float32)}
        if self.render_pixels:
            observation["pixels"] = {camera: self._draw(camera) for camera in self.cameras}
        if self.privileged:
            observation["privileged"] = state
        return observation

    def _info(self, *, success: bool) -> dict[str, Any]:
        return {
            "success": success,
            "is_success": success,
            "task": self.task,
            "instruction": self.instruction,
            "seed": self._episode_seed,
        }

    def _make_observation_space(self) -> spaces.Dict:
        shape = (self.image_size, self.image_size, 3)
        parts: dict[str, spaces.Space[Any]] = {"agent_pos": spaces.Box(-np.inf, np.inf, (AGENT_POS_DIM,), np.float32)}
        if self.render_pixels:
            views = {camera: spaces.Box(0, 255, shape, np.uint8) for camera in self.cameras}
            parts["pixels"] = spaces.Dict(views)  # type: ignore[arg-type]
        if self.privileged:
            parts["privileged"] = spaces.Box(-np.inf, np.inf, (PRIVILEGED_DIM,), np.float64)
        return spaces.Dict(parts)

    def _draw(self, camera: str) -> NDArray[np.uint8]:
        if self._renderer is None:
            model, size = self._simulator.model, self.image_size
            model.vis.global_.offwidth = max(model.vis.global_.offwidth, size)
            model.vis.global_.offheight = max(model.vis.global_.offheight, size)
            self._renderer = make_renderer(model, size, size, self.quality)
            # A graphics context must be freed while the interpreter is whole: at exit, if close() was forgotten.
            self._close_renderer = weakref.finalize(self, self._renderer.close)
        view = CAMERAS[camera]
        self._renderer.update_scene(self._simulator.data, camera=_simulator_camera(view))
        picture = self._renderer.render()
        return np.ascontiguousarray(picture[::-1, ::-1]) if view.upside_down else picture


def make_env(task: str = "drawer-open", **options: Any) -> MetaWorldEnv:
    """Make the environment of a task.

    Args:
        task: Task of MT50, with or without `-v3`.
        options: Options of `MetaWorldEnv`.

    Returns:
        The environment, not yet reset.
    """
    return MetaWorldEnv(task, **options)


def camera_names(camera: str | Sequence[str]) -> tuple[str, ...]:
    """Return the names of one or several views.

    Raises:
        ValueError: There is no such view, none is given, or one is given twice.
    """
    names = (camera,) if isinstance(camera, str) else tuple(camera)
    unknown = [name for name in names if name not in CAMERAS]
    if unknown or not names or len(set(names)) != len(names):
        raise ValueError(f"camera must be one or several different of {', '.join(CAMERAS)}; got {camera!r}")
    return names


def _positive(option: str, value: int) -> int:
    if value < 1:
        raise ValueError(f"{option} must be at least 1, got {value}")
    return value


def _make_simulator(task: str, max_steps: int, *, drawing: bool) -> Any:
    """Make Meta-World's own environment with the goal observable and its poses drawn from a seeded generator."""
    environments = require_simulator("metaworld.env_dict", drawing=drawing).ALL_V3_ENVIRONMENTS
    simulator = environments[f"{task}-v3"]()
    simulator.max_path_length = max_steps
    simulator.seeded_rand_vec = True
    # Meta-World hides the goal and asks for a pickled task before stepping; the benchmark MT1 undoes both in this way.
    simulator._set_task_called = True
    simulator._partially_observable = False
    vars(simulator).pop("sawyer_observation_space", None)
    return simulator


def _reset_simulator(simulator: Any, seed: int) -> NDArray[np.float64]:
    """Reset so that the state depends on the seed alone, and return the observation of that state.

    Meta-World moves bodies of the model after it has placed the hand, and some tasks neither propagate that to the
    simulated data nor reset it: after one reset the state (and the picture) still shows poses of the draw before. So
    the poses are drawn in one reset and kept through a second, as its benchmarks do, and kinematics are then computed.
    """
    mujoco = require("mujoco", extra="metaworld")
    simulator.np_random = np.random.default_rng(seed)
    simulator._freeze_rand_vec = False
    simulator.reset()
    simulator._freeze_rand_vec = True
    simulator.reset()
    mujoco.mj_forward(simulator.model, simulator.data)
    for site, position in simulator._target_site_config:
        simulator._set_pos_site(site, position)
    simulator._prev_obs = simulator._get_curr_obs_combined_no_goal()
    return np.asarray(simulator._get_obs(), dtype=np.float64)


def _simulator_camera(view: CameraView) -> Any:
    """Return what MuJoCo's renderer takes as a camera: the name of one in the model, or a free one."""
    if view.model_camera is not None:
        return view.model_camera
    mujoco = require("mujoco", extra="metaworld")
    camera = mujoco.MjvCamera()
    camera.type = mujoco.mjtCamera.mjCAMERA_FREE
    camera.lookat[:] = view.lookat
    camera.distance, camera.azimuth, camera.elevation = view.distance, view.azimuth, view.elevation
    return camera
