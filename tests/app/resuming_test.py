#!/usr/bin/env python3
"""Checkpoints, and going on from them: resuming_test.py MILLRACE [TEST...]"""
import hashlib
import json
import pathlib
import random
import shutil
import signal
import struct
import time

from command import Command, main


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

    def undisturbed(self, *words, epochs=3):
        self.good(*self.recipe(epochs=epochs), "--replicas", 1, *words)
        expected = self.hash()
        (self.folder / "run.jsonl").unlink()
        return expected

    def wait_for_new(self, pattern, process):
        """Until another file of that name is there, or the process has ended."""
        end, before = time.monotonic() + 60, set(self.folder.glob(pattern))
        while set(self.folder.glob(pattern)) <= before and process.poll() is None and time.monotonic() < end:
            time.sleep(0.002)

    def blocks(self, process, signal_):
        """Whether the process's first thread leaves the signal to another one."""
        status = pathlib.Path(f"/proc/{process.pid}/status").read_text()
        return int(status.split("SigBlk:")[1].split()[0], 16) >> (signal_ - 1) & 1

    def checkpoints(self):
        return sorted(path.name for path in (self.folder / "kept").iterdir())

    def test_killed_at_random_moments(self):
        seed = time.time_ns() % 10**9
        print("seed", seed)
        chance = random.Random(seed)
        expected = self.undisturbed(epochs=20)
        for _ in range(6):
            process = self.start(*self.recipe(epochs=20), *self.KEEPING, "--resume", "auto", "--replicas", chance.choice([1, 2, 4]),
                                 "--threads", chance.choice([1, 2]))
            self.wait_for_new("kept/step-*[0-9]", process)
            time.sleep(chance.uniform(0, 0.3))
            process.kill()
            process.communicate(timeout=60)
        self.good(*self.recipe(epochs=20), *self.KEEPING, "--resume", "auto", "--replicas", 2)
        self.assertEqual(self.hash(), expected)
        self.assertEqual(self.checkpoints()[-1], "step-000001000")
        self.assertEqual(len(self.checkpoints()), 3)

    def test_signals(self):
        expected = self.undisturbed(epochs=20)
        for signal_, name in [(signal.SIGTERM, "SIGTERM"), (signal.SIGINT, "SIGINT")]:
            process = self.start(*self.recipe(epochs=20), *self.KEEPING, "--resume", "auto", "--replicas", 1)
            self.wait_for_new("kept/step-*[0-9]", process)
            self.assertTrue(self.blocks(process, signal_), "the thread that computes would be interrupted in oneDNN's kernels")
            process.send_signal(signal_)
            out, err = process.communicate(timeout=60)
            self.assertEqual(process.returncode, 4, out + err)
            self.assertIn(f"{name}: ended after step", err)
            last = self.events("run.jsonl")[-1]
            self.assertEqual((last["event"], last["signal"]), ("interrupted", name))
            self.assertEqual(last["checkpoint"], "kept/" + self.checkpoints()[-1])
            self.assertEqual(int(self.checkpoints()[-1][5:]), last["total_steps"])
        self.good(*self.recipe(epochs=20), *self.KEEPING, "--resume", "auto")
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

    def test_a_recipe_goes_on_with_its_average(self):
        words = ["train", "--recipe", "airbench94", "--data", "synthetic:96", "--batch-size", 32, "--epochs", 3.5, "--shards", 2,
                 "--log-json", "run.jsonl"]
        self.good(*words, "--replicas", 1, "--save", "net.safetensors", "--checkpoint", "kept", "--checkpoint-every", "7steps")
        expected = self.hash()
        self.assertEqual(self.checkpoints(), ["step-000000007", "step-000000011"])
        self.good(*words, "--replicas", 1, "--checkpoint", "other", "--checkpoint-every", "11steps")
        evaluations = {self.good("eval", "--data", "synthetic:96", "--json", "--weights", weights) for weights in
                       ("net.safetensors", "kept/step-000000011/weights.safetensors", "other/step-000000011/weights.safetensors")}
        self.assertEqual(len(evaluations), 1, "the last checkpoint holds the average")
        out = self.good(*words, "--replicas", 2, "--resume", "kept/step-000000007")
        self.assertIn("epoch 3, step 1", out)
        self.assertNotIn("initialized", out)
        self.assertEqual(self.hash(), expected)
        self.good(*words, "--resume", "kept")
        self.assertEqual(self.hash(), expected, "of a run that was over")

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

    def test_other_data_of_the_same_size(self):
        self.cifar10()
        (self.folder / "idx").mkdir()
        images, labels = self.folder / "idx/train-images-idx3-ubyte", self.folder / "idx/train-labels-idx1-ubyte"
        images.write_bytes(struct.pack(">IIII", 0x803, 40, 28, 28) + bytes(40 * 28 * 28))
        labels.write_bytes(struct.pack(">II", 0x801, 40) + bytes(40))
        first, third = self.folder / "cifar/data_batch_1.bin", self.folder / "cifar/data_batch_3.bin"
        for data, file, at in ("cifar10:cifar", first, 3000), ("cifar10:cifar", third, 7 * 3073), ("idx:idx", images, 16), ("idx:idx", labels, 47):
            words = ["train", "--model", "lenet5", "--data", data, "--epochs", 1, "--batch-size", 10, "--checkpoint", "kept"]
            self.good(*words)
            self.good(*words, "--resume", "auto")
            good = file.read_bytes()
            file.write_bytes(good[:at] + b"\1" + good[at + 1:])
            self.bad(2, ["data: ", " samples ", "in the checkpoint"], *words, "--resume", "auto")
            file.write_bytes(good)
            shutil.rmtree(self.folder / "kept")

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
        momentum = {f"{name}.momentum_buffer": value[:2] for name, value in weights.items()
                    if "running" not in name and "num_b" not in name}
        self.assertEqual({name: value[:2] for name, value in tensors["optimizer"].items()},
                         {"step": ("I64", []), "frozen_steps": ("I64", [len(momentum)]), **momentum})
        self.assertIn("right", self.good("eval", "--weights", newest / "weights.safetensors", "--data", "synthetic:100"))


if __name__ == "__main__":
    main()
