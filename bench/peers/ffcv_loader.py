#!/usr/bin/env python3
"""FFCV's loading speed on the work of `millrace bench loader`: images per second, the median of epochs after the first, on one
JSON line. Needs torch, numba, opencv-python-headless and ffcv 1.0.2 from PyPI; ffcv is built with Debian's libopencv-dev,
libturbojpeg0-dev and pkg-config (pip install --no-build-isolation --no-deps ffcv).

    ffcv_loader.py --input imagenet --root FOLDER [--workers 2]      random_resized_crop:224,horizontal_flip,normalize
    ffcv_loader.py --input memory --batch-size 512                   50,000 images of 32x32; random_crop:4 and the same

It first writes its own file of them beside the others in --scratch: JPEG of quality 90 for photographs, raw for small ones.
"""
import argparse
import glob
import importlib.metadata
import json
import os
import statistics
import tempfile
import time

import numpy as np
from ffcv.fields import IntField, RGBImageField
from ffcv.fields.decoders import IntDecoder, RandomResizedCropRGBImageDecoder, SimpleRGBImageDecoder
from ffcv.loader import Loader, OrderOption
from ffcv.transforms import NormalizeImage, RandomHorizontalFlip, RandomTranslate, ToTensor, ToTorchImage
from ffcv.writer import DatasetWriter
from PIL import Image

HALF = np.array([127.5] * 3)


class Photographs:
    def __init__(self, root):
        self.files = sorted(name for name in glob.glob(os.path.join(root, "*")) if name.lower().endswith((".jpg", ".jpeg")))

    def __len__(self):
        return len(self.files)

    def __getitem__(self, i):
        return Image.open(self.files[i]).convert("RGB"), 0


class Memory:
    def __init__(self):
        self.images = np.random.default_rng(0).integers(0, 256, (50000, 32, 32, 3), dtype=np.uint8)

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        return self.images[i], int(i % 10)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input", choices=["imagenet", "memory"], required=True)
    parser.add_argument("--root")
    parser.add_argument("--scratch", default=tempfile.gettempdir())
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=4)
    options = parser.parse_args()
    is_large = options.input == "imagenet"
    path = os.path.join(options.scratch, f"{options.input}.beton")
    if not os.path.exists(path):
        field = RGBImageField(write_mode="jpg", jpeg_quality=90) if is_large else RGBImageField()
        data = Photographs(options.root) if is_large else Memory()
        DatasetWriter(path, {"image": field, "label": IntField()}, num_workers=options.workers).from_indexed_dataset(data)
    first = [RandomResizedCropRGBImageDecoder((224, 224)), RandomHorizontalFlip()] if is_large else [
        SimpleRGBImageDecoder(), RandomHorizontalFlip(), RandomTranslate(padding=4)]
    image = first + [NormalizeImage(HALF, HALF, np.float32), ToTensor(), ToTorchImage()]
    loader = Loader(path, batch_size=options.batch_size, num_workers=options.workers, order=OrderOption.RANDOM, drop_last=True,
                    os_cache=True, pipelines={"image": image, "label": [IntDecoder(), ToTensor()]})
    speeds = []
    for _ in range(options.epochs):
        start, count = time.perf_counter(), 0
        for images, _ in loader:
            count += len(images)
        speeds.append(count / (time.perf_counter() - start))
    side = 224 if is_large else 32
    assert tuple(images.shape) == (options.batch_size, 3, side, side), images.shape
    print(json.dumps({"system": f"ffcv {importlib.metadata.version('ffcv')}", "input": options.input, "workers": options.workers,
                      "batch_size": options.batch_size, "repeats": speeds, "images_per_second": statistics.median(speeds[1:])}))


if __name__ == "__main__":
    main()
