"""Train HiLAM on a corpus of latent actions.

    accelerate launch examples/pretrain_hilam.py latent-actions --preset base --out hilam --held-out 0.05 \
        max_steps=100000 global_batch_size=256 mixed_precision=bf16 save_every=1000 validate_every=1000

This is `hilam train hilam`, whose `--help` lists the options, on as many devices as accelerate is told of. The corpus
is one of `hilam extract`, a folder or a Hub id. Training options come as KEY=VALUE, or from a YAML file with
`--config`; see `HiLAMTrainingConfig`. `global_batch_size` is that of all devices together. With `--held-out` loss and
boundary rates of held-out episodes are logged. A run that was interrupted goes on with `--resume`.
"""

from hilam_hf.cli import run
from hilam_hf.cli.training import train_hilam_command

if __name__ == "__main__":
    run(train_hilam_command)
