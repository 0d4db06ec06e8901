"""LIBERO's simulation stepped and drawn by us: the same states and pictures, bit for bit, at a fraction of the cost.

LIBERO's own environment builds the model anew at every reset, computes positions, contacts and velocities three times a
substep, and draws every camera at every step. Here the model is built once, a substep computes them once, and pictures
are drawn on demand.

LIBERO's observations aren't of the end of a control step: robosuite samples its sensors when a clock of their own has
run out, and each forced reading at a reset puts that clock forward by one of the step's 25 substeps. After an initial
state has been set (two readings) they are of the 24th substep, after a plain reset (one reading) of the 25th, in every
step. Pictures and proprioception are taken at that substep, and positions that MuJoCo derives (of bodies and sites)
are those from the substep's beginning, as in LIBERO.
"""

from __future__ import annotations

import atexit
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...optional import require
from ..rendering import RenderQuality, make_renderer
from .culling import needed_geometries
from .package import EXTRA, import_libero
from .robot_state import RobotState

if TYPE_CHECKING:
    import mujoco

CONTROL_FREQUENCY = 20
"""Control steps in a second of simulated time."""
_PLACEMENT_TRIES = 100
# One when the model is loaded, one when its renderer is made.
_EVALUATIONS_OF_A_NEW_MODEL = 2
_CHANGED_BY_EPISODES = ("body_pos", "body_quat", "site_rgba", "geom_rgba")
# MuJoCo's geometries of these groups are collision shapes, which LIBERO does not draw.
_COLLISION_GROUP, _VISUAL_GROUP = 0, 1


