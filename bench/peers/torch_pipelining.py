"""The benchmark transformer on torch.distributed.pipelining's GPipe schedule, one process per stage.

Started by bench/common.py, which sets RANK, WORLD_SIZE and RENDEZVOUS. Rank 0 prints {"step_seconds": median}.
"""

import argparse
import os

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.pipelining import PipelineStage, ScheduleGPipe

from steps import run_steps

MODEL_DIM, HEADS, FEED_FORWARD, TOKENS, BATCH = 256, 4, 1024, 32, 64


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--chunks", type=int, default=32)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.manual_seed(rank)
    device = torch.device(options.device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", init_method=os.environ["RENDEZVOUS"],
                            rank=rank, world_size=world, device_id=device if device.type == "cuda" else None)

    first, last = rank * options.layers // world, (rank + 1) * options.layers // world
    model = nn.Sequential(*[
        nn.TransformerEncoderLayer(MODEL_DIM, HEADS, FEED_FORWARD, dropout=0.0, batch_first=True)
        for _ in range(first, last)
    ]).to(device)
    schedule = ScheduleGPipe(PipelineStage(model, rank, world, device), options.chunks, loss_fn=nn.MSELoss())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    x = torch.randn(BATCH, TOKENS, MODEL_DIM, device=device)
    y = torch.randn(BATCH, TOKENS, MODEL_DIM, device=device)
    run_steps(schedule, optimizer, x, y, options.steps)


if __name__ == "__main__":
    main()
