"""What the peers of torch.distributed.pipelining share: their ranks run steps together and say how long they take."""

import json
import statistics
import time

import torch
import torch.distributed as dist

SKIPPED = 2  # Steps at the beginning.


def run_steps(schedule, optimizer: torch.optim.Optimizer, x: torch.Tensor, y: torch.Tensor, steps: int) -> None:
    """Rank 0 prints {"step_seconds": median}. The first rank has the inputs, the last one the targets."""
    rank, world = dist.get_rank(), dist.get_world_size()
    seconds = []
    for _ in range(steps):
        dist.barrier()
        begin = time.perf_counter()
        optimizer.zero_grad()
        losses = []
        inputs = (x,) if rank == 0 else ()
        schedule.step(*inputs, **({"target": y, "losses": losses} if rank == world - 1 else {}))
        optimizer.step()
        if losses:
            torch.stack(losses).mean().item()
        if x.device.type == "cuda":
            torch.cuda.synchronize()
        dist.barrier()
        seconds.append(time.perf_counter() - begin)
    if rank == 0:
        print(json.dumps({"step_seconds": statistics.median(seconds[SKIPPED:])}), flush=True)
    dist.destroy_process_group()
