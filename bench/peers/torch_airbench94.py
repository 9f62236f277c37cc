#!/usr/bin/env python3
"""PyTorch's run of `millrace train --recipe airbench94`: the recipe of arXiv 2404.00498 on a folder of class folders of
images. All images are decoded into memory first. Prints one JSON line a seed: accuracy without and with test-time
augmentation, the seconds that training took (whitening, augmentation and averaging of weights included; opening,
decoding and evaluation not), those by the rules of the record (training, and the evaluation with test-time augmentation), and
those since the process began.

    torch_airbench94.py DIR [--seeds 1] [--dtype bf16] [--epochs 9.9] [--threads 2] [--device cuda [--compile]]

DIR holds train/ and test/. Needs Debian's python3-torch and python3-pil. On a GPU the images lie there, and in f16 the weights but
those of batch norm are f16 themselves, as in the published script; with --compile a shorter training goes before, not timed.
"""
import argparse
import contextlib
import json
import math
import pathlib
import time

import numpy
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from torch_train import DTYPES, AirBench94

BEGIN = time.perf_counter()

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
BATCH, MOMENTUM, SHIFT = 1024, 0.85, 2
NESTEROV = 1 + 1 / (1 - MOMENTUM)  # a step is so much longer than a gradient
RATE, DECAY, BIAS_RATE = 11.5 / (1024 * NESTEROV), 0.0153 * BATCH / (1024 * NESTEROV), 64
LOOKAHEAD, LOOKAHEAD_DECAY, WHITEN_EPOCHS = 5, 0.95**5, 3


def decode(folder):
    """u8 [N, 3, H, W] and labels, in the order of the names."""
    images, labels = [], []
    for label, kind in enumerate(sorted(p for p in folder.iterdir() if p.is_dir())):
        for path in sorted(kind.iterdir()):
            with Image.open(path) as image:
                images.append(numpy.asarray(image.convert("RGB")))
            labels.append(label)
    return torch.from_numpy(numpy.stack(images)).permute(0, 3, 1, 2), torch.tensor(labels)


def normalize(images):
    mean, std = (torch.tensor(values, device=images.device).view(1, 3, 1, 1) for values in (MEAN, STD))
    return (images / 255 - mean) / std


def channels_last(x):
    return x.contiguous(memory_format=torch.channels_last)


class Augmented:
    """Epochs of the training images: shuffled, moved by up to SHIFT pixels, and half of them flipped in turn."""

    def __init__(self, images, labels, dtype):
        images = normalize(images).to(dtype)
        flips = (torch.rand(len(images), device=images.device) < 0.5).view(-1, 1, 1, 1)
        images = torch.where(flips, images.flip(-1), images)
        padded, size = F.pad(images.float(), (SHIFT,) * 4, mode="reflect").to(dtype), images.shape[-1]
        # [N, places down, places across, H, W, 3]: a view
        self.windows = padded.permute(0, 2, 3, 1).contiguous().unfold(1, size, 1).unfold(2, size, 1).permute(0, 1, 2, 4, 5, 3)
        self.labels = labels

    def steps(self):
        return len(self.labels) // BATCH

    def epoch(self, number):
        device = self.labels.device
        order = torch.randperm(len(self.labels), device=device)
        for step in range(self.steps()):
            chosen = order[step * BATCH:(step + 1) * BATCH]
            places = torch.randint(0, 2 * SHIFT + 1, (len(chosen), 2), device=device)
            batch = self.windows[chosen, places[:, 0], places[:, 1]].permute(0, 3, 1, 2)
            yield channels_last(batch.flip(-1) if number % 2 else batch), self.labels[chosen]


def whiten(conv, images, eps=5e-4):
    patches = F.unfold(images, conv.kernel_size).transpose(1, 2).reshape(-1, conv.weight[0].numel()).double()
    # In f32 their smallest eigenvalue came out below -eps, for images of one class: NaN.
    values, vectors = torch.linalg.eigh(patches.T @ patches / len(patches))
    filters = (vectors / (values + eps).sqrt()).T.reshape(-1, *conv.weight.shape[1:])
    conv.weight.data.copy_(torch.cat([filters, -filters]))


def start(images):
    net = AirBench94()
    for group in net.groups:
        for conv in (group.c1, group.c2):
            nn.init.dirac_(conv.weight.data[:conv.in_channels])
    whiten(net.whiten, normalize(images[:5000]).cpu())
    nn.init.zeros_(net.whiten.bias)
    return net.to(images.device, memory_format=torch.channels_last)


def halve(net):
    """Weights in f16, but those of batch norm."""
    net.half()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.float()



def factor(step, total):
    """Of the learning rates: from 0.2 to 1 over the first 23 %, to 0.07 at the end."""
    top = int(0.23 * total)
    return 0.2 + 0.8 * step / top if step < top else 1 - 0.93 * (step - top) / (total - top)


