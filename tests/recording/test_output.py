"""Several formats at once."""

from __future__ import annotations

from hilam_hf.envs import EpisodeSpec
from hilam_hf.recording.output import Output
from tests.envs.toy_simulator import TOY, ToyDemonstrator


class Sink:
    """Notes what is added."""

    def __init__(self, held=()):
        self.held = dict.fromkeys(held)

    def has(self, name):
        return name in self.held

    def add(self, demonstration):
        self.held[demonstration.id] = demonstration


def test_a_format_that_an_interruption_left_behind_catches_up():
    spec = EpisodeSpec("left", 3, 3)
    demonstration = ToyDemonstrator(protocol=TOY.protocol(), quality="fast", noise=0.0).record(spec)
    ahead, behind = Sink(["left/episode_00003"]), Sink()
    output = Output([ahead, behind], {"renderer": "numpy"})
    assert not output.has("left/episode_00003")
    output.add(demonstration)
    assert output.has("left/episode_00003")
    assert ahead.held == {"left/episode_00003": None}
    assert behind.held["left/episode_00003"].metadata == {"renderer": "numpy"}
