#!/usr/bin/env python3
"""launch, and training over processes: processes_test.py MILLRACE [TEST...]"""
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import time

from command import Command, MILLRACE, main


class Processes(Command):
    ENDLESS = ["--model", "lenet5", "--data", "synthetic:256", "--batch-size", 32, "--shards", 8, "--log-every", 4,
               "--epochs"]
    RECIPE = [*ENDLESS, 1, "--timeout", 60]

    def hash_of(self, *words):
        self.good(*words, *self.RECIPE, "--log-json", "log")
        ends = [event for event in self.events("log") if event["event"] == "end"]
        (self.folder / "log").unlink()
        return ends[0]["weights_hash"]

    def free_port(self):
        with socket.socket() as one:
            one.bind(("127.0.0.1", 0))
            return one.getsockname()[1]

    def errors_of(self, codes, *words_of_ranks):
        """Of two ranks that are given these words and end with these codes before their --timeout."""
        port = self.free_port()
        both = [self.start("train", *self.RECIPE, *words, RANK=rank, WORLD_SIZE=2, MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
                for rank, words in enumerate(words_of_ranks)]
        errors = [one.communicate(timeout=40)[1] for one in both]
        self.assertEqual([one.returncode for one in both], codes, errors)
        return errors

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
        self.assertEqual(self.hash_of("train", "--replicas", 1, "--no-replay"), expected)
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
        self.assertIn("[1] millrace: ", errors)  # woken, it hears of it and need not be killed
        self.expect_gone(ranks)

    def test_signal_while_a_rank_is_stopped(self):
        launch = self.start("launch", "-n", 2, "--", "train", *self.ENDLESS, 100000, "--timeout", 3)
        self.wait_for_steps(launch)
        ranks = self.children_of(launch.pid)
        os.kill(ranks[1], signal.SIGSTOP)
        launch.terminate()
        _, errors = launch.communicate(timeout=90)
        self.assertEqual(launch.returncode, 3, errors)
        self.assertIn("rank 1 hangs or is cut off", errors)
        self.expect_gone(ranks)

    def test_closed_terminal(self):
        words = ["launch", "-n", 2, "--", "train", "--checkpoint", "kept"]
        launch = self.start(*words, *self.ENDLESS, 100000)
        self.wait_for_steps(launch)
        launch.send_signal(signal.SIGHUP)
        _, errors = launch.communicate(timeout=60)
        self.assertEqual(launch.returncode, 4, errors)
        self.assertIn("SIGHUP: ended after step", errors)
        self.assertEqual(len(list((self.folder / "kept").iterdir())), 1)

    def test_signal_during_evaluation(self):
        words = ["train", *self.RECIPE, "--checkpoint", "kept", "--test-data", "synthetic:40000"]
        expected = self.good(*words[:-4], *words[-2:]).split("test accuracy")[1].split("%")[0]
        for launch in [], ["launch", "-n", 2, "--"]:
            with self.subTest(launch=launch):
                shutil.rmtree(self.folder / "kept", ignore_errors=True)
                process = self.start(*launch, *words)
                for line in process.stdout:
                    if "epoch 1: loss" in line:
                        process.terminate()
                        break
                out, errors = process.communicate(timeout=60)
                self.assertEqual(process.returncode, 4, out + errors)
                self.assertNotIn("test accuracy", out)
                out = self.good(*launch, *words, "--resume", "auto")
                self.assertEqual(out.split("test accuracy")[1].split("%")[0], expected)

    def test_too_much_bad_data_over_all_ranks(self):
        data = self.images()
        for i in range(0, 24, 3):
            for kind in "blue", "red":
                (self.folder / "images" / kind / f"{i:03}.png").write_bytes(b"no picture")
        words = ["train", "--data", data, "--batch-size", 16, "--shards", 2, "--epochs", 1, "--bad-samples", "mask", "--max-bad-rate"]
        for launch in ["launch", "-n", 1, "--"], ["launch", "-n", 2, "--"]:
            done = self.run_command(*launch, *words, 0.1)
            self.assertEqual(done.returncode, 2, done.stderr)
            self.assertRegex(done.stderr, "1[1-6] of the first [0-9]+ samples are bad, more than the rate of 0.1")
            self.assertIn("16 samples of the training data could not be read", self.good(*launch, *words, 0.5))

    def test_other_options_are_named(self):
        for given, words in [((["--lr", 0.1], ["--lr", 0.25]), ["0.25", "0.1"]),
                             (([], ["--test-data", "synthetic:64"]), ["evaluation", "64 samples", "none"]),
                             ((["--test-data", "synthetic:64"], ["--test-data", "synthetic:64", "--test-transform", "resize:8,center_crop:32"]),
                              ["evaluation", "resize:8,center_crop:32"]),
                             ((["--bad-samples", "mask"], ["--bad-samples", "mask", "--max-bad-rate", 0.5]), ["max bad rate", "0.5", "0.001"]),
                             ((["--sum-order", "tree"], ["--sum-order", "engine"]), ["order of sums: ", "engine", "tree"]),
                             (([], ["--reduction", "engine"]), ["order of sums: ", "engine", "tree"])]:
            errors = self.errors_of([2, 2], *given)
            for word in ["the processes differ", "on rank 1", "on rank 0", *words]:
                self.assertIn(word, errors[1])
                self.assertIn(word, errors[0])

    def test_other_data_of_the_same_size_is_named(self):
        data = self.cifar10()
        other = self.folder / "other"
        shutil.copytree(self.folder / "cifar", other)
        for name in "data_batch_1.bin", "test_batch.bin":
            (other / name).write_bytes(b"\1" + (other / name).read_bytes()[1:])
        self.RECIPE = [word for word in self.RECIPE if word not in ("--data", "synthetic:256")]
        for option, named in ("--data", "data: 200 samples "), ("--test-data", "evaluation: 40 samples "):
            both = ["--data", data] if option == "--test-data" else []
            errors = self.errors_of([2, 2], [*both, option, data], [*both, option, f"cifar10:{other}"])
            self.assertIn("the processes differ: " + named, errors[0])

    def test_mistakes_of_one_rank_are_told_to_the_others(self):
        for words in ["--tta"], ["--momentum", 0.9, "--optimizer", "adam"]:
            errors = self.errors_of([3, 2], [], words)
            self.assertIn(f"rank 1 failed: {words[0]}: ", errors[0])

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
        for words, named in [(["-n", 0, "--", "train"], ["--ranks: got 0"]), (["-n", 2, "--"], ["command is required"]),
                             (["-n", 2, "train", "--data", "x"], ["--data", "launch -n 2 -- train"]),
                             (["-n", 2, "--", "train", "--data", "x", "--rank=1"], ["--rank", "leave it out"])]:
            self.bad(2, named, "launch", *words)
        done = self.run_command("launch", "-n", 3, "--", "train", "--data", "synthetic:64", "--shards", 2)
        self.assertEqual(done.returncode, 2, done.stderr)
        self.assertIn("3 processes for 2 shards", done.stderr)
        with open("/dev/full", "w") as full:
            done = subprocess.run([MILLRACE, "launch", "-n", "1", "--", "devices"], stdout=full, stderr=subprocess.PIPE, text=True)
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertIn("cannot write to standard output", done.stderr)
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
    main()
