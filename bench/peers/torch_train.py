#!/usr/bin/env python3
"""PyTorch's speed on the networks of `millrace bench train`, measured as ours is: whole training steps on random images
that lie on the device. Prints one JSON line; with --compile the forward pass goes through torch.compile. f16 trains with a
GradScaler.

    torch_train.py --model airbench94 --dtype bf16 --batch-size 1024 --channels-last [--compile] [--device cpu --threads 2]
"""
import argparse
import contextlib
import json
import statistics
import time

import torch
import torch.nn.functional as F
from torch import nn


class LeNet5(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.conv2, self.pool = nn.Conv2d(3, 6, 5), nn.Conv2d(6, 16, 5), nn.MaxPool2d(2, 2)
        self.fc1, self.fc2, self.fc3 = nn.Linear(400, 120), nn.Linear(120, 84), nn.Linear(84, 10)

    def forward(self, x):
        x = self.pool(F.relu(self.conv1(x)))
        x = self.pool(F.relu(self.conv2(x)))
        x = F.relu(self.fc1(x.flatten(1)))
        return self.fc3(F.relu(self.fc2(x)))


def conv_bn(inputs, outputs, pool=False):
    layers = [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, *([nn.MaxPool2d(2)] if pool else []))


class ResNet9(nn.Module):
    def __init__(self):
        super().__init__()
        self.prep, self.layer1 = conv_bn(3, 64), conv_bn(64, 128, True)
        self.res1 = nn.Sequential(conv_bn(128, 128), conv_bn(128, 128))
        self.layer2, self.layer3 = conv_bn(128, 256, True), conv_bn(256, 512, True)
        self.res2 = nn.Sequential(conv_bn(512, 512), conv_bn(512, 512))
        self.head = nn.Linear(512, 10)

    def forward(self, x):
        x = self.layer1(self.prep(x))
        x = x + self.res1(x)
        x = self.layer3(self.layer2(x))
        x = x + self.res2(x)
        return self.head(F.adaptive_max_pool2d(x, 1).flatten(1)) * 0.125


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


MODELS = {"lenet5": LeNet5, "resnet9": ResNet9, "airbench94": AirBench94}
DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=MODELS, default="airbench94")
    parser.add_argument("--dtype", choices=DTYPES, default="bf16")
    parser.add_argument("--batch-size", type=int, default=1024)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of the CPU")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1, help="at least this long each")
    return parser.parse_args()


def resident(name):
    """Of this process, in bytes: VmRSS is now, VmHWM the most so far."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith(name))


def stepper(options, net, images, labels):
    """A function that takes a step on the images and returns the loss."""
    on_gpu = options.device.startswith("cuda")
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

    return step


def main():
    options = parse()
    on_gpu = options.device.startswith("cuda")
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    order = torch.channels_last if options.channels_last else torch.contiguous_format
    net = MODELS[options.model]().to(options.device, memory_format=order)
    images = torch.randn(options.batch_size, 3, 32, 32, device=options.device).contiguous(memory_format=order)
    labels = torch.randint(0, 10, (options.batch_size,), device=options.device)
    step = stepper(options, net, images, labels)

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
        "system": f"torch {torch.__version__}", "cuda": torch.version.cuda,
        "device": torch.cuda.get_device_name() if on_gpu else options.device, "model": options.model,
        "dtype": options.dtype, "batch_size": options.batch_size, "compile": options.compile, "threads": options.threads,
        "channels_last": options.channels_last,
        "images_per_second": median, "repeats": speeds, "ms_per_step": 1e3 * options.batch_size / median,
        "resident_before": before, "resident_most": resident("VmHWM"), "first_loss": first, "last_loss": last}))


if __name__ == "__main__":
    main()
