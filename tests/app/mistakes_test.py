#!/usr/bin/env python3
"""What the command says to wrong words, data and places: mistakes_test.py MILLRACE [TEST...]"""
import json
import os
import random
import re
import struct
import subprocess

from command import Command, MILLRACE, picture, png, TINY_JPEG, main


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
                              ("--epochs", "9223372036854775807"), ("--epochs", "nan"), ("--epochs", "-0.5")]:
            self.bad(2, [option, value], "train", "--data", "synthetic:64", f"{option}={value}")

    def test_names(self):
        self.bad(2, ["lenet6", "lenet5"], "train", "--data", "synthetic:64", "--model", "lenet6")
        self.bad(2, ["imagez", "images"], "train", "--data", "imagez:x")
        self.bad(2, ["spin", "horizontal_flip"], "train", "--data", "synthetic:64", "--transform", "spin")
        self.bad(2, ["schedule", "wavy", "cosine"], "train", "--data", "synthetic:64", "--schedule", "wavy")
        for unknown in ["adan", "muon", "SGD"]:
            self.bad(2, ["--optimizer", f"got {unknown}, expected one of sgd, adam, adamw, rmsprop; choose one of these"],
                     "train", "--data", "synthetic:64", f"--optimizer={unknown}")
        self.bad(2, ["--nesterov", "Adam", "leave it out"], "train", "--data", "synthetic:64", "--optimizer", "adam", "--nesterov")
        self.bad(2, ["--momentum", "AdamW", "leave it out"], "train", "--data", "synthetic:64", "--optimizer", "adamw", "--momentum", 0.9)
        self.bad(2, ["f8", "bf16"], "train", "--data", "synthetic:64", "--dtype", "f8")
        self.bad(2, ["tpu"], "train", "--data", "synthetic:64", "--device", "tpu")

    def test_numbers_that_make_no_sense(self):
        for option, value in [("--mean", "nan"), ("--std", "inf"), ("--std", "1e-45")]:
            self.bad(2, ["mean", "standard deviation"], "train", "--data", "synthetic:64", f"{option}={value}")
        self.bad(2, ["--mean: got nothing"], "train", "--data", "synthetic:64", "--mean", "")
        self.bad(2, ["mean 125", "deviation 60", "mean 0.49", "deviation 0.235"],
                 "train", "--data", "synthetic:64", "--mean", 125, "--std", 60)
        self.bad(2, ["mean 124,116,104 ", "mean 0.486,0.455,0.408 "],
                 "train", "--data", "synthetic:64", "--mean", "124,116,104", "--std", 0.25)
        self.bad(2, ["mean -0.5", "[0, 1], as pixels are\n"], "train", "--data", "synthetic:64", "--mean=-0.5")
        self.bad(2, ["deviation 1.5"], "train", "--data", "synthetic:64", "--std", 1.5)
        self.bad(2, ["100000 threads", "256"], "train", "--data", "synthetic:64", "--threads", 100000)
        self.bad(2, ["1024 ranks", "256"], "train", "--data", "synthetic:1024", "--batch-size", 1024, "--replicas", 1024)
        self.bad(2, ["resize:32x"], "train", "--data", "synthetic:64", "--transform", "resize:32x")
        self.bad(2, ["spin"], "train", "--data", "synthetic:64", "--test-transform", "spin", "--save", "w.safetensors")
        self.assertEqual(list(self.folder.iterdir()), [])

    def test_options_that_would_do_nothing(self):
        for words in [["--block-size", 8], ["--window", 8, "--order", "sequential"], ["--max-bad-rate", 0.5], ["--tta"], ["--tf32"]]:
            self.bad(2, [words[0]], "train", "--data", "synthetic:64", *words)
        self.train("--data", "synthetic:64", "--tta=false")
        for restarts in [], ["--restarts", 0]:
            self.bad(2, ["--min-ranks", "--restarts is 0"], "launch", "-n", 2, *restarts, "--min-ranks", 1, "--", "train", "--data", "synthetic:64")
        self.bad(2, ["--min-ranks 3", "2 ranks"], "launch", "-n", 2, "--restarts", 1, "--min-ranks", 3, "--", "train")

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

    def test_evaluation_has_no_substitutes(self):
        self.bad(2, ["--bad-samples", "mask"], "eval", "--weights", "w", "--data", "synthetic:64", "--bad-samples", "substitute")

    def test_predict_of_what_is_no_image(self):
        self.train("--data", "synthetic:64", "--save", "w.safetensors")
        (self.folder / "letter.jpg").write_bytes(b"Dear Sir or Madam")
        self.bad(2, ["letter.jpg", "neither"], "predict", "--weights", "w.safetensors", "letter.jpg")

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


if __name__ == "__main__":
    main()
