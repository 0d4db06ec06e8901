"""Meta-World tasks as gymnasium environments: camera pictures and end-effector state in, four numbers out.

Legend: H and W are the picture's height and width (equal here). Positions are in metres in the simulator's world frame,
where the robot stands at the origin and looks along +y.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...optional import require
from ..imports import require_simulator
from ..options import check_action, check_least
from ..protocols import EvaluationProtocol
from ..rendering import RenderQuality, make_renderer
from .cameras import CAMERAS, CameraView
from .declaration import EXTRA, METAWORLD
from .tasks import INSTRUCTIONS, normalize_task

if TYPE_CHECKING:
    import gymnasium
    from gymnasium import spaces
else:
    gymnasium = require("gymnasium", extra=EXTRA)
    spaces = gymnasium.spaces

ACTION_DIM = METAWORLD.robot.action_dim
"""Numbers in an action: end-effector displacement along x, y, z (1 is one centimetre) and the gripper's effort."""
AGENT_POS_DIM = 4
"""Numbers in `agent_pos`: end-effector x, y, z in metres, then the gripper's opening (0 closed to 1 open)."""
PRIVILEGED_DIM = 39
"""Numbers in Meta-World's own observation: this step's state (18), the last step's (18) and the goal (3)."""


class MetaWorldEnv(gymnasium.Env[dict[str, Any], NDArray[np.float32]]):
    """One Meta-World task, seen as a protocol says.

    An observation is `{"pixels": {camera: uint8 (H, W, 3)}, "agent_pos": float32 (4,)}`, where `agent_pos` is the
    end effector's x, y, z in metres and the gripper's opening (0 closed to 1 open). Pictures are the right way up.
    `pixels` is absent with `render=False` and after `step(..., draw=False)`; `privileged` (float64 (39,), Meta-World's
    own observation with the poses of objects and goal) is there only with `privileged=True`.

    An action is float32 (4,) in [-1, 1]: displacement of the end effector along x, y, z, where 1 is one centimetre,
    and the gripper's effort, where 1 closes. Values outside are clipped.

    `reset(seed=s)` fully determines the episode: object and goal poses depend on the task and the seed alone, not on
    episodes before it nor on the process. `info` holds `success` (and the same as `is_success`), `task`,
    `instruction` and `seed`.

    Args:
        task: Task of MT50, with or without `-v3`.
        protocol: The protocol or its name; it says which cameras of `CAMERAS` there are, and how large pictures are.
        quality: `"fast"` (no shadows, reflections nor multisampling) or another quality of `RenderQuality`.
        render: Whether observations hold pictures; without them no renderer is started.
        privileged: Whether observations hold the simulator's state, for experts and probes.
        terminate_on_success: Whether an episode ends at its first step with success.
        max_steps: Steps after which an episode is truncated; None for the protocol's.

    Raises:
        ValueError: The task, the protocol or a number is not valid.
        ImportError: Meta-World is not installed.

    Example:
        >>> env = MetaWorldEnv("drawer-open", render=False)
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
        protocol: str | EvaluationProtocol = "metaworld",
        quality: str | RenderQuality = "fast",
        render: bool = True,
        privileged: bool = False,
        terminate_on_success: bool = True,
        max_steps: int | None = None,
    ) -> None:
        self.task = normalize_task(task)
        self.instruction = INSTRUCTIONS[self.task]
        self.protocol = METAWORLD.protocol(protocol)
        self.max_steps = self.protocol.steps_of("") if max_steps is None else max_steps
        check_least(max_steps=(self.max_steps, 1), image_size=(self.protocol.image_size, 1))
        self.quality = RenderQuality(quality)
        self.render_pixels = render
        self.privileged = privileged
        self.terminate_on_success = terminate_on_success
        self.render_mode = "rgb_array"

        # The simulator counts the steps of settling, too.
        self._simulator = _make_simulator(self.task, self.protocol.settle_steps + self.max_steps, drawing=render)
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
        self, *, seed: int | None = None, options: dict[str, Any] | None = None, draw: bool = True
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Start an episode.

        Args:
            seed: Seed that determines object and goal poses; None draws the next one from the environment's generator.
            options: Not used.
            draw: Whether the observation holds pictures.

        Returns:
            The first observation, after settling, and `info`.
        """
        super().reset(seed=seed)
        self._episode_seed = int(self.np_random.integers(2**31)) if seed is None else seed
        self._raw_observation = _reset_simulator(self._simulator, self._episode_seed)
        self._steps = 0
        for _ in range(self.protocol.settle_steps):
            self._raw_observation = self._simulator.step(np.array(self.protocol.settle_action))[0]
        return self._observation(draw), self._info(success=False)

    def step(
        self, action: NDArray[np.float32], *, draw: bool = True
    ) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """Act for one control step (12.5 ms of simulated time).

        Args:
            action: (4,), end-effector displacement and gripper effort in [-1, 1].
            draw: Whether the observation holds pictures.

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
        check_action(action, ACTION_DIM, f"{self.task}, step {self._steps}")
        raw, reward, _, _, details = self._simulator.step(np.clip(action, -1.0, 1.0))
        self._raw_observation = raw
        self._steps += 1
        success = bool(details["success"])
        terminated = success and self.terminate_on_success
        truncated = not terminated and self._steps >= self.max_steps
        return self._observation(draw), float(reward), terminated, truncated, self._info(success=success)

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
        return self._draw(self.protocol.cameras[0])

    def close(self) -> None:
        """Release the renderer and the simulator; closing twice is harmless."""
        if self._close_renderer is not None:
            self._close_renderer()
            self._close_renderer = None
            self._renderer = None
        self._simulator.close()

    def _observation(self, draw: bool) -> dict[str, Any]:
        state = self.privileged_state()
        observation: dict[str, Any] = {"agent_pos": state[:AGENT_POS_DIM].astype(np.float32)}
        if self.render_pixels and draw:
            observation["pixels"] = {camera: self._draw(camera) for camera in self.protocol.cameras}
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
        shape = (self.protocol.image_size, self.protocol.image_size, 3)
        parts: dict[str, spaces.Space[Any]] = {"agent_pos": spaces.Box(-np.inf, np.inf, (AGENT_POS_DIM,), np.float32)}
        if self.render_pixels:
            views = {camera: spaces.Box(0, 255, shape, np.uint8) for camera in self.protocol.cameras}
            parts["pixels"] = spaces.Dict(views)  # type: ignore[arg-type]
        if self.privileged:
            parts["privileged"] = spaces.Box(-np.inf, np.inf, (PRIVILEGED_DIM,), np.float64)
        return spaces.Dict(parts)

    def _draw(self, camera: str) -> NDArray[np.uint8]:
        if self._renderer is None:
            model, size = self._simulator.model, self.protocol.image_size
            model.vis.global_.offwidth = max(model.vis.global_.offwidth, size)
            model.vis.global_.offheight = max(model.vis.global_.offheight, size)
            self._renderer = make_renderer(model, size, size, self.quality)
            # A graphics context must be freed while the interpreter is whole: at exit, if close() was forgotten.
            self._close_renderer = weakref.finalize(self, self._renderer.close)
        view = CAMERAS[camera]
        self._renderer.update_scene(self._simulator.data, camera=_simulator_camera(view))
        picture = self._renderer.render()
        return np.ascontiguousarray(picture[::-1, ::-1]) if view.upside_down else picture


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
    mujoco = require("mujoco", extra=EXTRA)
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
    mujoco = require("mujoco", extra=EXTRA)
    camera = mujoco.MjvCamera()
    camera.type = mujoco.mjtCamera.mjCAMERA_FREE
    camera.lookat[:] = view.lookat
    camera.distance, camera.azimuth, camera.elevation = view.distance, view.azimuth, view.elevation
    return camera
