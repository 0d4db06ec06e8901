"""Train a latent action model of any kind on a folder of videos.

    accelerate launch examples/train_lam.py clips --out lam max_steps=5000 ema_decay=0.999 mixed_precision=bf16

This is `hilam train lam`, whose `--help` lists the options, on as many devices as accelerate is told of. Training
options come as KEY=VALUE, or from a YAML file with `--config`; see `hilam_hf.training.TrainingConfig`. With
`--held-out 0.1 validate_every=500` the next-frame error on held-out videos is logged and drawn into OUT/validation. A
run that was interrupted goes on with `--resume`.
"""

from hilam_hf.cli import run
from hilam_hf.cli.training import train_lam_command

if __name__ == "__main__":
    run(train_lam_command)
