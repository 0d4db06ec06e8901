"""Where the demo's artifacts lie."""

from pathlib import Path

from .config import DemoConfig


class DemoPaths:
    """Folders and files below the demo's output folder."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.recordings = folder / "recordings"
        self.episodes = folder / "episodes.json"
        self.lam = folder / "lam"
        self.hilam = folder / "hilam"
        self.latent_actions = folder / "corpora" / "latent-actions"
        self.latent_skills = folder / "corpora" / "latent-skills"
        self.pretraining = folder / "pretraining"
        self.figures = folder / "figures"

    def videos(self, config: DemoConfig) -> Path:
        """The folder of videos without actions: the user's own, or the recordings'."""
        return Path(config.videos) if config.videos is not None else self.recordings / "videos"

    def finetuning(self, arm: str) -> Path:
        """Where one of the two policies is fine-tuned."""
        return self.folder / "finetuning" / arm

    def evaluation(self, arm: str) -> Path:
        """Where the rollouts of one of the two policies are kept."""
        return self.folder / "evaluation" / arm

    def figure(self, name: str) -> Path:
        """A picture of the report."""
        self.figures.mkdir(parents=True, exist_ok=True)
        return self.figures / f"{name}.png"

    def relative(self, path: Path) -> str:
        """A path as it reads from within the output folder."""
        return path.relative_to(self.folder).as_posix()
