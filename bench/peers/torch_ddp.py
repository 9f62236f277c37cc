#!/usr/bin/env python3
"""PyTorch's DistributedDataParallel over Gloo on airbench94, as `millrace launch -n N -- train` measures ours: whole
training steps, one process and one thread a rank, on random images in memory, channels-last. Rank 0 prints one JSON line.

    torch_ddp.py --ranks 2 --dtype bf16 --batch-size 1024      # the batch over all ranks; --ranks 1 trains without DDP
"""
import argparse
import contextlib
import json
import os
import statistics
import time

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F

from torch_train import DTYPES, AirBench94


def train(rank, options):
    os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[rank]})
    torch.set_num_threads(1)
    torch.manual_seed(rank)
    net = AirBench94().to(memory_format=torch.channels_last)
    if options.ranks > 1:
        os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
        os.environ.setdefault("MASTER_PORT", str(options.port))
        dist.init_process_group("gloo", rank=rank, world_size=options.ranks)
        net = torch.nn.parallel.DistributedDataParallel(net, gradient_as_bucket_view=True)
    share = options.batch_size // options.ranks
    images = torch.randn(share, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(0, 10, (share,))
    trained = [parameter for parameter in net.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=0.001, momentum=0.9, nesterov=True, weight_decay=5e-4)

    def step():
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", DTYPES[options.dtype]) if options.dtype != "f32" else contextlib.nullcontext():
            out = net(images)
        loss = F.cross_entropy(out.float(), labels)
        loss.backward()
        optimizer.step()
        return loss.item()

    first = step()
    step()
    speeds = []
    for _ in range(options.repeats):
        start = time.perf_counter()
        for _ in range(options.steps):
            last = step()
        speeds.append(options.steps * options.batch_size / (time.perf_counter() - start))
    if not last < first:
        raise SystemExit(f"rank {rank}: the loss went from {first} to {last} on the same images; it should have fallen")
    if rank == 0:
        print(json.dumps({"bench": "torch ddp", "system": f"torch {torch.__version__}", "ranks": options.ranks,
                          "dtype": options.dtype, "batch_size": options.batch_size,
                          "images_per_second": statistics.median(speeds), "repeats": speeds}))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--dtype", choices=["f32", "bf16"], default="bf16")
    parser.add_argument("--batch-size", type=int, default=1024)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--steps", type=int, default=5, help="in each repeat")
    parser.add_argument("--port", type=int, default=29511)
    options = parser.parse_args()
    if options.ranks == 1:
        train(0, options)
    else:
        mp.spawn(train, args=(options,), nprocs=options.ranks)


if __name__ == "__main__":
    main()
