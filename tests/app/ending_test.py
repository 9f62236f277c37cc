#!/usr/bin/env python3
"""How a training ends where an output fails, and at signals: ending_test.py MILLRACE [TEST...]"""
import fcntl
import json
import os
import pty
import random
import signal
import struct
import subprocess
import termios
import time
import unittest

from command import Command, MILLRACE, main

LAUNCH = ["launch", "-n", 2, "--"]


class Ending(Command):
    RECIPE = ["train", "--data", "synthetic:640", "--batch-size", 32, "--shards", 2, "--epochs", 20]
    KEEPING = [*RECIPE, "--checkpoint", "kept"]
    ENDLESS = [*RECIPE[:-1], 100000, "--log-every", 1, "--checkpoint", "kept"]
    LAST = "step-000000400"

    def checkpoints(self):
        return sorted(path.name for path in (self.folder / "kept").glob("*"))

    def without_folder(self, name, *words):
        """Runs it, and removes the folder once the first epoch is over; the exit code and what was said."""
        (self.folder / name).mkdir(exist_ok=True)
        process = self.start(*words)
        for line in process.stdout:
            if "epoch 1: loss" in line:
                (self.folder / name).rmdir()
                break
        out, errors = process.communicate(timeout=60)
        self.assertFalse((self.folder / name).exists(), out + errors)
        return process.returncode, errors

    def start_with_output(self, output, *words):
        return subprocess.run([MILLRACE, *map(str, words)], stdout=output, stderr=subprocess.PIPE, text=True, cwd=self.folder, timeout=60)

    def interrupted_at(self, process):
        """Expects a checkpoint, and the exit code that goes with it."""
        errors = process.communicate(timeout=60)[1]
        self.assertEqual(process.returncode, 4, errors)
        self.assertEqual(len(self.checkpoints()), 1)
        self.assertIn("--resume auto goes on from kept/" + self.checkpoints()[0], errors)
        return errors

    def wait_for_steps(self, process):
        for line in process.stdout:
            if "loss:" in line:
                return
        self.fail(process.stderr.read())

    def test_model_that_cannot_be_written(self):
        expected = self.good(*self.RECIPE).split("weights ")[1].split()[0]
        for launch in [], LAUNCH:
            with self.subTest(launch=launch):
                others = ["--log-json", "log", "--trace", "trace.json"]
                code, errors = self.without_folder("gone", *launch, *self.KEEPING, *others, "--save", "gone/net", "--resume", "auto")
                self.assertEqual(code, 1, errors)
                self.assertEqual(errors.count("millrace: cannot write gone/net: No such file"), 1, errors)
                self.assertEqual(self.checkpoints(), [self.LAST])
                end = self.events("log")[-1]
                self.assertEqual((end["event"], end["weights_hash"]), ("end", expected))
                json.loads((self.folder / "trace.json").read_text())
                self.good(*launch, *self.KEEPING, "--save", "net", "--resume", "auto")
                self.good("eval", "--weights", "net", "--data", "synthetic:64")
                for path in (self.folder / "kept" / self.LAST).iterdir():
                    path.unlink()
                (self.folder / "kept" / self.LAST).rmdir()
                (self.folder / "net").unlink()

    def test_finished_run_that_goes_on_in_another_folder(self):
        self.good(*self.RECIPE, "--checkpoint", "first")
        for launch in [], LAUNCH:
            with self.subTest(launch=launch):
                self.good(*launch, *self.KEEPING, "--resume", "first")
                self.assertEqual(self.checkpoints(), [self.LAST])
                (self.folder / "kept").rename(self.folder / f"kept of {len(launch)}")

    def test_checkpoint_that_cannot_be_written(self):
        for launch in [], LAUNCH:
            with self.subTest(launch=launch):
                code, errors = self.without_folder("kept", *launch, *self.KEEPING, "--log-json", "log", "--save", "net")
                self.assertEqual(code, 1, errors)
                self.assertIn(f"millrace: cannot write kept/{self.LAST}.part: No such file", errors)
                self.good("eval", "--weights", "net", "--data", "synthetic:64")
                self.assertEqual(self.events("log")[-1]["event"], "end")
                (self.folder / "net").unlink()

    def test_both_are_told_of(self):
        (self.folder / "gone").mkdir()
        (self.folder / "kept").mkdir()
        process = self.start(*self.KEEPING, "--save", "gone/net", "--log-json", "log")
        for line in process.stdout:
            if "epoch 1: loss" in line:
                (self.folder / "gone").rmdir()
                (self.folder / "kept").rmdir()
                break
        errors = process.communicate(timeout=60)[1]
        self.assertEqual(process.returncode, 1, errors)
        for path in "kept/step", "gone/net":
            self.assertIn(f"millrace: cannot write {path}", errors)
        self.assertEqual(self.events("log")[-1]["event"], "end")

    def test_evaluation_that_fails(self):
        self.images()
        (self.folder / "images" / "red" / "003.png").write_bytes(b"no picture")
        self.bad(2, ["003.png"], "train", "--data", self.images("good"), "--batch-size", 8, "--epochs", 1, "--test-data",
                 f"images:{self.folder}/images", "--checkpoint", "kept", "--save", "net")
        self.assertEqual(self.checkpoints(), ["step-000000006"])
        self.good("eval", "--weights", "net", "--data", f"images:{self.folder}/good")

    @unittest.skipUnless(os.path.exists("/dev/full"), "no /dev/full")
    def test_full_disk_at_log(self):
        for launch in [], LAUNCH:
            with self.subTest(launch=launch):
                done = self.run_command(*launch, *self.KEEPING, "--log-json", "/dev/full", "--save", "net", "--resume", "auto")
                self.assertEqual(done.returncode, 0, done.stderr)
                self.assertEqual(done.stderr.count("cannot write to /dev/full: No space left on device; the run goes on without this log"), 1, done.stderr)
                self.assertEqual(self.checkpoints(), [self.LAST])
                self.good("eval", "--weights", "net", "--data", "synthetic:64")

    def test_log_that_a_full_disk_has_cut(self):
        """A limit on the size of a file, which the checkpoints keep, stands in for the full disk."""
        limit = 400_000
        (self.folder / "log").write_text(json.dumps({"event": "x" * (limit - 1000)}) + "\n")
        words = [*self.KEEPING, "--log-json", "log", "--log-every", 1, "--resume", "auto"]
        done = self.run_command(*words, file_limit=limit)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(done.stderr.count("millrace: cannot write to log: File too large"), 1, done.stderr)
        self.assertEqual(self.checkpoints(), [self.LAST])
        text = (self.folder / "log").read_text()
        self.assertEqual(len(text), limit)
        self.assertFalse(text.endswith("\n"), "the limit cut no line; change it")
        self.good(*words)
        self.assertTrue((self.folder / "log").read_text().startswith(text + "\n"))
        lines = (self.folder / "log").read_text()[limit:].splitlines()[1:]
        self.assertEqual([json.loads(line)["event"] for line in lines], ["start", "resume", "end"])

    def test_log_to_a_pipe(self):
        """train --log-json /dev/stdout | ..., or >(...) of a shell"""
        done = self.run_command(*self.KEEPING, "--log-json", "/dev/stdout")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(json.loads(done.stdout.splitlines()[-1])["event"], "end")
        self.assertEqual(self.checkpoints(), [self.LAST])

    def test_trace_that_cannot_be_written(self):
        for launch in [], LAUNCH:
            with self.subTest(launch=launch):
                code, errors = self.without_folder("gone", *launch, *self.KEEPING, "--resume", "auto", "--trace", "gone/trace", "--save", "net")
                self.assertEqual(code, 0, errors)
                self.assertEqual(errors.count("millrace: cannot write gone/trace: No such file"), 1, errors)
                self.assertEqual(self.checkpoints(), [self.LAST])
                (self.folder / "kept" / self.LAST).rename(self.folder / f"kept of {len(launch)}")

    @unittest.skipUnless(os.path.exists("/dev/full"), "no /dev/full")
    def test_full_disk_at_standard_output(self):
        for launch in [], LAUNCH:
            with self.subTest(launch=launch), open("/dev/full", "w") as full:
                done = self.start_with_output(full, *launch, *self.KEEPING, "--log-every", 1, "--save", "net", "--resume", "auto")
                self.assertEqual(done.returncode, 1, done.stderr)
                self.assertEqual(done.stderr.count("cannot write to standard output; is the disk full?"), 1, done.stderr)
                self.assertEqual(self.checkpoints(), [self.LAST])
                self.good("eval", "--weights", "net", "--data", "synthetic:64")
                (self.folder / "kept" / self.LAST).rename(self.folder / f"kept of {len(launch)}")

    @unittest.skipUnless(os.path.exists("/dev/full"), "no /dev/full")
    def test_full_disk_at_standard_error(self):
        data = self.images()
        (self.folder / "images" / "red" / "003.png").write_bytes(b"no picture")
        with open("/dev/full", "w") as full:
            done = subprocess.run([MILLRACE, "train", "--data", data, "--epochs", "1", "--batch-size", "4", "--bad-samples", "mask", "--save",
                                   "net"], stdout=subprocess.PIPE, stderr=full, cwd=self.folder, timeout=60)
        self.assertEqual(done.returncode, 0)
        self.assertTrue((self.folder / "net").exists())

    def test_closed_pipe(self):
        """train | head -1"""
        for launch in [], LAUNCH:
            with self.subTest(launch=launch):
                process = self.start(*launch, *self.ENDLESS, "--log-json", "log")
                process.stdout.readline()
                process.stdout.close()
                process.stdout = None
                self.assertIn("SIGTERM: ended after step" if launch else "SIGPIPE: ended after step", self.interrupted_at(process))
                self.assertEqual(self.events("log")[-1]["event"], "interrupted")
                (self.folder / "kept").rename(self.folder / f"kept of {len(launch)}")

    def test_closed_pipe_without_checkpoints(self):
        process = self.start(*self.ENDLESS[:-2])
        process.stdout.readline()
        process.stdout.close()
        process.stdout = None
        self.assertIn("nothing was saved", process.communicate(timeout=60)[1])
        self.assertEqual(process.returncode, 128 + signal.SIGPIPE)

    def test_closed_pipe_of_other_commands(self):
        """Ends them quietly."""
        for words in ["inspect", "synthetic:64"], ["--help"], ["bench", "train", "--seconds", 0.01, "--repeats", 1]:
            read, write = os.pipe()
            os.close(read)
            done = self.start_with_output(write, *words)
            os.close(write)
            self.assertEqual((done.returncode, done.stderr), (-signal.SIGPIPE, ""), words)

    def test_signals_right_after_each_other(self):
        seed = time.time_ns() % 10**9
        print("seed", seed)
        chance = random.Random(seed)
        for i in range(6):
            launch = LAUNCH if i % 3 == 2 else []
            process = self.start(*launch, *self.ENDLESS)
            self.wait_for_steps(process)
            first, second = chance.choice([(signal.SIGTERM, signal.SIGTERM), (signal.SIGINT, signal.SIGTERM), (signal.SIGHUP, signal.SIGHUP)])
            process.send_signal(first)
            time.sleep(chance.choice([0, 0, 0.0005, 0.02]))
            process.send_signal(second)
            self.interrupted_at(process)
            (self.folder / "kept").rename(self.folder / f"kept {i}")

    def test_terminal_that_is_gone(self):
        """It sends SIGHUP, and what is printed afterwards fails."""
        words = [MILLRACE, *map(str, self.ENDLESS), "--resume", "auto"]
        words[words.index("synthetic:640")] = "synthetic:32"  # an epoch a step, so that the bar is drawn at each
        for _ in range(5):
            process, terminal = pty.fork()
            if process == 0:
                signal.signal(signal.SIGHUP, signal.SIG_DFL)
                os.chdir(self.folder)
                os.execv(MILLRACE, words)
            shown = b""
            while b"loss:" not in shown:
                shown += os.read(terminal, 4096)
            before = self.checkpoints()
            os.close(terminal)
            self.assertEqual(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), 4)
            self.assertNotEqual(self.checkpoints(), before)

    def test_timeout(self):
        """GNU's, which sends its signal twice."""
        for i in range(10):
            process = subprocess.Popen(["timeout", "--preserve-status", "60", MILLRACE, *map(str, self.ENDLESS)], stdout=subprocess.PIPE,
                                       stderr=subprocess.PIPE, text=True, cwd=self.folder)
            self.wait_for_steps(process)
            process.terminate()
            self.interrupted_at(process)
            (self.folder / "kept").rename(self.folder / f"kept {i}")

    def test_a_later_signal_ends_it_at_once(self):
        """It is held up at its log, a pipe that is full, when they come."""
        os.mkfifo(self.folder / "log")
        for seconds, expected in (0.3, 4), (1.3, -signal.SIGTERM):
            with self.subTest(seconds=seconds):
                reader = os.open(self.folder / "log", os.O_RDONLY | os.O_NONBLOCK)
                fcntl.fcntl(reader, fcntl.F_SETPIPE_SZ, 4096)
                process = self.start(*self.ENDLESS, "--resume", "auto", "--log-json", "log")
                self.wait_until_full(reader, process)
                process.terminate()
                process.terminate()
                time.sleep(seconds)
                self.assertIsNone(process.poll(), "two at once have ended it")
                process.terminate()
                if expected < 0:
                    self.assertEqual(process.wait(timeout=60), expected)
                os.set_blocking(reader, True)
                while os.read(reader, 4096):
                    pass
                os.close(reader)
                errors = process.communicate(timeout=60)[1]
                self.assertEqual(process.returncode, expected, errors)

    def wait_until_full(self, pipe, process):
        end, held = time.monotonic() + 60, []
        while len(held) < 20 or held[-20] != held[-1] or held[-1] == 0:
            self.assertTrue(process.poll() is None and time.monotonic() < end)
            held.append(struct.unpack("i", fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)))[0])
            time.sleep(0.02)


if __name__ == "__main__":
    main()