class LiberoSimulator:
    """One task's simulation.

    Args:
        bddl_file: Definition of the task.
        assets: Folder of LIBERO's assets.
        drawing: Whether pictures are going to be drawn.

    Attributes:
        environment: LIBERO's own environment (a robosuite environment), whose model and state this steps; for experts
            and for whatever else needs the whole simulation. Its `step` and `reset` are not to be called.

    Raises:
        ImportError: hf-libero is not installed.
        RenderingError: Nothing draws here, and `drawing` is set.
    """

    def __init__(self, bddl_file: Path, assets: Path, *, drawing: bool = True) -> None:
        envs = import_libero(assets, drawing=drawing)
        self._mujoco = require("mujoco", extra=EXTRA)
        self.environment = _make_environment(envs, bddl_file)
        self._substeps = round(self.environment.control_timestep / self.environment.model_timestep)
        self._sampled_substep = self._substeps - 1
        self._renderer: Any = None
        self._drawn_at: tuple[int, RenderQuality] | None = None
        self._scene_option: Any = None

    @property
    def model(self) -> mujoco.MjModel:
        """MuJoCo's model."""
        return self.environment.sim.model._model

    @property
    def data(self) -> mujoco.MjData:
        """MuJoCo's data."""
        return self.environment.sim.data._data

    def reset(self, seed: int, initial_state: NDArray[np.float64] | None = None) -> None:
        """Start an episode.

        The poses of fixtures are drawn from the seed alone; LIBERO's depend on how often an environment was reset, too,
        where a task begins with something open or closed, since it then keeps the samplers of all resets before.

        Args:
            seed: Seed of everything that the reset draws.
            initial_state: (n,), one of `read_initial_states`: positions and velocities of everything that moves. None
                leaves the drawn ones.

        Raises:
            ValueError: The initial state is of another task.
        """
        environment = self.environment
        with _seeded_numpy(seed):
            _place(environment.reset)
        for robot in environment.robots:
            # Part of the state that neither LIBERO's initial states hold nor a soft reset clears.
            robot.gripper.current_action = np.zeros(robot.gripper.dof)
        self._sampled_substep = self._substeps - 1
        if initial_state is not None:
            self._set_initial_state(np.asarray(initial_state, dtype=np.float64))

    def step(self, action: NDArray[Any], sample: Callable[[], None] | None = None) -> bool:
        """Act for one control step (0.05 s of simulated time).

        Args:
            action: (7,): displacement of the hand along x, y, z (1 is 5 cm) and its rotation (1 is 0.5 rad), both as
                goals of the controller in the world frame, then the gripper, which 1 closes and -1 opens.
            sample: Called at the moment of the step that LIBERO's observation is of.

        Returns:
            Whether the goal is met now.
        """
        environment, model, data = self.environment, self.model, self.data
        solve = partial(self._mujoco.mj_forwardSkip, model, data, self._mujoco.mjtStage.mjSTAGE_VEL, 1)
        with _replaced(environment.sim, forward=solve):
            for substep in range(self._substeps):
                self._mujoco.mj_step1(model, data)
                # Twice as robosuite does, here and in the controller: the solver begins from what it last found, so
                # that states would differ in their last bits without.
                solve()
                environment._pre_action(action, substep == 0)
                self._mujoco.mj_step2(model, data)
                if substep == self._sampled_substep and sample is not None:
                    sample()
        environment.timestep += 1
        environment.cur_time += environment.control_timestep
        return self._update()

    def success(self) -> bool:
        """Return whether LIBERO's goal is met."""
        return bool(self.environment._check_success())

    def state(self) -> NDArray[np.float64]:
        """Return time, positions and velocities, (n,), as LIBERO's initial states hold them."""
        return np.asarray(self.environment.sim.get_state().flatten())

    def set_state(self, state: NDArray[np.float64]) -> None:
        """Put everything that moves into a state, (n,), in the middle of an episode.

        Raises:
            ValueError: The state is of another task.
        """
        expected = 1 + self.model.nq + self.model.nv
        if state.shape != (expected,):
            raise ValueError(
                f"{Path(self.environment.bddl_file_name).stem}: a state has {expected} numbers, got shape "
                f"{state.shape}: it belongs to another task or another version of the assets"
            )
        self.environment.sim.set_state_from_flattened(state)
        self.environment.sim.forward()
        self._update()

    def robot_state(self) -> RobotState:
        """Return what LIBERO's observations say of the robot now."""
        data, robot = self.data, self.environment.robots[0]
        hand = data.xquat[self.model.body(robot.robot_model.eef_name).id]
        return RobotState(
            ee_position=data.site_xpos[robot.eef_site_id].copy(),
            ee_quaternion=np.roll(hand, -1),
            joint_positions=data.qpos[robot._ref_joint_pos_indexes].copy(),
            gripper_positions=data.qpos[robot._ref_gripper_joint_pos_indexes].copy(),
        )

    def cameras(self) -> list[str]:
        """Return the names of the model's cameras."""
        return [self.model.camera(index).name for index in range(self.model.ncam)]

    def draw(self, cameras: Sequence[str], size: int, quality: RenderQuality) -> dict[str, NDArray[np.uint8]]:
        """Draw cameras now.

        Args:
            cameras: Names of the model's cameras.
            size: Height and width in pixels.
            quality: `exact` for LIBERO's own pixels, or `fast`.

        Returns:
            uint8 (H, W, 3) for each camera, the bottom row first, as LIBERO gives them.
        """
        renderer = self._renderer_for(size, quality)
        pictures = {}
        for camera in cameras:
            with self._only_needed(camera, quality):
                renderer.update_scene(self.data, camera=camera, scene_option=self._scene_option)
            pictures[camera] = renderer.render()[::-1]
        return pictures

    def close(self) -> None:
        """Release the renderer and the simulation; closing twice is harmless."""
        if self._renderer is not None:
            atexit.unregister(self._renderer.close)
            self._renderer.close()
            self._renderer = self._drawn_at = None

    def _set_initial_state(self, state: NDArray[np.float64]) -> None:
        self.set_state(state)
        # LIBERO's sensors are read here once more: see the module.
        self._sampled_substep -= 1

    def _update(self) -> bool:
        """Check the goal and update what shows it, such as a burner's glow."""
        success = self.success()
        self.environment._post_process()
        return success

    @contextmanager
    def _only_needed(self, camera: str, quality: RenderQuality) -> Iterator[None]:
        """Leave out of a scene what does not show in its picture."""
        model = self.model
        needed = needed_geometries(model, self.data, model.camera(camera).id, quality)
        groups = model.geom_group.copy()
        model.geom_group[~needed] = _COLLISION_GROUP
        try:
            yield
        finally:
            model.geom_group[:] = groups

    def _renderer_for(self, size: int, quality: RenderQuality) -> Any:
        if self._drawn_at != (size, quality):
            self.close()
            buffer = self.model.vis.global_
            buffer.offwidth, buffer.offheight = max(buffer.offwidth, size), max(buffer.offheight, size)
            self._renderer = make_renderer(self.model, size, size, quality)
            # Registered after the graphics library's own farewell, and so called before it.
            atexit.register(self._renderer.close)
            self._drawn_at = (size, quality)
            self._scene_option = self._mujoco.MjvOption()
            self._scene_option.geomgroup[_COLLISION_GROUP] = 0
            self._scene_option.geomgroup[_VISUAL_GROUP] = 1
        return self._renderer


