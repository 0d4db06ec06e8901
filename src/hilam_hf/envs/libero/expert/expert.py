"""The scripted expert of LIBERO: a plan from the task's BDDL goal, with noise and variation by seed."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .arm import Arm
from .goals import check_goals, solve
from .picking import GraspChoice
from .scene import Scene


class LiberoExpert:
    """Scripted expert of one LIBERO task, from its BDDL goal, over the privileged state, through OSC pose actions.

    The plan is closed over the simulator's state, so that it also leads to the goal under noise; it looks at that state
    whenever it is asked for an action, and counts on one step of the environment between two actions. Everything
    depends on the environment's state, `speed` and `seed` alone.

    Args:
        environment: LIBERO's own robosuite environment (`BDDLBaseDomain`, as `LiberoSimulator.environment`), after its
            reset, the initial state and the settle steps. One expert is for one episode.
        noise: Standard deviation of the noise of `perturb`, in the action's units.
        speed: Factor on the gains and bounds of the movements, about 0.7 to 1.3.
        seed: Seed of the noise and of the choice among nearly equal grasps; None takes the best grasp, and draws noise
            that differs from run to run.

    Attributes:
        phase: Word of `PHASES` in which the last action was chosen.
        finished: Whether the plan has ended: with the goal met and the hand withdrawn, or with no further idea. The
            environment's own predicate says which. Actions then hold the hand still and leave the gripper as it is.

    Raises:
        ValueError: `noise` is negative, `speed` not positive, or there is no plan for one of the task's goals.

    Example:
        >>> expert = LiberoExpert(simulator.environment, noise=0.05, speed=1.1, seed=3)
        >>> while not expert.finished:
        ...     simulator.step(expert.perturb(expert.act()))
    """

    def __init__(self, environment: Any, *, noise: float = 0.0, speed: float = 1.0, seed: int | None = None) -> None:
        if not noise >= 0.0:
            raise ValueError(f"noise must be at least 0, got {noise}")
        if not speed > 0.0:
            raise ValueError(f"speed must be more than 0, got {speed}")
        self.noise = noise
        self.phase = "approach"
        self.finished = False
        scene = Scene(environment)
        check_goals(scene)
        noise_seed, choice_seed = np.random.SeedSequence(seed).spawn(2)
        self._noise = np.random.default_rng(noise_seed)
        choice = GraspChoice(None if seed is None else np.random.default_rng(choice_seed))
        self._arm = Arm(scene, speed)
        self._plan = solve(self._arm, choice)

    def act(self) -> NDArray[np.float32]:
        """Choose the action for the environment's present state.

        Returns:
            float32 (7,) in [-1, 1]: displacement, rotation, and the gripper's effort, -1 to open and 1 to close.
        """
        if not self.finished:
            try:
                action, self.phase = next(self._plan)
                return action.clip(-1.0, 1.0).astype(np.float32)
            except StopIteration:
                self.finished = True
        return np.array([0.0] * 6 + [self._arm.gripper], dtype=np.float32)

    def perturb(self, action: ArrayLike) -> NDArray[np.float32]:
        """Add the next noise of the seed's sequence to the displacement and the rotation; the gripper is left alone.

        Args:
            action: (7,) in [-1, 1].

        Returns:
            float32 (7,) in [-1, 1].
        """
        perturbed = np.array(action, dtype=np.float32)
        perturbed[:6] += self._noise.normal(scale=self.noise, size=6)
        return perturbed.clip(-1.0, 1.0)
