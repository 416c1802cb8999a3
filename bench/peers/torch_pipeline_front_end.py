"""A model of bench/exported_models.py cut by torch.distributed.pipelining's pipeline() and run on its GPipe schedule.

Started by bench/common.py, which sets RANK, WORLD_SIZE and RENDEZVOUS. Rank 0 prints {"step_seconds": median}.
"""

import argparse
import os
import pathlib
import sys

import torch
import torch.distributed as dist
from torch.distributed.pipelining import ScheduleGPipe, SplitPoint, pipeline

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from exported_models import CASES  # noqa: E402
from steps import run_steps  # noqa: E402


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("case", choices=CASES)
    parser.add_argument("--split", nargs="+", required=True, help="modules at which a new stage begins")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--chunks", type=int, default=32)
    parser.add_argument("--steps", type=int, default=8)
    options = parser.parse_args()
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    dist.init_process_group("gloo", init_method=os.environ["RENDEZVOUS"], rank=rank, world_size=world)

    case = CASES[options.case]
    data = case.data(options.batch)
    pipe = pipeline(case.model().train(), mb_args=(data["x"][:options.batch // options.chunks],),
                    split_spec={module: SplitPoint.BEGINNING for module in options.split})
    stage = pipe.build_stage(rank, torch.device("cpu"))
    schedule = ScheduleGPipe(stage, options.chunks, loss_fn=case.loss)
    optimizer = torch.optim.SGD(stage.submod.parameters(), lr=0.01)
    run_steps(schedule, optimizer, data["x"], data["y"], options.steps)


if __name__ == "__main__":
    main()