class Lookahead:
    def __init__(self, net):
        self.slow = {name: tensor.clone() for name, tensor in net.state_dict().items() if tensor.is_floating_point()}

    def update(self, net, decay):
        for name, tensor in net.state_dict().items():
            if name in self.slow:
                tensor.copy_(self.slow[name].lerp_(tensor, 1 - decay))


def train(net, forward, data, epochs, cast):
    total = math.ceil(epochs * data.steps())
    norms = [p for name, p in net.named_parameters() if ".n" in name and p.requires_grad]
    others = [p for name, p in net.named_parameters() if ".n" not in name and p.requires_grad]
    groups = [{"params": norms, "lr": RATE * BIAS_RATE, "weight_decay": DECAY / (RATE * BIAS_RATE)},
              {"params": others, "lr": RATE, "weight_decay": DECAY / RATE}]
    optimizer = torch.optim.SGD(groups, lr=RATE, momentum=MOMENTUM, nesterov=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: factor(step, total))
    lookahead, step = Lookahead(net), 0
    net.train()
    for epoch in range(math.ceil(epochs)):
        net.whiten.bias.requires_grad_(epoch < WHITEN_EPOCHS)
        for images, labels in data.epoch(epoch):
            with cast():
                scores = forward(images)
            loss = F.cross_entropy(scores.float(), labels, label_smoothing=0.2, reduction="sum")
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            step += 1
            if step % LOOKAHEAD == 0:
                lookahead.update(net, LOOKAHEAD_DECAY * (step / total)**3)
            if step == total:
                break
    lookahead.update(net, 1)


def scores_of(net, images, augmented):
    def both_ways(x):
        return (net(channels_last(x)).float() + net(channels_last(x.flip(-1))).float()) / 2

    if not augmented:
        return net(images)
    size, padded = images.shape[-1], F.pad(images, (1,) * 4, mode="reflect")
    moved = both_ways(padded[:, :, :size, :size]) + both_ways(padded[:, :, 2:, 2:])
    return both_ways(images) / 2 + moved / 4


def accuracy(net, forward, images, labels, augmented, cast):
    net.eval()
    right = 0
    with torch.no_grad(), cast():
        for first in range(0, len(labels), 1000):
            batch = normalize(images[first:first + 1000]).to(net.head.weight.dtype)
            right += (scores_of(forward, channels_last(batch), augmented).argmax(1) == labels[first:first + 1000]).sum()
    return int(right) / len(labels)


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=pathlib.Path)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--epochs", type=float, default=9.9)
    parser.add_argument("--dtype", choices=DTYPES, default="bf16")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args()


def main():
    options = parse()
    torch.set_num_threads(options.threads)
    on_gpu = options.device.startswith("cuda")
    torch.backends.cudnn.benchmark = True
    halved = on_gpu and options.dtype == "f16"
    train_set, test_set = ([part.to(options.device) for part in decode(options.data / name)] for name in ("train", "test"))

    def cast():
        kind = options.device.split(":")[0]
        return contextlib.nullcontext() if options.dtype == "f32" or halved else torch.autocast(kind, DTYPES[options.dtype])

    def clock():
        if on_gpu:
            torch.cuda.synchronize()
        return time.perf_counter()

    def run(epochs):
        """The trained network, its accuracies, and the seconds of training and of both evaluations."""
        times = [clock()]
        net = start(train_set[0])
        if halved:
            halve(net)
        forward = torch.compile(net) if options.compile else net
        train(net, forward, Augmented(*train_set, DTYPES[options.dtype]), epochs, cast)
        times.append(clock())
        right = []
        for augmented in (True, False):
            right.append(accuracy(net, forward, *test_set, augmented, cast))
            times.append(clock())
        return net, right, [after - before for before, after in zip(times, times[1:])]

    if options.compile:
        run(WHITEN_EPOCHS + 0.2)  # what is trained changes then, which compiles anew
    for seed in range(options.seeds):
        torch.manual_seed(seed)
        net, (with_augmentation, without), (training, evaluation, _) = run(options.epochs)
        if not all(parameter.isfinite().all() for parameter in net.parameters()):
            raise SystemExit(f"seed {seed}: the weights are no longer finite; what follows would mean nothing")
        print(json.dumps({"peer": f"torch {torch.__version__}", "device": torch.cuda.get_device_name() if on_gpu else "cpu",
                          "compile": options.compile, "seed": seed, "dtype": options.dtype, "epochs": options.epochs,
                          "accuracy": without, "accuracy_views": with_augmentation, "training_seconds": training,
                          "record_seconds": training + evaluation, "process_seconds": time.perf_counter() - BEGIN}), flush=True)


if __name__ == "__main__":
    main()
