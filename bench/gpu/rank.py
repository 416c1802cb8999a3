"""A process of the peers, one a GPU. Reads a case a line from standard input and answers each with a line: what it
measured, or the error that ended it. What libraries print goes to standard error.

Started by ranks.py, which sets RANK, WORLD_SIZE, DEVICE and RENDEZVOUS.
"""

from __future__ import annotations

import gc
import json
import os
import pathlib
import sys
import traceback

import torch
import torch.distributed as dist
import torch.utils.checkpoint
from torch.distributed import pipelining

import alone
import model as models

SCHEDULES = {"1f1b": pipelining.Schedule1F1B, "gpipe": pipelining.ScheduleGPipe}


def connect(device: torch.device) -> None:
    """Once, when the first pipeline is asked for."""
    if dist.is_initialized():
        return
    cuda = device.type == "cuda"
    dist.init_process_group("nccl" if cuda else "gloo", init_method=os.environ["RENDEZVOUS"],
                            rank=int(os.environ["RANK"]), world_size=int(os.environ["WORLD_SIZE"]),
                            device_id=device if cuda else None)
    dist.barrier()


def make_stage(case: dict, device: torch.device) -> tuple[models.Decoder, pipelining.PipelineStage]:
    shape, micro = models.SIZES[case["size"]], models.MICRO_BATCH[case["size"]]
    rank, world = dist.get_rank(), dist.get_world_size()
    cut = models.even_cut(shape, world)
    begin = sum(cut[:rank])
    part = models.empty_model(shape, range(begin, begin + cut[rank]), rank == 0, rank == world - 1)
    models.load_weights(part, pathlib.Path(case["folder"]) / "weights", device)
    part.recompute = case["checkpoint"] == "always"
    tokens = torch.empty(micro, shape.tokens, dtype=torch.int64, device="meta")
    hidden = torch.empty(micro, shape.tokens, shape.width, dtype=shape.dtype, device="meta")
    logits = torch.empty(micro, shape.tokens, shape.vocabulary, device="meta")
    return part, pipelining.PipelineStage(part, rank, world, device, input_args=(tokens if rank == 0 else hidden,),
                                          output_args=(logits if rank == world - 1 else hidden,))


def pipeline(case: dict, device: torch.device) -> dict:
    connect(device)
    part, stage = make_stage(case, device)
    first, last = stage.is_first, stage.is_last
    schedule = SCHEDULES[case["mode"]](stage, case["chunks"], loss_fn=models.loss_of)
    optimizer = alone.make_optimizer(part.parameters(), device)
    sequences = case["chunks"] * models.MICRO_BATCH[case["size"]]
    tokens, labels = (t.to(device) for t in models.data_of(models.SIZES[case["size"]], sequences))
    seconds, losses = [], []

    def step() -> None:
        optimizer.zero_grad()
        found = []
        schedule.step(*((tokens,) if first else ()), return_outputs=False,
                      **({"target": labels, "losses": found} if last else {}))
        optimizer.step()
        if last:
            losses.append(torch.stack([loss.detach() for loss in found]).mean())

    for _ in range(case["steps"]):
        dist.barrier()
        seconds.append(alone.timed(step, device))
    return {"step_seconds": seconds, "losses": [loss.item() for loss in losses], "cut": models.even_cut(
        models.SIZES[case["size"]], dist.get_world_size())}


def run(case: dict, device: torch.device) -> dict:
    if case["kind"] == "alone" and os.environ["RANK"] != "0":
        return {}  # Waits for the next case.
    result = alone.measure(case, device) if case["kind"] == "alone" else pipeline(case, device)
    if device.type == "cuda":
        result["peak_gib"] = torch.cuda.max_memory_allocated() / 2**30
    return result


def clean(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    device = torch.device(os.environ["DEVICE"])
    if device.type == "cuda":
        torch.cuda.set_device(device)
    else:
        torch.set_num_threads(1)
    for line in sys.stdin:
        try:
            reply = run(json.loads(line), device)
            clean(device)
        except Exception as error:
            traceback.print_exc()
            reply = {"error": f"{type(error).__name__}: {error}"[:400]}
        print(json.dumps(reply), file=answers, flush=True)
        if "error" in reply:
            break
    os._exit(0)  # Communicators' destructors would wait for peers that may be gone.


if __name__ == "__main__":
    main()
