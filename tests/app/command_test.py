#!/usr/bin/env python3
"""Runs the command as a user does: command_test.py MILLRACE [TEST...]; each test makes its own small data."""
import base64
import hashlib
import json
import os
import pathlib
import random
import re
import resource
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import unittest
import zlib

import records_reader

MILLRACE = ""
TINY_JPEG = base64.b64decode(
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDABsSFBcUERsXFhceHBsgKEIrKCUlKFE6PTBCYFVlZF9VXVtqeJmBanGQc1tdhbWGkJ6j"
    "q62rZ4C8ybqmx5moq6T/2wBDARweHigjKE4rK06kbl1upKSkpKSkpKSkpKSkpKSkpKSkpKSkpKSkpKSkpKSkpKSkpKSkpKSkpKSk"
    "pKSkpKSkpKT/wAARCAAgACADASIAAhEBAxEB/8QAFQABAQAAAAAAAAAAAAAAAAAAAwX/xAAWEAADAAAAAAAAAAAAAAAAAAAAAgP/"
    "xAAYAQACAwAAAAAAAAAAAAAAAAADBQIEBv/EABYRAAMAAAAAAAAAAAAAAAAAAAACA//aAAwDAQACEQMRAD8AirMVZjLMZZlpnIyo"
    "CsxlmKsxlmBZxnKgKzGWYqzGWYFnM7KgKzGWYqzGWYBnGUqH/9k=")


def png(width, height, pixel):
    """An RGB PNG file; pixel(x, y) gives three numbers."""
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    rows = b"".join(b"\0" + bytes(v for x in range(width) for v in pixel(x, y)) for y in range(height))
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)) +
            chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


def picture(label, rng):
    """Class 0 is red above, class 1 blue above, with noise."""
    bright = (0, 2)[label]
    return png(32, 32, lambda x, y: [rng.randrange(60) + (180 if c == bright and y < 16 else 0) for c in range(3)])


class Command(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def run_command(self, *words, file_limit=None, environment=None):
        limit = (lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, file_limit))) if file_limit else None
        return subprocess.run([MILLRACE, *map(str, words)], capture_output=True, text=True, timeout=200, cwd=self.folder,
                              preexec_fn=limit, env={**os.environ, **(environment or {})})

    def good(self, *words):
        done = self.run_command(*words)
        self.assertEqual(done.returncode, 0, f"{words}\n{done.stdout}{done.stderr}")
        return done.stdout

    def bad(self, code, named, *words, lines=1, **limits):
        """Expects the exit code, and one sentence (or more) on stderr with every string of `named` in it."""
        done = self.run_command(*words, **limits)
        self.assertEqual(done.returncode, code, f"{words}\n{done.stdout}{done.stderr}")
        self.assertEqual(done.stderr.count("\n"), lines, f"expected {lines} lines, got: {done.stderr}")
        for word in named:
            self.assertIn(word, done.stderr)

    def images(self, name="images", each=24, seed=1):
        """A tree of two classes; returns its data set name."""
        rng = random.Random(seed)
        for label, kind in enumerate(["blue", "red"]):
            (self.folder / name / kind).mkdir(parents=True)
            for i in range(each):
                (self.folder / name / kind / f"{i:03}.png").write_bytes(picture(1 - label, rng))
        return f"images:{self.folder / name}"

    def cifar10(self, label=3, cut=0):
        folder = self.folder / "cifar"
        folder.mkdir()
        record = bytes(3072)
        for name in [f"data_batch_{i}.bin" for i in range(1, 6)] + ["test_batch.bin"]:
            labels = [label if name == "data_batch_2.bin" and i == 7 else i % 10 for i in range(40)]
            (folder / name).write_bytes(b"".join(bytes([v]) + record for v in labels))
        broken = folder / "data_batch_4.bin"
        broken.write_bytes(broken.read_bytes()[:40 * 3073 - cut])
        return f"cifar10:{folder}"

    def train(self, *words):
        return self.good("train", "--model", "lenet5", "--epochs", 1, "--replicas", 1, *words)

    def events(self, name):
        return [json.loads(line) for line in (self.folder / name).read_text().splitlines()]


class WrongWords(Command):
    def test_unknown_option_suggests(self):
        self.bad(2, ["--epoch", "did you mean --epochs?"], "train", "--data", "synthetic:64", "--epoch", 2)

    def test_unknown_option_before_missing_one(self):
        self.bad(2, ["--dta", "did you mean --data?"], "train", "--dta", "synthetic:64")

    def test_unknown_command_suggests(self):
        self.bad(2, ["trian", "did you mean train?"], "trian")

    def test_missing_option(self):
        self.bad(2, ["--data"], "train")

    def test_numbers(self):
        for option, value in [("--epochs", "0"), ("--epochs", "two"), ("--batch-size", "-4"), ("--lr", "fast"),
                              ("--momentum", "1.5"), ("--seed", "-1"), ("--threads", "99999999999"),
                              ("--epochs", "9223372036854775807"), ("--schedule", "step:1:inf"),
                              ("--schedule", "step:9223372036854775807:0.1")]:
            self.bad(2, [option, value], "train", "--data", "synthetic:64", f"{option}={value}")

    def test_names(self):
        self.bad(2, ["lenet6", "lenet5"], "train", "--data", "synthetic:64", "--model", "lenet6")
        self.bad(2, ["imagez", "images"], "train", "--data", "imagez:x")
        self.bad(2, ["spin", "horizontal_flip"], "train", "--data", "synthetic:64", "--transform", "spin")
        self.bad(2, ["--schedule", "wavy", "cosine"], "train", "--data", "synthetic:64", "--schedule", "wavy")
        self.bad(2, ["f8", "bf16"], "train", "--data", "synthetic:64", "--dtype", "f8")
        self.bad(2, ["tpu"], "train", "--data", "synthetic:64", "--device", "tpu")

    def test_numbers_that_make_no_sense(self):
        for option, value in [("--mean", "nan"), ("--std", "inf"), ("--std", "1e-45")]:
            self.bad(2, ["mean", "standard deviation"], "train", "--data", "synthetic:64", f"{option}={value}")
        self.bad(2, ["100000 threads", "256"], "train", "--data", "synthetic:64", "--threads", 100000)
        self.bad(2, ["1024 ranks", "256"], "train", "--data", "synthetic:1024", "--batch-size", 1024, "--replicas", 1024)
        self.bad(2, ["resize:32x"], "train", "--data", "synthetic:64", "--transform", "resize:32x")
        self.bad(2, ["spin"], "train", "--data", "synthetic:64", "--test-transform", "spin", "--save", "w.safetensors")
        self.assertEqual(list(self.folder.iterdir()), [])

    def test_option_before_the_command(self):
        self.bad(2, ["--epochs", "behind"], "--epochs", 1, "train", "--data", "synthetic:64")

    def test_shards_that_do_not_divide_the_batch(self):
        self.bad(2, ["4", "6"], "train", "--data", "synthetic:64", "--batch-size", 6, "--shards", 4)

    def test_more_replicas_than_shards(self):
        self.bad(2, ["4", "2"], "train", "--data", "synthetic:64", "--replicas", 4, "--shards", 2)


