#!/usr/bin/env python3
"""train, eval and predict: training_test.py MILLRACE [TEST...]"""
import json

from command import Command, png, TINY_JPEG, main


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

    def test_many_classes(self):
        """A confusion matrix of 50,001 classes would take 20 GB."""
        (self.folder / "photo.jpg").write_bytes(TINY_JPEG)
        (self.folder / "photos.csv").write_text("photo.jpg,0\nphoto.jpg,50000\n" * 4)
        self.good("train", "--data", "list:photos.csv", "--test-data", "list:photos.csv", "--model", "lenet5", "--epochs", 1,
                  "--batch-size", 8, "--replicas", 2, "--save", "w.safetensors", memory_limit=8 << 30)
        words = ["eval", "--weights", "w.safetensors", "--data", "list:photos.csv"]
        self.assertIn("confusion: left out, there are 50001 classes; --json gives it for 1000 at most", self.good(*words, memory_limit=8 << 30))
        result = json.loads(self.good(*words, "--json", memory_limit=8 << 30))
        self.assertEqual((result["total"], len(result["class_accuracy"]), result["confusion"]), (8, 50001, None))

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

    def test_a_training_ends_in_the_middle_of_an_epoch(self):
        words = ["train", "--data", "synthetic:640", "--batch-size", 64, "--log-json", "run.jsonl", "--replicas", 1]
        self.good(*words, "--epochs", 2.65)
        whole = self.events("run.jsonl")
        self.assertEqual([event["steps"] for event in whole if event["event"] == "epoch"], [10, 10, 7])
        self.good(*words, "--epochs", 1.25, "--checkpoint", "kept", "--keep", 9)
        words += ["--checkpoint", "kept", "--resume", "auto"]
        out = self.good(*words, "--epochs", 1.25)
        self.assertIn("epoch 2, step 3", out)
        self.assertNotIn("epoch 2: loss", out, "it was over")
        self.good(*words, "--epochs", 2.65)
        events = self.events("run.jsonl")
        self.assertEqual(events[-1]["weights_hash"], whole[-1]["weights_hash"])
        self.assertEqual([event["steps"] for event in events if event["event"] == "epoch"], [10, 3, 7, 7])

    def test_recipes(self):
        words = ["train", "--recipe", "airbench94", "--data", "synthetic:192", "--test-data", "synthetic:100", "--shards", 2,
                 "--batch-size", 64, "--epochs", 1.4, "--log-json", "run.jsonl", "--save", "net.safetensors"]
        hashes = set()
        for replicas in (1, 2):
            out = self.good(*words, "--replicas", replicas)
            self.assertIn("recipe airbench94: airbench94, 1.4 epochs, batch 64, SGD, learning rate 1.5", out)
            events = self.events("run.jsonl")
            self.assertEqual([event["steps"] for event in events if event["event"] == "epoch"], [3, 2])
            self.assertEqual([event["views"] for event in events if event["event"] == "eval"], [False, False, True])
            self.assertEqual([event["event"] for event in events][:2], ["start", "initialized"])
            hashes.add(events[-1]["weights_hash"])
        self.assertEqual(len(hashes), 1)
        data = ["eval", "--weights", "net.safetensors", "--data", "synthetic:100", "--json"]
        plain, augmented = (json.loads(self.good(*data, *extra)) for extra in ([], ["--tta"]))
        self.assertEqual(plain["accuracy"], events[-1]["test_accuracy"])
        self.assertEqual(augmented["accuracy"], events[-1]["test_accuracy_views"])
        self.assertNotEqual(plain["loss"], augmented["loss"])
        self.bad(2, ["airbench95", "airbench94-muon", "resnet18"], "train", "--recipe", "airbench95", "--data", "synthetic:64")
        self.bad(2, ["--weight-decay", "Muon", "none"], "train", "--recipe", "airbench94-muon", "--weight-decay", 0.1, "--data",
                 "synthetic:64")
        self.bad(2, ["n1.bias"], "train", "--recipe", "airbench94", "--model", "lenet5", "--batch-size", 32, "--data", "synthetic:64")

    def test_options_hold_beside_a_recipe_in_any_order(self):
        words = ["train", "--data", "synthetic:128", "--epochs", 0.5, "--replicas", 1, "--log-json", "run.jsonl"]
        own = ["--model", "lenet5", "--lr", 0.02, "--no-nesterov", "--schedule", "constant", "--mean", 0.5, "--weight-decay", 0]
        given = ["--momentum", 0.9, "--batch-size", 128, "--transform", "random_crop:4,horizontal_flip,normalize",
                 "--std", "0.2470,0.2435,0.2616"]
        hashes = set()
        for order in (["--recipe", "resnet18", *own], [*own, "--recipe", "resnet18"], [*own, *given]):
            self.good(*words, *order)
            hashes.add(self.events("run.jsonl")[-1]["weights_hash"])
        self.assertEqual(len(hashes), 1)

    def test_optimizers(self):
        hashes = set()
        for optimizer in ([], ["sgd", "--momentum", 0.9], ["adam", "--lr", 0.01], ["adamw", "--lr", 0.01], ["rmsprop", "--momentum", 0.9]):
            chosen = ["--optimizer", *optimizer] if optimizer else []
            for replicas in (1, 2):
                self.good("train", "--data", "synthetic:128", "--epochs", 1, "--shards", 2, "--replicas", replicas, "--log-json",
                          "run.jsonl", *chosen)
                hashes.add(self.events("run.jsonl")[-1]["weights_hash"])
        self.assertEqual(len(hashes), 4)  # sgd is what trains where nothing is said

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


if __name__ == "__main__":
    main()
