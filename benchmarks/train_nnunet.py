"""nnU-Net's side of benchmarks/train.py, run by the interpreter that has nnU-Net: its own trainer, plans and data.

Takes the dataset's name and the device, then commands line by line: `step N`, `train N`, `load N`.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import resource
import sys
import time
from pathlib import Path

import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch.utils.flop_counter import FlopCounterMode

FOLDER_VARIABLE, WORKERS_VARIABLE = "nnUNet_preprocessed", "nnUNet_n_proc_DA"


def main() -> None:
    """Answer each line of the standard input by one of JSON."""
    folder, device = Path(os.environ[FOLDER_VARIABLE], sys.argv[1]), torch.device(sys.argv[2])
    plans = json.loads((folder / "nnUNetPlans.json").read_text())
    description = json.loads((folder / "dataset.json").read_text())
    answers = sys.stdout
    with contextlib.redirect_stdout(sys.stderr):
        trainer = nnUNetTrainer({**plans, "continue_training": False}, "3d_fullres", "all", description, device)
        trainer.initialize()
        trainer.network.train()
        loaders = {}
        for name, num_workers in (("load", 0), ("train", 1)):
            os.environ[WORKERS_VARIABLE] = str(num_workers)
            loaders[name] = trainer.get_dataloaders()[0]
        batch = next(loaders["load"])
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            trainer.network(batch["data"].to(device))
        facts = {
            "versions": f"nnU-Net {importlib.metadata.version('nnunetv2')}, torch {torch.__version__}",
            "network": f"{type(trainer.network).__name__} {trainer.configuration_manager.network_arch_init_kwargs}",
            "gmacs": counter.get_total_flops() / 2e9,
            "shape": list(batch["data"].shape),
            "threads": torch.get_num_threads(),
        }
        print(json.dumps(facts), file=answers, flush=True)
        for line in sys.stdin:
            what, number = line.split()
            start, start_cpu = time.perf_counter(), time.process_time()
            for _ in range(int(number)):
                drawn = batch if what == "step" else next(loaders[what])
                if what != "load":
                    trainer.train_step(drawn)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            answer = {
                "seconds": time.perf_counter() - start,
                "cpu_seconds": time.process_time() - start_cpu,
                "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
            }
            print(json.dumps(answer), file=answers, flush=True)
        loaders["train"]._finish()


if __name__ == "__main__":
    main()
