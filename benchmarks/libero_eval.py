"""LIBERO episodes a machine gets through: our evaluation against LIBERO's own loop and its SubprocVectorEnv.

All play the same actions, which the scripted experts chose beforehand, from the same initial states, and must come to
the same ends. Each runs in a process of its own, one after the other, all of them twice and, where the spread leaves a
claim open, a third time; what counts is the whole time, environments and resets included. LIBERO draws both cameras at
every step. Ours draws what the policy reads: at every step, and in a second run for a policy that executes eight
actions of each predicted chunk.

.venv/bin/python benchmarks/libero_eval.py [--tasks libero_object/0 libero_object/1] [--states 4] [--workers 2] [--json]
.venv/bin/python benchmarks/libero_eval.py --memory-episodes 1000
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from _libero_contenders import CONTENDERS
from _measure import MEASURED_AT_MOST, Claim, Timing, spread_cell, spread_of, table

from hilam_hf.envs.libero import LiberoEnv
from hilam_hf.envs.libero.expert.expert import LiberoExpert
from hilam_hf.envs.protocols import EpisodeSpec
from hilam_hf.envs.registry import get_protocol
from hilam_hf.envs.rendering import renderer_provenance
from hilam_hf.envs.workers import Worker

AIMS = {
    ("exact", "sequential"): 1.8,
    ("fast", "sequential"): 4.0,
    ("exact", "subproc"): 1.0,
    ("fast", "subproc"): 1.0,
}
FLAT_AIM = 0.98
CHUNK_LENGTH = 8
MEASURED_AT_LEAST = 2


def experts_actions(task: str, states: list[int], seed: int) -> tuple[dict[str, list[list[float]]], int]:
    """The experts' actions of each episode, and the protocol's step limit."""
    environment = LiberoEnv(task, protocol="openvla", render=False)
    actions = {}
    for number in states:
        environment.reset(seed=seed + number, options={"initial_state": number})
        expert = LiberoExpert(environment.simulator.environment)
        chosen, over = [], False
        while not over:
            chosen.append(expert.act())
            _, _, terminated, truncated, _ = environment.step(chosen[-1])
            over = terminated or truncated
        actions[f"{task} {number}"] = np.stack(chosen).tolist()
    environment.close()
    return actions, environment.max_steps


def run(contender: str, job: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Run one contender in a process of its own."""
    file = folder / "job.json"
    file.write_text(json.dumps(job))
    command = [sys.executable, str(Path(__file__).with_name("_libero_contenders.py")), contender, str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{contender} failed:\n{done.stderr}")
    outcome: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return outcome


def run_all(job: dict[str, Any], folder: Path) -> dict[str, dict[str, Any]]:
    """Run every contender once, and ours as of a policy that executes chunks; all must come to the same ends."""
    outcomes = {name: run(name, job, folder) for name in CONTENDERS}
    for name in ("exact", "fast"):
        outcomes[f"{name}, chunks of {CHUNK_LENGTH}"] = run(name, job | {"chunk_length": CHUNK_LENGTH}, folder)
    expected = outcomes["sequential"]["successes"]
    for name, outcome in outcomes.items():
        if outcome["successes"] != expected:
            raise RuntimeError(f"{name} came to other ends than LIBERO: {outcome['successes']} instead of {expected}")
    return outcomes


def run_until_steady(job: dict[str, Any], folder: Path) -> list[dict[str, dict[str, Any]]]:
    """Run everything in rounds, until the spread leaves no claim open or `MEASURED_AT_MOST` rounds are done."""
    rounds: list[dict[str, dict[str, Any]]] = []
    while len(rounds) < MEASURED_AT_LEAST or (
        len(rounds) < MEASURED_AT_MOST and any(claim.unsteady for claim in speed_claims(rounds))
    ):
        rounds.append(run_all(job, folder))
    return rounds


def seconds_per_step(rounds: list[dict[str, dict[str, Any]]]) -> dict[str, Timing]:
    """Of each contender over all rounds."""
    return {name: Timing(tuple(each[name]["seconds"] / each[name]["steps"] for each in rounds)) for name in rounds[0]}


def speed_claims(rounds: list[dict[str, dict[str, Any]]]) -> list[Claim]:
    """Our two qualities against LIBERO's two loops."""
    timings = seconds_per_step(rounds)
    claims = []
    for (ours, peer), aim in AIMS.items():
        rates = 1 / timings[ours].median, 1 / timings[peer].median
        spread = spread_of(timings, (ours, peer))
        claims.append(Claim(f"libero_{ours}_vs_{peer}", rates[0] / rates[1], aim, *rates, "steps/s", spread))
    return claims


def memory_growth(episodes: int) -> tuple[int, int]:
    """Resident bytes of a worker after a tenth of so many short episodes, and after all."""
    protocol = get_protocol("openvla").with_options(settle_steps=1, image_size=64)
    sizes = []
    with Worker("hilam_hf.envs.libero.host:LiberoHost", protocol=protocol, quality="fast") as worker:
        for index in range(episodes):
            worker.send("reset", EpisodeSpec("libero_object/0", index, index, index % 50), True)
            worker.receive()
            worker.send("step", np.zeros(7), True)
            worker.receive()
            if index + 1 in (episodes // 10, episodes):
                worker.send("memory")
                sizes.append(worker.receive())
    return sizes[0], sizes[-1]


def main() -> None:
    """Runs all contenders and prints the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", default=["libero_object/0", "libero_object/1"], help="LIBERO tasks")
    parser.add_argument("--states", type=int, default=2, help="initial states of each task")
    parser.add_argument("--workers", type=int, default=2, help="processes of SubprocVectorEnv and of ours")
    parser.add_argument("--image-size", type=int, default=256, help="side of the pictures")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--memory-episodes", type=int, default=100, help="short episodes over which memory is watched")
    parser.add_argument("--json", action="store_true", help="print a JSON line a claim, last")
    options = parser.parse_args()

    states = list(range(options.states))
    actions, limits = {}, []
    for task in options.tasks:
        chosen, limit = experts_actions(task, states, options.seed)
        actions |= chosen
        limits.append(limit)
    job = {
        "tasks": options.tasks,
        "states": states,
        "seed": options.seed,
        "image_size": options.image_size,
        "workers": options.workers,
        "max_steps": max(limits),
        "chunk_length": 1,
        "actions": actions,
    }
    with tempfile.TemporaryDirectory() as folder:
        rounds = run_until_steady(job, Path(folder))
    outcomes, claims = rounds[-1], speed_claims(rounds)
    rows = [
        [name, f"{outcomes[name]['steps']}", f"{1 / timing.median:.1f}", f"±{timing.spread:.0%}"]
        for name, timing in seconds_per_step(rounds).items()
    ]
    print(f"Median of {len(rounds)} rounds (spread: half of the range)\n")
    print(table(["", "environment steps", "steps/s", "spread"], rows))
    rows = [[c.name, f"{c.ratio:.2f}", f"{c.aim}", spread_cell(c.ratio, c.aim, c.spread or 0.0)] for c in claims]
    print(table(["", "ratio", "aim", "spread"], rows))
    before, after = memory_growth(options.memory_episodes)
    memory = max(outcomes["exact"]["memory"]) / 2**20
    successes = outcomes["sequential"]["successes"].values()
    print(f"successes {sum(successes)} of {len(successes)} in all; {memory:.0f} MiB an environment; ")
    print(f"after {options.memory_episodes // 10} short episodes {before / 2**20:.0f} MiB, ", end="")
    print(f"after {options.memory_episodes} {after / 2**20:.0f} MiB")
    if options.json:
        claims.append(Claim("libero_memory_flat", before / after, FLAT_AIM, after / 2**20, before / 2**20, "MiB"))
        _print_claims(claims)


def _print_claims(claims: list[Claim]) -> None:
    renderer = renderer_provenance()
    machine = f"{platform.machine()}, {os.cpu_count()} cores, {renderer['backend']} ({renderer['gl_renderer']})"
    for claim in claims:
        print(claim.json_line(machine))


if __name__ == "__main__":
    main()
