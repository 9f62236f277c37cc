#!/usr/bin/env python3
"""PyTorch's speed on airbench94, as `millrace bench train --device cuda` measures ours: whole training steps on random
images that lie on the device, channels-last. Prints one JSON line; with --compile the forward pass goes through
torch.compile. f16 trains with a GradScaler.

    torch_train.py --dtype bf16 --batch-size 1024 [--compile] [--device cpu]
"""
import argparse
import contextlib
import json
import statistics
import time

import torch
import torch.nn.functional as F
from torch import nn


class Group(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.c1 = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.c2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.n1 = nn.BatchNorm2d(outputs, eps=1e-12, momentum=0.4)
        self.n2 = nn.BatchNorm2d(outputs, eps=1e-12, momentum=0.4)
        for norm in (self.n1, self.n2):
            norm.weight.requires_grad_(False)

    def forward(self, x):
        x = F.gelu(self.n1(F.max_pool2d(self.c1(x), 2)))
        return F.gelu(self.n2(self.c2(x)))


class AirBench94(nn.Module):
    """As nn/models/airbench94.cpp."""

    def __init__(self):
        super().__init__()
        self.whiten = nn.Conv2d(3, 24, 2)
        self.whiten.weight.requires_grad_(False)
        self.groups = nn.Sequential(Group(24, 64), Group(64, 256), Group(256, 256))
        self.head = nn.Linear(256, 10, bias=False)

    def forward(self, x):
        x = self.groups(F.gelu(self.whiten(x)))
        return self.head(F.max_pool2d(x, 3).flatten(1)) / 9


DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dtype", choices=DTYPES, default="bf16")
    parser.add_argument("--batch-size", type=int, default=1024)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1, help="at least this long each")
    return parser.parse_args()


def resident(name):
    """Of this process, in bytes: VmRSS is now, VmHWM the most so far."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith(name))


def main():
    options = parse()
    on_gpu = options.device.startswith("cuda")
    torch.manual_seed(0)
    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    net = AirBench94().to(options.device, memory_format=torch.channels_last)
    images = torch.randn(options.batch_size, 3, 32, 32, device=options.device)
    images = images.contiguous(memory_format=torch.channels_last)
    labels = torch.randint(0, 10, (options.batch_size,), device=options.device)
    trained = [parameter for parameter in net.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=0.001, momentum=0.9, nesterov=True, weight_decay=5e-4,
                                **({"fused": True} if on_gpu else {}))
    scaler = torch.amp.GradScaler(enabled=options.dtype == "f16") if on_gpu else None
    forward = torch.compile(net) if options.compile else net
    kind = options.device.split(":")[0]

    def cast():
        return torch.autocast(kind, DTYPES[options.dtype]) if options.dtype != "f32" else contextlib.nullcontext()

    def step():
        optimizer.zero_grad(set_to_none=True)
        with cast():
            out = forward(images)
        loss = F.cross_entropy(out.float(), labels)
        if scaler is None:
            loss.backward()
            optimizer.step()
        else:
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
        return loss

    def wait():
        if on_gpu:
            torch.cuda.synchronize()

    before = resident("VmRSS")
    first = step().item()
    for _ in range(10 if on_gpu else 3):
        step()
    speeds = []
    for _ in range(options.repeats):
        wait()
        steps, start = 0, time.perf_counter()
        while steps == 0 or time.perf_counter() - start < options.seconds:
            for _ in range(10 if on_gpu else 1):  # the host runs ahead; it waits at the end alone
                last = step()
                steps += 1
            wait()
        speeds.append(steps * options.batch_size / (time.perf_counter() - start))
    last = last.item()
    if not last < first:
        raise SystemExit(f"the loss went from {first} to {last} on the same images; it should have fallen")
    median = statistics.median(speeds)
    print(json.dumps({
        "bench": "torch train", "version": torch.__version__, "cuda": torch.version.cuda,
        "device": torch.cuda.get_device_name() if on_gpu else options.device, "model": "airbench94",
        "dtype": options.dtype, "batch_size": options.batch_size, "compile": options.compile,
        "images_per_second": median, "repeats": speeds, "ms_per_step": 1e3 * options.batch_size / median,
        "resident_before": before, "resident_most": resident("VmHWM"), "first_loss": first, "last_loss": last}))


if __name__ == "__main__":
    main()
