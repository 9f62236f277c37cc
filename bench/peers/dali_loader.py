#!/usr/bin/env python3
"""DALI's loading speed on the CPU, on the work of `millrace bench loader`: images per second, the median of epochs after the
first, on one JSON line. Needs nvidia-dali-cuda130 from PyPI, which runs without a driver.

    dali_loader.py --input imagenet --root FOLDER [--threads 2]      random_resized_crop:224,horizontal_flip,normalize
    dali_loader.py --input folder --root FOLDER --batch-size 128     horizontal_flip,normalize of 32x32 (no random crop)
"""
import argparse
import glob
import importlib.metadata
import json
import os
import statistics
import time

from nvidia.dali import fn, pipeline_def, types

HALF = {"mean": [127.5] * 3, "std": [127.5] * 3, "dtype": types.FLOAT, "output_layout": "CHW"}


def read(files):
    return fn.readers.file(files=files, labels=[0] * len(files), random_shuffle=True)


@pipeline_def
def imagenet(files):
    encoded, labels = read(files)
    images = fn.decoders.image_random_crop(encoded, device="cpu", output_type=types.RGB, random_area=[0.08, 1.0],
                                           random_aspect_ratio=[0.75, 1.333])
    images = fn.resize(images, device="cpu", resize_x=224, resize_y=224, interp_type=types.INTERP_LINEAR)
    return fn.crop_mirror_normalize(images, device="cpu", mirror=fn.random.coin_flip(), **HALF), labels


@pipeline_def
def folder(files):
    encoded, labels = read(files)
    images = fn.decoders.image(encoded, device="cpu", output_type=types.RGB)
    return fn.crop_mirror_normalize(images, device="cpu", mirror=fn.random.coin_flip(), **HALF), labels


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input", choices=["imagenet", "folder"], required=True)
    parser.add_argument("--root", required=True, help="JPEG files, in it or in folders in it")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=4)
    options = parser.parse_args()
    files = sorted(name for name in glob.glob(os.path.join(options.root, "**"), recursive=True)
                   if name.lower().endswith((".jpg", ".jpeg")))
    pipeline = {"imagenet": imagenet, "folder": folder}[options.input](
        files, batch_size=options.batch_size, num_threads=options.threads, device_id=None, prefetch_queue_depth=3)
    pipeline.build()
    steps = len(files) // options.batch_size
    speeds = []
    for _ in range(options.epochs):
        start = time.perf_counter()
        for _ in range(steps):
            images, _ = pipeline.run()
        speeds.append(steps * options.batch_size / (time.perf_counter() - start))
    side = 224 if options.input == "imagenet" else 32
    assert images.as_tensor().shape() == [options.batch_size, 3, side, side], images.as_tensor().shape()
    print(json.dumps({"system": f"dali {importlib.metadata.version('nvidia-dali-cuda130')}", "input": options.input,
                      "threads": options.threads, "batch_size": options.batch_size, "repeats": speeds,
                      "images_per_second": statistics.median(speeds[1:])}))


if __name__ == "__main__":
    main()
