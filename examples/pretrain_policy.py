"""Pretrain a hierarchical policy on videos labelled with skills and latent actions.

    accelerate launch examples/pretrain_policy.py latent-skills --videos videos --image-size 128 --out pretrained \
        --held-out 0.05 max_steps=50000 global_batch_size=256 mixed_precision=bf16 save_every=1000 validate_every=1000

This is `hilam train policy`, whose `--help` lists the options, on as many devices as accelerate is told of. The corpus
is one of `hilam skills`, a folder or a Hub id, and the videos are those that it was made from. Training options come as
KEY=VALUE, or from a YAML file with `--config`; see `hilam_hf.training.TrainingConfig`. `global_batch_size` is that of
all devices together. With `--held-out` the losses of held-out episodes are logged. A run that was interrupted goes on
with `--resume`. `examples/finetune_libero.py` fine-tunes what comes out.
"""

from hilam_hf.cli import run
from hilam_hf.cli.training import train_policy_command

if __name__ == "__main__":
    run(train_policy_command)
