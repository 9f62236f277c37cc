#!/usr/bin/env python3
"""devices, plan, bench and what training says of itself: measuring_test.py MILLRACE [TEST...]"""
import json

from command import Command, main


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

    def test_the_profile_of_steps_names_their_kernels(self):
        common = ["bench", "train", "--model", "lenet5", "--batch-size", 8, "--repeats", 1, "--seconds", 0.05, "--profile"]
        for replicas, shards in (1, 1), (2, 2), (1, 2):
            result = json.loads(self.good(*common, "--json", "--replicas", replicas, "--shards", shards))
            profile, images = result["profile"], 8 // shards
            rows = {(row["kernel"], row["shapes"]): row for row in profile["kernels"]}
            calls = {key: row["calls"] / shards for key, row in rows.items()}
            self.assertEqual(calls["conv2d_forward", f"[{images}, 3, 32, 32] [6, 3, 5, 5]"], 1)
            self.assertEqual(calls["conv2d_forward", f"[{images}, 6, 14, 14] [16, 6, 5, 5]"], 1)
            self.assertEqual(calls["conv2d_backward_data", f"[{images}, 16, 10, 10] [16, 6, 5, 5]"], 1)
            self.assertEqual(sum(n for key, n in calls.items() if key[0].startswith("conv2d")), 5)
            self.assertEqual(sum(n for key, n in calls.items() if key[0] == "matmul"), 9)
            self.assertEqual(sum(n for key, n in calls.items() if key[0] == "unary relu"), 4)
            self.assertEqual(sum(n for key, n in calls.items() if key[0] == "unary_backward relu"), 4)
            self.assertEqual(sum(n for key, n in calls.items() if key[0] == "max_pool2d_backward"), 2)
            self.assertAlmostEqual(sum(row["ms"] for row in rows.values()) + profile["between_ms"], profile["step_ms"],
                                   delta=1e-6 * profile["step_ms"])
            for key, row in rows.items():
                self.assertGreater(row["ms"], 0, key)
                self.assertEqual(row["gflops"] > 0, key[0] == "matmul" or key[0].startswith("conv2d"), key)
            conv1 = rows["conv2d_forward", f"[{images}, 3, 32, 32] [6, 3, 5, 5]"]
            operations = conv1["gflops"] * 1e6 * conv1["ms"] * replicas  # a step, over all threads
            self.assertAlmostEqual(operations / (2 * 8 * 6 * 28 * 28 * 75), 1, delta=1e-6)
            self.assertGreater(profile["peak_gflops"], 0)
            self.assertGreater(profile["limit_images_per_second"], 0)
        out = self.good(*common)
        for words in "GFLOP/s  of peak", "between kernels", "unary relu", "convolution-only limit: ":
            self.assertIn(words, out)

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

    def test_help_leaves_out_names_of_before(self):
        for words, now, before in [(["train"], "--sum-order", "--reduction"), (["bench", "exchange"], "--sum-order", "--reduction"),
                                   (["convert"], "--part-size", "--shard-size")]:
            shown = self.good(*words, "--help")
            self.assertIn(now, shown)
            self.assertNotIn(before, shown)


if __name__ == "__main__":
    main()