class WrongData(Command):
    def test_missing_folder(self):
        for kind in ["images", "cifar10", "idx"]:
            self.bad(2, ["no/such"], "train", "--data", f"{kind}:no/such")

    def test_truncated_batch_file(self):
        self.bad(2, ["data_batch_4.bin"], "train", "--data", self.cifar10(cut=100))

    def test_label_out_of_range(self):
        self.bad(2, ["data_batch_2.bin", "12"], "train", "--data", self.cifar10(label=12), "--batch-size", 8)

    def test_label_out_of_range_idx(self):
        folder = self.folder / "digits"
        folder.mkdir()
        (folder / "train-images-idx3-ubyte").write_bytes(struct.pack(">IIII", 0x803, 4, 28, 28) + bytes(4 * 784))
        (folder / "train-labels-idx1-ubyte").write_bytes(struct.pack(">II", 0x801, 4) + bytes([1, 2, 77, 3]))
        self.bad(2, ["train-labels-idx1-ubyte", "77"], "train", "--data", f"idx:{folder}", "--batch-size", 2)

    def test_empty_class_folder(self):
        data = self.images()
        (self.folder / "images" / "green").mkdir()
        self.bad(2, ["green"], "train", "--data", data)

    def damaged(self, name, content):
        data = self.images(each=4)
        (self.folder / "images" / "red" / name).write_bytes(content)
        self.bad(2, [name], "train", "--data", data, "--batch-size", 1, "--epochs", 1, "--save", "model.safetensors")
        self.assertEqual(sorted(p.name for p in self.folder.iterdir()), ["images"])

    def test_corrupt_png(self):
        self.damaged("corrupt.png", picture(0, random.Random(1))[:200])

    def test_truncated_jpeg(self):
        self.damaged("cut.jpg", TINY_JPEG[:-60])

    def test_empty_file(self):
        self.damaged("nothing.jpg", b"")

    def test_wrongly_named_image(self):
        self.damaged("letter.jpg", b"Dear Sir or Madam, this is not an image.\n")

    def test_unequal_sizes(self):
        data = self.images(each=4)
        (self.folder / "images" / "red" / "large.png").write_bytes(png(40, 36, lambda x, y: (x, y, 0)))
        self.bad(2, ["large.png", "resize"], "train", "--data", data, "--batch-size", 9)

    def test_batch_larger_than_the_data(self):
        self.bad(2, ["64", "32"], "train", "--data", "synthetic:32", "--batch-size", 64)

    def test_damaged_weights(self):
        (self.folder / "w.safetensors").write_bytes(b"not weights at all")
        self.bad(2, ["w.safetensors"], "eval", "--weights", "w.safetensors", "--data", "synthetic:64")
        self.bad(2, ["missing.safetensors"], "eval", "--weights", "missing.safetensors", "--data", "synthetic:64")

    def test_truncated_weights(self):
        self.train("--data", "synthetic:64", "--save", "w.safetensors")
        whole = (self.folder / "w.safetensors").read_bytes()
        (self.folder / "w.safetensors").write_bytes(whole[:-1000])
        self.bad(2, ["w.safetensors"], "predict", "--weights", "w.safetensors", "x.png")

    def test_weights_that_are_no_numbers(self):
        self.train("--data", "synthetic:64", "--save", "w.safetensors")
        whole = (self.folder / "w.safetensors").read_bytes()
        start = 8 + struct.unpack("<Q", whole[:8])[0]
        first, _ = json.loads(whole[8:start])["fc2.bias"]["data_offsets"]
        (self.folder / "x.png").write_bytes(picture(0, random.Random(1)))
        for value in ["nan", "inf", "-inf"]:
            number = struct.pack("<f", float(value))
            (self.folder / "w.safetensors").write_bytes(whole[:start + first + 4] + number + whole[start + first + 8:])
            for words in [["predict", "--weights", "w.safetensors", "x.png"],
                          ["eval", "--weights", "w.safetensors", "--data", "synthetic:64"]]:
                self.bad(2, ["w.safetensors", "fc2.bias", "not finite"], *words)

    def test_weights_that_overflow(self):
        self.train("--data", "synthetic:64", "--save", "w.safetensors")
        whole = (self.folder / "w.safetensors").read_bytes()
        start = 8 + struct.unpack("<Q", whole[:8])[0]
        huge = struct.pack("<f", 3e38)
        (self.folder / "w.safetensors").write_bytes(whole[:start] + huge * ((len(whole) - start) // 4))
        (self.folder / "x.png").write_bytes(picture(0, random.Random(1)))
        self.bad(2, ["w.safetensors", "x.png"], "predict", "--weights", "w.safetensors", "x.png")
        self.bad(2, ["w.safetensors", "synthetic:64"], "eval", "--weights", "w.safetensors", "--data", "synthetic:64")

    def test_weights_of_an_unknown_model(self):
        self.train("--data", "synthetic:64", "--save", "w.safetensors")
        whole = (self.folder / "w.safetensors").read_bytes()
        (self.folder / "w.safetensors").write_bytes(whole.replace(b'"lenet5"', b'"lenet6"', 1))
        self.bad(2, ["w.safetensors", "lenet6"], "predict", "--weights", "w.safetensors", "x.png")

    def test_other_classes(self):
        self.train("--data", "synthetic:64", "--save", "w.safetensors")
        self.bad(2, ["classes"], "eval", "--weights", "w.safetensors", "--data", self.images())

    def test_predict_missing_image(self):
        self.train("--data", "synthetic:64", "--save", "w.safetensors")
        self.bad(2, ["gone.png"], "predict", "--weights", "w.safetensors", "gone.png")


class WrongPlaces(Command):
    def test_unwritable_places(self):
        for option in ["--save", "--log-json"]:
            for place in ["no/such/folder/file", "."]:
                self.bad(2, [place], "train", "--data", "synthetic:64", option, place)
        self.bad(2, ["x" * 300], "train", "--data", "synthetic:64", "--save", "x" * 300)
        self.bad(2, ["/dev/null"], "train", "--data", "synthetic:64", "--save", "/dev/null")
        self.bad(2, ["same", "--log-json"], "train", "--data", "synthetic:64", "--save", "same", "--log-json", "./same")
        self.assertEqual(list(self.folder.iterdir()), [])

    def test_closed_output_does_not_reach_other_files(self):
        done = subprocess.run(["sh", "-c", 'exec "$0" train --data synthetic:64 --epochs 1 --log-json run.jsonl >&-', MILLRACE],
                              cwd=self.folder, capture_output=True, text=True, timeout=200)
        self.assertEqual(done.returncode, 1)
        self.assertIn("standard output", done.stderr)
        self.assertEqual([e["event"] for e in self.events("run.jsonl")], ["start", "epoch", "end"])

    def test_full_disk_at_save(self):
        # A limit on the size of a file stands in for a disk that is full.
        old = b"the model of last week"
        (self.folder / "model.safetensors").write_bytes(old)
        self.bad(1, ["model.safetensors"], "train", "--data", "synthetic:64", "--epochs", 1, "--save", "model.safetensors",
                 file_limit=4096)
        self.assertEqual((self.folder / "model.safetensors").read_bytes(), old)
        self.assertEqual([p.name for p in self.folder.iterdir()], ["model.safetensors"])

    @unittest.skipUnless(os.path.exists("/dev/full"), "no /dev/full")
    def test_full_disk_at_log(self):
        self.bad(1, ["/dev/full"], "train", "--data", "synthetic:64", "--log-json", "/dev/full")

    def test_full_disk_at_trace(self):
        self.bad(1, ["t.json"], "bench", "loader", "--data", "synthetic:64", "--batch-size", 8, "--seconds", 0.01,
                 "--trace", "t.json", file_limit=4096)

    def test_folder_whose_name_is_no_text(self):
        self.images("images", each=2)
        os.rename(self.folder / "images", os.fsencode(self.folder) + b"/\xff")
        subprocess.run([MILLRACE, "train", "--data", b"images:\xff", "--epochs", "1", "--batch-size", "2", "--log-json",
                        "run.jsonl"], cwd=self.folder, check=True, capture_output=True, timeout=200)
        self.assertEqual([e["event"] for e in self.events("run.jsonl")], ["start", "epoch", "end"])

    def test_pipe_for_weights(self):
        os.mkfifo(self.folder / "pipe")
        self.bad(2, ["pipe"], "predict", "--weights", "pipe", "photo.jpg")

    def test_cuda_says_why(self):
        """With a GPU, too: it is hidden. A build with CUDA names its libraries, one without says that it is none."""
        hidden = {"CUDA_VISIBLE_DEVICES": "", "MILLRACE_EMULATED_GPUS": "0"}
        said = self.run_command("devices", environment=hidden)
        self.assertEqual(said.returncode, 0, said.stderr)
        reason = re.search(r"^cuda: none, the CPU is used: (.+)$", said.stdout, re.MULTILINE)[1]
        with_cuda = "NCCL" in said.stdout
        self.assertIn("NVIDIA driver" if with_cuda else "no CUDA side (configure with", reason)
        self.bad(2, ["cuda", reason], "train", "--data", "synthetic:64", "--device", "cuda", environment=hidden)


class Training(Command):
    def test_round_trip(self):
        train, test = self.images("train", each=48), self.images("test", each=16, seed=2)
        out = self.good("train", "--data", train, "--test-data", test, "--model", "lenet5", "--epochs", 4, "--batch-size", 4,
                        "--lr", 0.01, "--momentum", 0.9, "--mean", 0.5, "--std", 0.5, "--replicas", 2, "--seed", 0,
                        "--log-every", 10, "--log-json", "run.jsonl", "--save", "lenet5.safetensors")
        self.assertIn("2 replicas", out.splitlines()[0])
        self.assertIn("--shards 2", out.splitlines()[0])
        self.assertRegex(out, r"\[1,    10\] loss: \d\.\d{3}\n")
        events = self.events("run.jsonl")
        self.assertEqual([e["event"] for e in events if e["event"] != "step"],
                         ["start"] + ["epoch", "eval"] * 4 + ["end"])
        self.assertEqual(sum(e["event"] == "step" for e in events), 4 * 2)
        end = events[-1]
        self.assertEqual(end["test_accuracy"], 1.0)
        self.assertGreater(end["images_per_second"], 0)
        self.assertGreater(end["seconds"], 0)
        self.assertRegex(end["weights_hash"], "^[0-9a-f]{64}$")

        shown = self.good("eval", "--weights", "lenet5.safetensors", "--data", test)
        self.assertIn("32 of 32 right, 100.00 %", shown)
        result = json.loads(self.good("eval", "--weights", "lenet5.safetensors", "--data", test, "--json"))
        self.assertEqual(result["confusion"], [[16, 0], [0, 16]])
        self.assertEqual(result["class_accuracy"], {"blue": 1.0, "red": 1.0})

        (self.folder / "photo.jpg").write_bytes(TINY_JPEG)
        (self.folder / "tall.png").write_bytes(png(40, 90, lambda x, y: (200 if y < 45 else 20, 20, 20)))
        lines = self.good("predict", "--weights", "lenet5.safetensors", "test/red/003.png", "photo.jpg",
                          "tall.png").splitlines()
        self.assertEqual([line for line in lines if not line.startswith(" ")],
                         ["test/red/003.png", "photo.jpg", "tall.png"])
        self.assertEqual(lines[1].split()[0], "red")
        self.assertEqual(len(lines), 9)  # two classes each

    def test_grid(self):
        self.train("--data", "synthetic:64", "--save", "w.safetensors")
        self.good("eval", "--weights", "w.safetensors", "--data", "synthetic:64", "--grid", "grid.png")
        self.assertEqual((self.folder / "grid.png").read_bytes()[:8], b"\x89PNG\r\n\x1a\n")
        self.bad(2, ["no/grid.png"], "eval", "--weights", "w.safetensors", "--data", "synthetic:64", "--grid", "no/grid.png")

    def test_without_test_data(self):
        self.train("--data", "synthetic:64", "--log-json", "run.jsonl")
        self.assertIsNone(self.events("run.jsonl")[-1]["test_accuracy"])

    def test_validation_split(self):
        self.train("--data", "synthetic:200", "--val-split", 0.1, "--log-json", "run.jsonl")
        self.assertEqual(self.events("run.jsonl")[0]["images"], 180)
        self.assertIsNotNone(self.events("run.jsonl")[-1]["test_accuracy"])
        self.bad(2, ["--val-split", "got 1", "less than 1"], "train", "--data", "synthetic:200", "--val-split", 1)
        self.bad(2, ["0.001 of 200 samples", "0 to validate on"], "train", "--data", "synthetic:200", "--val-split", 0.001)

    def test_options_change_the_weights(self):
        hashes = set()
        for extra in [[], ["--seed", 1], ["--weight-decay", 0.1], ["--nesterov"], ["--schedule", "cosine"],
                      ["--schedule", "step:1:0.1", "--epochs", 2], ["--warm-up", 0.5], ["--label-smoothing", 0.2],
                      ["--transform", "random_crop:4,normalize"], ["--mean", "0.4,0.5,0.6"], ["--std", 0.25, 0.2, 0.3],
                      ["--dtype", "bf16"], ["--momentum", 0.5], ["--lr", 0.02], ["--order", "sequential"],
                      ["--order", "blocks", "--block-size", 8, "--window", 4], ["--transform", "normalize,mixup:0.3"],
                      ["--transform", "normalize,cutmix:1"]]:
            words = ["--epochs", 1] if "--epochs" not in extra else []
            self.good("train", "--data", "synthetic:256", "--batch-size", 32, "--replicas", 1, "--log-json", "run.jsonl",
                      *words, *extra)
            hashes.add(self.events("run.jsonl")[-1]["weights_hash"])
        self.assertEqual(len(hashes), 18)

    def same_bits(self, epochs, *recipe, transform="random_crop:4,horizontal_flip,normalize"):
        def weights(replicas, threads):
            self.good("train", "--data", "synthetic:512", "--epochs", epochs, "--batch-size", 32, "--lr", 0.02, "--momentum", 0.9,
                      "--transform", transform, "--shards", 4, "--replicas", replicas,
                      "--threads", threads, "--log-json", "run.jsonl", *recipe)
            return self.events("run.jsonl")[-1]["weights_hash"]
        expected = weights(1, 1)
        for replicas, threads in [(2, 1), (4, 1), (1, 2), (2, 3), (4, 2)]:
            self.assertEqual(weights(replicas, threads), expected, f"{replicas} replicas, {threads} threads")

    def test_same_bits_mixed(self):
        self.same_bits(1, transform="random_crop:4,normalize,mixup:0.3,cutmix:1")

    def test_bad_samples(self):
        data = self.images()
        (self.folder / "images" / "red" / "cut.jpg").write_bytes(TINY_JPEG[:-60])
        words = ["train", "--model", "lenet5", "--epochs", 2, "--replicas", 1, "--data", data, "--batch-size", 7, "--test-data", data]
        self.bad(2, ["cut.jpg"], *words)
        for what, said in [("mask", "masked"), ("substitute", "instead")]:
            done = self.run_command(*words, "--bad-samples", what, "--save", "m.safetensors")
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertIn("cut.jpg", done.stderr)
            self.assertIn(said, done.stderr)
            self.assertIn("2 samples of the training data", done.stdout)
        self.bad(2, ["cut.jpg"], "eval", "--weights", "m.safetensors", "--data", data)
        done = self.run_command("eval", "--weights", "m.safetensors", "--data", data, "--bad-samples", "mask", "--grid", "g.png")
        self.assertIn("of 48 right", done.stdout)
        self.assertEqual(done.stderr.count("cut.jpg"), 1)

    def test_too_many_bad_samples(self):
        data = self.images(each=4)
        for i in range(20):
            (self.folder / "images" / "red" / f"cut{i:02}.jpg").write_bytes(TINY_JPEG[:-60])
        done = self.run_command("train", "--data", data, "--batch-size", 4, "--epochs", 1, "--bad-samples", "mask")
        self.assertEqual(done.returncode, 2)
        self.assertIn("11 of the first", done.stderr)

    def test_same_bits_lenet5(self):
        self.same_bits(2, "--model", "lenet5")

    def test_same_bits_resnet20_bf16(self):
        self.same_bits(1, "--model", "resnet20", "--dtype", "bf16")

    def test_learns(self):
        self.good("train", "--data", "synthetic:4096", "--test-data", "synthetic:1000", "--epochs", 3, "--batch-size", 16,
                  "--lr", 0.01, "--log-json", "run.jsonl")
        self.assertGreater(self.events("run.jsonl")[-1]["test_accuracy"], 0.5)

    def test_diverging(self):
        self.bad(2, ["--lr"], "train", "--data", "synthetic:256", "--lr", 1000, "--save", "w.safetensors")
        self.assertEqual(list(self.folder.iterdir()), [])


class Resuming(Command):
    RECIPE = ["train", "--data", "synthetic:1000", "--epochs", 3, "--batch-size", 20, "--momentum", 0.9, "--shards", 4, "--seed", 7,
              "--transform", "random_crop:4,horizontal_flip,normalize", "--log-json", "run.jsonl"]
    KEEPING = ["--checkpoint", "kept", "--checkpoint-every", "4steps"]

    def recipe(self, **changes):
        """RECIPE with other values: batch_size=40."""
        words = list(self.RECIPE)
        for name, value in changes.items():
            option = "--" + name.replace("_", "-")
            if option not in words:
                words += [option, value]
            words[words.index(option) + 1] = value
        return words

    def hash(self):
        return [event for event in self.events("run.jsonl") if event["event"] == "end"][-1]["weights_hash"]

    def undisturbed(self, *words):
        self.good(*self.RECIPE, "--replicas", 1, *words)
        expected = self.hash()
        (self.folder / "run.jsonl").unlink()
        return expected

    def start(self, *words):
        return subprocess.Popen([MILLRACE, *map(str, words)], cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def wait_for_new(self, pattern, process):
        """Until another file of that name is there, or the process has ended."""
        end, before = time.monotonic() + 60, set(self.folder.glob(pattern))
        while set(self.folder.glob(pattern)) <= before and process.poll() is None and time.monotonic() < end:
            time.sleep(0.002)

    def checkpoints(self):
        return sorted(path.name for path in (self.folder / "kept").iterdir())

    def test_killed_at_random_moments(self):
        seed = time.time_ns() % 10**9
        print("seed", seed)
        chance = random.Random(seed)
        expected = self.undisturbed()
        for _ in range(6):
            process = self.start(*self.RECIPE, *self.KEEPING, "--resume", "auto", "--replicas", chance.choice([1, 2, 4]),
                                 "--threads", chance.choice([1, 2]))
            self.wait_for_new("kept/step-*[0-9]", process)
            time.sleep(chance.uniform(0, 0.3))
            process.kill()
            process.communicate(timeout=60)
        self.good(*self.RECIPE, *self.KEEPING, "--resume", "auto", "--replicas", 2)
        self.assertEqual(self.hash(), expected)
        self.assertEqual(self.checkpoints()[-1], "step-000000150")
        self.assertEqual(len(self.checkpoints()), 3)

    def test_signals(self):
        expected = self.undisturbed()
        for signal_, name in [(signal.SIGTERM, "SIGTERM"), (signal.SIGINT, "SIGINT")]:
            process = self.start(*self.RECIPE, *self.KEEPING, "--resume", "auto", "--replicas", 1)
            self.wait_for_new("kept/step-*[0-9]", process)
            process.send_signal(signal_)
            out, err = process.communicate(timeout=60)
            self.assertEqual(process.returncode, 4, out + err)
            self.assertIn(f"{name}: ended after step", err)
            last = self.events("run.jsonl")[-1]
            self.assertEqual((last["event"], last["signal"]), ("interrupted", name))
            self.assertEqual(last["checkpoint"], "kept/" + self.checkpoints()[-1])
            self.assertEqual(int(self.checkpoints()[-1][5:]), last["total_steps"])
        self.good(*self.RECIPE, *self.KEEPING, "--resume", "auto")
        self.assertEqual(self.hash(), expected)

    def test_signal_without_checkpoints(self):
        process = self.start(*self.recipe(epochs=1000), "--log-every", 1, "--trace", "trace.json")
        self.wait_for_new("run.jsonl", process)
        process.terminate()
        _, err = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 128 + signal.SIGTERM)
        self.assertIn("nothing was saved", err)
        self.assertEqual(self.events("run.jsonl")[-1]["event"], "interrupted")
        json.loads((self.folder / "trace.json").read_text())

    def test_going_on_from_one_of_them(self):
        expected = self.undisturbed()
        self.good(*self.RECIPE, *self.KEEPING, "--keep", 100)
        self.assertEqual(self.hash(), expected)
        one = self.checkpoints()[len(self.checkpoints()) // 2]
        for place in [f"kept/{one}", f"kept/{one}/", "kept"]:
            self.good(*self.RECIPE, "--resume", place, "--replicas", 2)
            self.assertEqual(self.hash(), expected)

    def test_damaged_ones_are_named_and_skipped(self):
        expected = self.undisturbed()
        self.good(*self.RECIPE, *self.KEEPING)
        newest = self.checkpoints()[-1]
        weights = self.folder / "kept" / newest / "weights.safetensors"
        damaged = bytearray(weights.read_bytes())
        damaged[-5] ^= 4
        weights.write_bytes(damaged)
        done = self.run_command(*self.RECIPE, *self.KEEPING, "--resume", "auto")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn(f"kept/{newest} is no whole checkpoint: weights.safetensors", done.stderr)
        self.assertEqual(self.hash(), expected)
        weights.unlink()
        self.bad(2, [newest, "weights.safetensors", "no whole checkpoint"], *self.RECIPE, "--resume", f"kept/{newest}", lines=2)

    def test_other_options(self):
        self.good(*self.RECIPE, *self.KEEPING)
        for changes, named in [({"lr": 0.5}, ["0.01", "0.5"]), ({"seed": 8}, ["seed: 7", "8 now"]), ({"shards": 2}, ["shards: 4", "2 now"]),
                               ({"batch_size": 40}, ["batch size: 20", "40 now"]), ({"data": "synthetic:999"}, ["1000 samples", "999 samples"]),
                               ({"model": "resnet20"}, ["model: lenet5", "resnet20 now"]), ({"schedule": "cosine"}, ["constant", "cosine"]),
                               ({"dtype": "bf16"}, ["type: f32", "bf16 now"]), ({"mean": 0.4}, ["mean: 0.5", "0.4 now"])]:
            self.bad(2, ["other options", *named], *self.recipe(**changes), "--resume", "kept")

    def test_wrong_words(self):
        self.bad(2, ["--checkpoint"], *self.RECIPE, "--resume", "auto")
        self.bad(2, ["--checkpoint"], *self.RECIPE, "--keep", 3)
        self.bad(2, ["5minutes", "500steps"], *self.RECIPE, "--checkpoint", "kept", "--checkpoint-every", "5minutes")
        self.bad(2, ["no/such"], *self.RECIPE, "--resume", "no/such")
        self.bad(2, ["/proc/kept"], *self.RECIPE, "--checkpoint", "/proc/kept")
        self.good(*self.RECIPE, *self.KEEPING)
        self.bad(2, ["earlier run", "--resume auto"], *self.RECIPE, *self.KEEPING)

    def test_full_disk(self):
        expected = self.undisturbed()
        done = self.run_command(*self.RECIPE, *self.KEEPING, file_limit=60_000)
        self.assertEqual(done.returncode, 1)
        self.assertIn("no checkpoint of step 4: cannot write kept/step-000000004.part/weights.safetensors", done.stderr)
        self.assertEqual(done.stderr.splitlines()[-1][:30], "millrace: cannot write kept/st")
        self.assertEqual(self.hash(), expected)
        self.assertEqual(self.checkpoints(), [])

    def test_another_reader_reads_the_weights(self):
        """As PyTorch loads them: by name, row by row."""
        self.good(*self.recipe(model="resnet20", epochs=1), *self.KEEPING)
        newest = self.folder / "kept" / self.checkpoints()[-1]
        tensors = {}
        for name in ["weights", "optimizer"]:
            whole = (newest / f"{name}.safetensors").read_bytes()
            start = 8 + struct.unpack("<Q", whole[:8])[0]
            header = json.loads(whole[8:start])
            header.pop("__metadata__")
            tensors[name] = {key: (value["dtype"], value["shape"], whole[start:][slice(*value["data_offsets"])])
                             for key, value in header.items()}
        weights = tensors["weights"]
        self.assertEqual(weights["conv1.weight"][:2], ("F32", [16, 3, 3, 3]))
        self.assertEqual(weights["bn1.num_batches_tracked"][:2], ("I64", []))
        digest = hashlib.sha256()
        for name in sorted(weights):
            kind, shape, data = weights[name]
            digest.update(f"{name} {kind.lower()} [{', '.join(map(str, shape))}]\n".encode() + data)
        self.assertEqual(digest.hexdigest(), self.hash())
        self.assertEqual({name: value[:2] for name, value in tensors["optimizer"].items()},
                         {name: value[:2] for name, value in weights.items() if "running" not in name and "num_b" not in name})
        self.assertIn("right", self.good("eval", "--weights", newest / "weights.safetensors", "--data", "synthetic:100"))


class Converting(Command):
    def damage(self, name, at):
        with (self.folder / name).open("r+b") as file:
            file.seek(at)
            byte = file.read(1)[0]
            file.seek(at)
            file.write(bytes([byte ^ 1]))

    def test_another_reader_reads_what_was_written(self):
        data = self.images(each=5)
        (self.folder / "images" / "red" / "tiny.jpg").write_bytes(TINY_JPEG)
        self.assertIn("11 records", self.good("convert", "--from", data, "--to", "a.mlr"))
        header, classes, records = records_reader.read_records(self.folder / "a.mlr")
        self.assertEqual((classes, header["shards"], header["flags"]), (["blue", "red"], 1, 0))
        paths = sorted((self.folder / "images").glob("*/*"))
        self.assertEqual([record[4] for record in records], list(map(str, paths)))
        for path, (payload, label, encoding, size, _) in zip(paths, records):
            self.assertEqual(payload, path.read_bytes())
            self.assertEqual((classes[label], encoding, size), (path.parent.name, 3 if path.suffix == ".png" else 2, (0, 0, 0)))

    def test_another_reader_reads_raw_images_in_shards(self):
        self.good("convert", "--from", self.cifar10(), "--to", "c.mlr", "--shard-size", "100KB")
        shards = sorted(self.folder.glob("c-*-of-*.mlr"))
        self.assertGreater(len(shards), 2)
        labels, fingerprints = [], set()
        for i, shard in enumerate(shards):
            self.assertLessEqual(shard.stat().st_size, 100_000)
            header, classes, records = records_reader.read_records(shard)
            self.assertEqual((header["shard"], header["shards"], header["height"], len(classes)), (i, len(shards), 32, 10))
            fingerprints.add(header["fingerprint"])
            for payload, label, encoding, size, _ in records:
                self.assertEqual((payload, encoding, size), (bytes(3072), 1, (32, 32, 3)))
                labels.append(label)
        self.assertEqual(labels, [3 if i == 47 else i % 40 % 10 for i in range(200)])
        self.assertEqual(len(fingerprints), 1)
        shards[1].unlink()
        self.bad(2, [shards[2].name, "shard 2", "expected shard 1"], "inspect", "records:c-*.mlr")

    def test_training_from_records_gives_the_same_weights(self):
        recipe = ["--batch-size", 8, "--lr", 0.01, "--log-json", "run.jsonl"]
        data = self.images()
        self.train("--data", data, *recipe)
        expected = self.events("run.jsonl")[-1]["weights_hash"]
        self.good("convert", "--from", data, "--to", "a.mlr")
        self.train("--data", "records:a.mlr", *recipe)
        self.assertEqual(self.events("run.jsonl")[-1]["weights_hash"], expected)

    def test_test_part(self):
        self.good("convert", "--from", self.cifar10(), "--to", "c.mlr", "--test")
        self.assertIn("samples      40\n", self.good("inspect", "c.mlr"))

    def test_restart_rows(self):
        folder = self.folder / "images" / "only"
        folder.mkdir(parents=True)
        (folder / "tiny.jpg").write_bytes(TINY_JPEG)
        self.good("convert", "--from", "images:images", "--to", "a.mlr", "--restart-rows")
        header, _, records = records_reader.read_records(self.folder / "a.mlr")
        self.assertEqual(header["flags"], 1)
        self.assertIn(b"\xff\xd0", records[0][0])
        self.assertIn("restart rows yes", self.good("inspect", "a.mlr"))
        (folder / "cut.jpg").write_bytes(TINY_JPEG[:-40])
        self.bad(2, ["cut.jpg"], "convert", "--from", "images:images", "--to", "b.mlr", "--restart-rows")
        self.assertEqual(sorted(p.name for p in self.folder.iterdir()), ["a.mlr", "images"])

    def test_inspect(self):
        out = self.good("inspect", self.images(each=3))
        for line in ["samples      6", "blue 3, red 3", "PNG          6", "sizes        32 x 32 to 32 x 32"]:
            self.assertIn(line, out)
        self.assertNotIn("format", out)

    def test_verify_names_each_damaged_record(self):
        self.good("convert", "--from", "synthetic:20", "--to", "s.mlr")
        self.assertIn("verified", self.good("inspect", "s.mlr", "--verify"))
        self.damage("s.mlr", 128 + 64 + 10)
        self.damage("s.mlr", 128 + 5 * 3136 + 100)
        done = self.run_command("inspect", "records:s.mlr", "--verify")
        self.assertEqual(done.returncode, 2)
        for word in ["s.mlr, record 0 (synthetic image 0)", "s.mlr, record 5", "offset"]:
            self.assertIn(word, done.stdout)
        self.assertEqual(sum(line.startswith("damaged: ") for line in done.stdout.splitlines()), 2)
        self.assertIn("2 of 20 samples", done.stderr)

    def test_verify_names_damaged_images(self):
        images = self.images(each=3)
        (self.folder / "images/red/001.png").write_bytes(picture(0, random)[:20])
        done = self.run_command("inspect", images, "--verify")
        self.assertEqual(done.returncode, 2)
        self.assertIn("unreadable   1", done.stdout)
        self.assertIn("red/001.png: ", done.stdout)

    def test_training_checks_records_unless_told_otherwise(self):
        self.good("convert", "--from", "synthetic:20", "--to", "s.mlr")
        self.damage("s.mlr", 128 + 5 * 3136 + 100)
        for verify in [[], ["--verify", "always"]]:
            self.bad(2, ["s.mlr, record 5", "CRC-32C"], "train", "--data", "records:s.mlr", "--batch-size", 4, "--epochs", 1, *verify)
        self.train("--data", "records:s.mlr", "--batch-size", 4, "--verify", "never")

    def test_wrong_places(self):
        (self.folder / "a.mlr").write_bytes(b"something of mine")
        self.bad(2, ["a.mlr", "exists"], "convert", "--from", "synthetic:20", "--to", "a.mlr")
        self.assertEqual((self.folder / "a.mlr").read_bytes(), b"something of mine")
        self.bad(2, ["no/a.mlr"], "convert", "--from", "synthetic:20", "--to", "no/a.mlr")
        self.bad(2, ["a.mlr", "less than a header"], "inspect", "a.mlr")
        self.bad(2, ["--shard-size", "many"], "convert", "--from", "synthetic:20", "--to", "b.mlr", "--shard-size", "many")
        self.bad(1, ["b.mlr"], "convert", "--from", "synthetic:20", "--to", "b.mlr", file_limit=4096)
        self.assertEqual([p.name for p in self.folder.iterdir()], ["a.mlr"])


class Measuring(Command):
    def test_devices(self):
        out = self.good("devices")
        self.assertIn("oneDNN", out)
        self.assertIn("cores", out)

    def test_plan(self):
        out = self.good("plan", "--model", "lenet5", "--gpus", 6, "--step-ms", 10, "--link", "1:0", "--batch-size", 128)
        self.assertIn("62,006 parameters", out)
        rows = {int(words[0]): words for words in map(str.split, out.splitlines()) if words and words[0].isdigit()}
        self.assertEqual(sorted(rows), [1, 2, 4, 6])
        # 248 kB around 6 GPUs at 1 GB/s: 2 * 5/6 * 0.248 ms, all of it after the backward pass.
        self.assertEqual(rows[6][1:3], ["10.413", "0.413"])
        self.assertEqual(rows[1][3], "12,800")
        self.bad(2, ["link", "string", "infiniband"], "plan", "--link", "string")

    def test_bench_train(self):
        result = json.loads(self.good("bench", "train", "--model", "lenet5", "--batch-size", 8, "--replicas", 2, "--json",
                                      "--repeats", 2, "--seconds", 0.05))
        self.assertGreater(result["images_per_second"], 0)
        self.assertGreaterEqual(result["spread"], 0)
        self.assertIn("images/s", self.good("bench", "train", "--model", "lenet5", "--repeats", 2, "--seconds", 0.05))

    def test_bench_loader_order(self):
        words = ["bench", "loader", "--data", "synthetic:2000", "--batch-size", 64, "--repeats", 1, "--seconds", 0.05,
                 "--order", "blocks", "--block-size", 10, "--window", 10]
        self.assertIn("neighbours", self.good(*words))
        self.assertAlmostEqual(json.loads(self.good(*words, "--json"))["adjacent"], 0.02, delta=0.01)

    def test_bench_loader(self):
        result = json.loads(self.good("bench", "loader", "--data", "synthetic:2000", "--batch-size", 64, "--transform",
                                      "random_crop:4,horizontal_flip,normalize", "--threads", 2, "--json", "--compare",
                                      "--repeats", 2, "--seconds", 0.05))
        self.assertGreater(result["images_per_second"], 0)
        self.assertGreater(result["ratio"], 0)
        self.assertIn("images/s", self.good("bench", "loader", "--data", self.images(), "--batch-size", 8, "--repeats", 2,
                                            "--seconds", 0.05, "--transform", "random_resized_crop:24,normalize"))

    def test_where_the_loaders_time_goes(self):
        common = ["bench", "loader", "--data", self.images(each=8), "--batch-size", 8, "--repeats", 1, "--seconds", 0.01]
        out = self.good(*common, "--compare", "--reading", "read", "--trace", "trace.json")
        for word in ["read ", "decode ", "consumer wait", "of 4", "decoding alone", "-bound: the consumer waited"]:
            self.assertIn(word, out)
        names = {event["name"] for event in json.loads((self.folder / "trace.json").read_text())["traceEvents"]}
        self.assertLessEqual({"read", "chunk", "fill", "held", "wait"}, names)
        result = json.loads(self.good(*common, "--shards", 2, "--reader-threads", 1, "--json"))
        self.assertEqual((result["loader"]["reader_threads"], result["slabs"], result["reading"]), (1, 5, "map"))
        self.assertGreater(result["loader"]["samples"], 0)
        self.bad(2, ["no/trace.json"], *common, "--trace", "no/trace.json")

    def test_training_says_what_limits_it_and_leaves_a_trace(self):
        out = self.good("train", "--data", "synthetic:64", "--epochs", 1, "--log-json", "run.jsonl", "--trace", "trace.json")
        self.assertIn("-bound: the consumer waited", out)
        end = json.loads((self.folder / "run.jsonl").read_text().splitlines()[-1])
        self.assertEqual(end["loader"]["batches"], 1)
        json.loads((self.folder / "trace.json").read_text())
        # A run that fails leaves its trace as well.
        (self.folder / "trace.json").unlink()
        self.bad(2, ["the loss became"], "train", "--data", "synthetic:640", "--epochs", 1, "--lr", 900000, "--trace", "trace.json")
        json.loads((self.folder / "trace.json").read_text())
        self.bad(2, ["--log-json", "--trace", "same"], "train", "--data", "synthetic:64", "--log-json", "same", "--trace", "same")

    def test_help(self):
        for words in [[], ["train"], ["eval"], ["predict"], ["bench"], ["bench", "train"], ["bench", "loader"], ["convert"],
                      ["inspect"], ["devices"]]:
            self.assertIn("--help", self.good(*words, "--help"))
        self.assertRegex(self.good("--version"), r"^millrace \d")


class Processes(Command):
    ENDLESS = ["--model", "lenet5", "--data", "synthetic:256", "--batch-size", 32, "--shards", 8, "--log-every", 4,
               "--epochs"]
    RECIPE = [*ENDLESS, 1, "--timeout", 60]

    def hash_of(self, *words):
        self.good(*words, *self.RECIPE, "--log-json", "log")
        ends = [event for event in self.events("log") if event["event"] == "end"]
        (self.folder / "log").unlink()
        return ends[0]["weights_hash"]

    def start(self, *words, **variables):
        return subprocess.Popen([MILLRACE, *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                cwd=self.folder, env={**os.environ, **{k: str(v) for k, v in variables.items()}})

    def free_port(self):
        with socket.socket() as one:
            one.bind(("127.0.0.1", 0))
            return one.getsockname()[1]

    def wait_for_steps(self, launch):
        for line in launch.stdout:
            if "loss:" in line:
                return
        self.fail(launch.stderr.read())

    def children_of(self, pid):
        return [int(child) for child in pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def expect_gone(self, pids):
        for _ in range(100):
            left = [pid for pid in pids if pathlib.Path(f"/proc/{pid}").exists() and
                    pathlib.Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"]
            if not left:
                return
            time.sleep(0.1)
        self.fail(f"left behind: {left}")

    def test_bench_exchange(self):
        out = self.good("launch", "-n", 2, "--", "bench", "exchange", "--repeats", 1, "--sleep-ms", 1, "--gradient-mb", 0.1)
        self.assertIn("over 2 processes", out)
        self.assertRegex(out, r"--link [0-9.e+]+:[0-9.e+]+\n")
        self.assertIn("forecast", out)
        self.bad(2, ["one process", "launch"], "bench", "exchange")

    def test_same_bits_on_any_ranks(self):
        expected = self.hash_of("train", "--replicas", 2)
        for ranks in 1, 2, 3, 4:
            with self.subTest(ranks=ranks):
                self.assertEqual(self.hash_of("launch", "-n", ranks, "--", "train"), expected)
        self.assertEqual(self.hash_of("launch", "-n", 2, "--", "train", "--replicas", 2), expected)

    def test_rank_0_alone_writes(self):
        out = self.good("launch", "-n", 2, "--", "train", *self.RECIPE, "--test-data", "synthetic:64", "--save", "m")
        self.assertIn("[0] 2 processes, each 1 replica on cpu, 8 shards", out)
        self.assertNotIn("[1]", out)
        self.assertIn("test accuracy", out)
        alone = self.train("--data", "synthetic:256", "--batch-size", 32, "--shards", 8, "--test-data", "synthetic:64")
        line = next(line for line in alone.splitlines() if "test accuracy" in line)
        self.assertIn(line, out)

    def test_killed_rank_is_named(self):
        launch = self.start("launch", "-n", 3, "--", "train", *self.ENDLESS, 100000)
        self.wait_for_steps(launch)
        ranks = self.children_of(launch.pid)
        os.kill(ranks[1], signal.SIGKILL)
        _, errors = launch.communicate(timeout=60)
        self.assertEqual(launch.returncode, 3, errors)
        self.assertIn("rank 1 died", errors)
        self.assertIn("its last step was", errors)
        self.assertIn("rank 1 was killed by signal 9", errors)
        self.expect_gone(ranks)

    def test_killed_launcher_leaves_no_rank(self):
        launch = self.start("launch", "-n", 2, "--", "train", *self.ENDLESS, 100000)
        self.wait_for_steps(launch)
        ranks = self.children_of(launch.pid)
        self.assertEqual(len(ranks), 2)
        launch.kill()
        launch.communicate()
        self.expect_gone(ranks)

    def test_stopped_rank_is_named(self):
        launch = self.start("launch", "-n", 2, "--", "train", *self.ENDLESS, 100000, "--timeout", 3)
        self.wait_for_steps(launch)
        ranks = self.children_of(launch.pid)
        os.kill(ranks[1], signal.SIGSTOP)
        _, errors = launch.communicate(timeout=90)
        self.assertEqual(launch.returncode, 3, errors)
        self.assertIn("rank 1 hangs or is cut off", errors)
        self.expect_gone(ranks)

    def test_other_options_are_named(self):
        port = self.free_port()
        both = [self.start("train", *self.RECIPE, "--lr", lr, RANK=rank, WORLD_SIZE=2, MASTER_ADDR="127.0.0.1",
                           MASTER_PORT=port) for rank, lr in [(0, 0.1), (1, 0.25)]]
        errors = [one.communicate(timeout=60)[1] for one in both]
        self.assertEqual([one.returncode for one in both], [3, 2], errors)
        for word in "the processes differ", "0.25", "on rank 1", "0.1", "on rank 0":
            self.assertIn(word, errors[1])
            self.assertIn(word, errors[0])

    def test_strangers_do_not_disturb(self):
        expected = self.hash_of("train", "--replicas", 1)
        port = self.free_port()
        place = dict(WORLD_SIZE=2, MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
        first = self.start("train", *self.RECIPE, "--log-json", "log", RANK=0, MILLRACE_RUN_TOKEN="a", **place)
        other_run = self.start("train", *self.RECIPE, RANK=1, MILLRACE_RUN_TOKEN="b", **place)
        self.assertIn("it has not the token of this run", other_run.communicate(timeout=60)[1])
        self.assertEqual(other_run.returncode, 3)
        with socket.create_connection(("127.0.0.1", port)) as stranger:
            stranger.sendall(b"GET / HTTP/1.1\r\n\r\n")
            second = self.start("train", *self.RECIPE, RANK=1, MILLRACE_RUN_TOKEN="a", **place)
            _, errors = first.communicate(timeout=60)
            second.communicate(timeout=60)
        self.assertEqual((first.returncode, second.returncode), (0, 0), errors)
        self.assertIn("rank 0 refused a connection from 127.0.0.1", errors)
        self.assertEqual(self.events("log")[-1]["weights_hash"], expected)

    def test_wrong_place_and_launch(self):
        done = self.start("train", *self.RECIPE, RANK=2, WORLD_SIZE=2)
        self.assertIn("RANK is 2 and WORLD_SIZE is 2", done.communicate(timeout=60)[1])
        self.assertEqual(done.returncode, 2)
        done = self.run_command("launch", "-n", 2, "--restarts", 3, "--", "train", "--data", "nothing:1")
        self.assertEqual(done.returncode, 2, done.stderr)
        self.assertNotIn("restart", done.stderr)

    def test_restarts_with_fewer_ranks(self):
        launch = self.start("launch", "-n", 3, "--restarts", 1, "--min-ranks", 2, "--", "train", *self.ENDLESS,
                            200)
        self.wait_for_steps(launch)
        os.kill(self.children_of(launch.pid)[2], signal.SIGKILL)
        out, errors = launch.communicate(timeout=120)
        self.assertEqual(launch.returncode, 0, errors)
        self.assertIn("restart 1 of 1 with 2 ranks", errors)
        self.assertIn("2 processes, each", out)

    def test_mpirun(self):
        mpirun = shutil.which("mpirun")
        if mpirun is None or b"without MPI" in subprocess.run(
                [MILLRACE, "train", "--data", "synthetic:64", "--engine", "mpi", "--rank", "0", "--world-size", "2"],
                capture_output=True).stderr:
            self.skipTest("no mpirun, or a build without MILLRACE_MPI")
        expected = self.hash_of("train", "--replicas", 1)
        for ranks in 2, 3:
            done = subprocess.run([mpirun, "--allow-run-as-root", "--oversubscribe", "--bind-to", "none", "-n", str(ranks),
                                   MILLRACE, "train", *map(str, self.RECIPE), "--log-json", "log"],
                                  capture_output=True, text=True, timeout=200, cwd=self.folder)
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertEqual(self.events("log")[-1]["weights_hash"], expected)


if __name__ == "__main__":
    MILLRACE = str(pathlib.Path(sys.argv.pop(1)).resolve())
    unittest.main()