def _make_environment(envs: Any, bddl_file: Path) -> Any:
    from libero.libero.envs import bddl_utils

    controllers = require("robosuite", extra=EXTRA).load_controller_config(default_controller="OSC_POSE")
    problem = bddl_utils.get_problem_info(str(bddl_file))["problem_name"]
    kind = _softly_reset(envs.TASK_MAPPING[problem])
    with warnings.catch_warnings(), _seeded_numpy(0):
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        environment = _place(
            lambda: kind(
                str(bddl_file),
                robots=["Panda"],
                controller_configs=controllers,
                gripper_types="default",
                initialization_noise=None,
                use_camera_obs=False,
                has_offscreen_renderer=False,
                control_freq=CONTROL_FREQUENCY,
                ignore_done=True,
                hard_reset=False,
            )
        )
    # Nothing reads robosuite's observations.
    environment._observables = {}
    return environment


def _softly_reset(kind: type[Any]) -> type[Any]:
    """Derive the class of LIBERO's environment whose soft reset leaves what a new model would.

    A reset writes the poses of fixtures into the model, and an episode the looks of what it switches on. The solver
    starts from its last solution, so even the evaluations that robosuite makes of a new model are repeated.
    """

    def initialize(self: Any, xml_string: str | None = None) -> None:
        kind._initialize_sim(self, xml_string)
        simulation, model = self.sim, self.sim.model._model
        new = {name: getattr(model, name).copy() for name in _CHANGED_BY_EPISODES}
        clear = simulation.reset

        def reset() -> None:
            for name, values in new.items():
                getattr(model, name)[:] = values
            clear()
            for _ in range(_EVALUATIONS_OF_A_NEW_MODEL):
                simulation.forward()

        simulation.reset = reset

    # LIBERO compares the name of the class with that of the problem.
    return type(kind.__name__, (kind,), {"_initialize_sim": initialize})


def _place(draw: Callable[[], Any]) -> Any:
    """Try until objects find a place, as LIBERO does, but not for ever."""
    from robosuite.utils.errors import RandomizationError

    for _ in range(_PLACEMENT_TRIES):
        try:
            return draw()
        except RandomizationError as error:
            failure = error
    raise ValueError(f"objects found no place in {_PLACEMENT_TRIES} tries; choose another seed") from failure


@contextmanager
def _seeded_numpy(seed: int) -> Iterator[None]:
    """Seed NumPy's global generator, from which LIBERO draws, and put it back afterwards."""
    before = np.random.get_state()
    np.random.seed(seed % 2**32)
    try:
        yield
    finally:
        np.random.set_state(before)


@contextmanager
def _replaced(target: Any, **attributes: Any) -> Iterator[None]:
    """Give an object other attributes of its own inside the block."""
    vars(target).update(attributes)
    try:
        yield
    finally:
        for name in attributes:
            delattr(target, name)
