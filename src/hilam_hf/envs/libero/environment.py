"""LIBERO's tasks as gymnasium environments under an evaluation protocol.

Legend: H and W are the picture's height and width (equal here), P the size of proprioception.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...libero_conventions import ACTION_DIM, PANDA
from ...optional import require
from ...video.orientation import orient_frames
from ..options import check_action, check_least
from ..protocols import EvaluationProtocol
from ..rendering import RenderQuality
from .assets import find_assets
from .declaration import LIBERO
from .initial_states import read_initial_states
from .package import EXTRA
from .robot_state import RobotState
from .simulator import CONTROL_FREQUENCY, LiberoSimulator
from .suites import LiberoTask, parse_task

if TYPE_CHECKING:
    import gymnasium
    from gymnasium import spaces
else:
    gymnasium = require("gymnasium", extra=EXTRA)
    spaces = gymnasium.spaces


class LiberoEnv(gymnasium.Env[dict[str, Any], NDArray[np.float32]]):
    """One LIBERO task, seen as a protocol says.

    An observation is `{"pixels": {camera: uint8 (H, W, 3)}, "agent_pos": float32 (P,)}`, what `agent_pos` holds being
    the protocol's choice. `pixels` is absent with `render=False` and after `step(..., draw=False)`.

    An action is float32 (7,) in [-1, 1]: displacement of the hand along x, y, z (1 is 5 cm) and rotation (1 is 0.5 rad)
    as goals of the arm's controller in the world frame, then the gripper, which 1 closes and -1 opens. Values outside
    are clipped.

    `reset(seed=s, options={"initial_state": i})` fully determines the episode. With `i`, which protocols with fixed
    initial states need, everything that moves starts from the benchmark's state number i and the seed draws the poses
    of fixtures; without, the seed draws everything. Settling is done in the reset, undrawn. `info` holds `success` (and
    the same as `is_success`), `task`, `instruction`, `seed` and `initial_state`.

    Args:
        task: A task, or its name such as `libero_goal/3`.
        protocol: The protocol or its name.
        quality: `exact`, LIBERO's own pixels, or `fast`, without multisampling, shadows and reflections: a quarter of
            the time on a CPU, to be recorded with every result.
        render: Whether observations hold pictures; without them no renderer is started.
        assets: Folder of LIBERO's assets, see `find_assets`.
        terminate_on_success: Whether an episode ends at its first step with success, as all the protocols have it.
        max_steps: Steps after which an episode is truncated; None for the protocol's.

    Raises:
        ValueError: The task, the protocol, a camera or a number is not valid.
        FileNotFoundError: There are no assets.
        ImportError: hf-libero is not installed.
        RenderingError: Nothing draws here.

    Example:
        >>> env = LiberoEnv("libero_goal/3", protocol="openvla")  # doctest: +SKIP
        >>> observation, info = env.reset(seed=7, options={"initial_state": 0})
        >>> observation["pixels"]["agentview"].shape, observation["agent_pos"].shape
        ((256, 256, 3), (8,))
    """

    metadata: dict[str, Any] = {  # noqa: RUF012 (gymnasium's own form)
        "render_modes": ["rgb_array"],
        "render_fps": CONTROL_FREQUENCY,
    }

    def __init__(
        self,
        task: str | LiberoTask = "libero_spatial/0",
        *,
        protocol: str | EvaluationProtocol = "openvla",
        quality: str | RenderQuality = "exact",
        render: bool = True,
        assets: str | Path | None = None,
        terminate_on_success: bool = True,
        max_steps: int | None = None,
    ) -> None:
        self.task = parse_task(task) if isinstance(task, str) else task
        self.protocol = LIBERO.protocol(protocol)
        self.quality = RenderQuality(quality)
        self.render_pixels = render
        self.terminate_on_success = terminate_on_success
        self.max_steps = self.protocol.steps_of(self.task.suite) if max_steps is None else max_steps
        check_least(max_steps=(self.max_steps, 1))
        self.fps = float(CONTROL_FREQUENCY)
        self.render_mode = "rgb_array"
        self.initial_states = read_initial_states(self.task.initial_states_file)
        self.assets = find_assets(assets)
        self.simulator = LiberoSimulator(self.task.bddl_file, self.assets, drawing=render)
        # If close() is forgotten.
        self._close_simulator = weakref.finalize(self, self.simulator.close)
        self._check_cameras()

        self._steps: int | None = None
        self._settings: dict[str, Any] = {}
        self._robot_state: RobotState | None = None
        self._pixels: dict[str, NDArray[np.uint8]] | None = None
        self.action_space = spaces.Box(-1.0, 1.0, (ACTION_DIM,), np.float32)
        self.observation_space = self._make_observation_space()

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None, draw: bool = True
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Start an episode.

        Args:
            seed: Seed of the reset; None draws one from the environment's generator.
            options: `{"initial_state": number}`; needed where the protocol's initial states are fixed, and None
                elsewhere.
            draw: Whether the observation holds pictures.

        Returns:
            The first observation, after settling, and `info`.

        Raises:
            ValueError: There is no such initial state, or the protocol wants one and none is given.
        """
        super().reset(seed=seed)
        episode_seed = int(self.np_random.integers(2**31)) if seed is None else seed
        number = (options or {}).get("initial_state")
        self.simulator.reset(episode_seed, self._initial_state(number))
        self._settings = {"seed": episode_seed, "initial_state": number}
        self._steps = 0
        self._observe(draw and self.protocol.settle_steps == 0)
        settle_action = np.array(self.protocol.settle_action)
        for step in reversed(range(self.protocol.settle_steps)):
            self._act(settle_action, draw=draw and step == 0)
        return self._observation(), self._info(success=False)

    def step(
        self, action: NDArray[np.float32], *, draw: bool = True
    ) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """Act for one control step (0.05 s of simulated time).

        Args:
            action: (7,) in [-1, 1].
            draw: Whether the observation holds pictures; nobody need draw what nobody looks at.

        Returns:
            The observation, LIBERO's reward (1 at success), whether the episode has ended by success, whether it was
            cut off after `max_steps`, and `info`.

        Raises:
            ValueError: The action has another shape, or holds NaN or infinity.
            RuntimeError: The environment has not been reset.
        """
        if self._steps is None:
            raise RuntimeError("step() called before reset()")
        action = np.asarray(action, dtype=np.float64)
        check_action(action, ACTION_DIM, f"{self.task.id}, step {self._steps}")
        success = self._act(np.clip(action, -1.0, 1.0), draw=draw)
        self._steps += 1
        terminated = success and self.terminate_on_success
        truncated = not terminated and self._steps >= self.max_steps
        return self._observation(), float(success), terminated, truncated, self._info(success=success)

    def robot_state(self) -> RobotState:
        """Return the robot's state that the last observation is of.

        Raises:
            RuntimeError: The environment has not been reset.
        """
        if self._robot_state is None:
            raise RuntimeError("robot_state() called before reset()")
        return self._robot_state

    def render(self) -> NDArray[np.uint8]:
        """Draw the first camera's view now.

        Returns:
            uint8 (H, W, 3), turned as the protocol says.
        """
        return self._draw(self.protocol.cameras[:1])[self.protocol.cameras[0]]

    def close(self) -> None:
        """Release the renderer and the simulator; closing twice is harmless."""
        self._close_simulator()
        self._steps = None

    def _act(self, action: NDArray[np.float64], *, draw: bool) -> bool:
        self._pixels = None
        return self.simulator.step(action, lambda: self._observe(draw))

    def _observe(self, draw: bool) -> None:
        self._robot_state = self.simulator.robot_state()
        self._pixels = self._draw(self.protocol.cameras) if draw and self.render_pixels else None

    def _observation(self) -> dict[str, Any]:
        observation: dict[str, Any] = {
            "agent_pos": PANDA.agent_pos(self.robot_state().parts(), self.protocol.proprioception)
        }
        if self._pixels is not None:
            observation["pixels"] = self._pixels
        return observation

    def _info(self, *, success: bool) -> dict[str, Any]:
        return {
            "success": success,
            "is_success": success,
            "task": self.task.id,
            "instruction": self.task.instruction,
            **self._settings,
        }

    def _draw(self, cameras: Sequence[str]) -> dict[str, NDArray[np.uint8]]:
        pictures = self.simulator.draw(cameras, self.protocol.image_size, self.quality)
        return {
            camera: np.ascontiguousarray(orient_frames(picture, "none", self.protocol.image_transform))
            for camera, picture in pictures.items()
        }

    def _initial_state(self, number: int | None) -> NDArray[np.float64] | None:
        fixed = self.protocol.initial_states == "fixed"
        if number is None:
            if fixed:
                raise ValueError(
                    f"{self.task.id}: protocol {self.protocol.name} has fixed initial states: pass "
                    f'options={{"initial_state": 0}} up to {len(self.initial_states) - 1}'
                )
            return None
        if not fixed:
            raise ValueError(f"{self.task.id}: protocol {self.protocol.name} draws initial states, got number {number}")
        if not 0 <= number < len(self.initial_states):
            raise ValueError(f"{self.task.id} has initial states 0 to {len(self.initial_states) - 1}, got {number}")
        return self.initial_states[number]

    def _check_cameras(self) -> None:
        there = self.simulator.cameras()
        missing = [camera for camera in self.protocol.cameras if camera not in there]
        if missing or not self.protocol.cameras:
            raise ValueError(f"{self.task.id} has no camera {', '.join(missing)}; it has {', '.join(there)}")

    def _make_observation_space(self) -> spaces.Dict:
        size = PANDA.agent_pos_dim(self.protocol.proprioception)
        parts: dict[str, spaces.Space[Any]] = {"agent_pos": spaces.Box(-np.inf, np.inf, (size,), np.float32)}
        if self.render_pixels:
            shape = (self.protocol.image_size, self.protocol.image_size, 3)
            views = {camera: spaces.Box(0, 255, shape, np.uint8) for camera in self.protocol.cameras}
            parts["pixels"] = spaces.Dict(views)  # type: ignore[arg-type]
        return spaces.Dict(parts)
