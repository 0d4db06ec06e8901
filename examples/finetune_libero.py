"""Fine-tune a pretrained hierarchical policy on demonstrations of LIBERO, ready for `hilam eval`.

    hilam record --suite libero_10 --tasks 0 --episodes 50 --out recordings
    accelerate launch examples/finetune_libero.py --policy org/hilam-policy --suite libero_10 --tasks 0 \
        --demonstrations recordings --protocol openvla --out finetuned max_steps=5000 method=lora
    hilam eval --policy finetuned/policy --suite libero_10 --tasks 0 --protocol openvla --out results

This is `hilam train finetune`, whose `--help` lists the options, on as many devices as accelerate is told of.
Demonstrations are those of `hilam record`, LIBERO's official HDF5 files, or a LeRobot dataset (folder or Hub id).
Training options come as KEY=VALUE, or from a YAML file with `--config` (see `FinetuningConfig`). The protocol decides
how pictures lie and what proprioception is made of, for training as in evaluation.
"""

from hilam_hf.cli import run
from hilam_hf.cli.training import finetune_command

if __name__ == "__main__":
    run(finetune_command)
