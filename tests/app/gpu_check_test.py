#!/usr/bin/env python3
"""scripts/gpu-check, on planted faults and on a test program that dies: gpu_check_test.py MILLRACE [TEST...]"""
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tarfile
import time
import unittest

from command import Command, main

SCRIPT = pathlib.Path(__file__).resolve().parent.parent.parent / "scripts" / "gpu-check"
# Google Test as far as gpu-check knows it. One test dies, one fails, and behind the one that dies none runs.
TEST_PROGRAM = """#!{python}
import os, signal, sys
names = ["reads", "dies", "fails", "writes"]
chosen = next(word.split("=")[1] for word in sys.argv if "filter" in word)
if "--gtest_list_tests" in sys.argv:
    print("CudaRows.\\n  " + "\\n  ".join(names))
    sys.exit(0)
for name in names:
    if chosen in ("CudaRows*", "CudaRows." + name):
        print("[ RUN      ] CudaRows." + name, flush=True)
        if name == "dies":
            print("blocking:", os.environ.get("CUDA_LAUNCH_BLOCKING"), flush=True)
            os.kill(os.getpid(), signal.SIGABRT)
        print("[  FAILED  ]" if name == "fails" else "[       OK ]", "CudaRows." + name + " (1 ms)", flush=True)
sys.exit("fails" in chosen)
"""


class GpuCheck(Command):
    def setUp(self):
        super().setUp()
        self.out = self.folder / "out"
        self.tree = self.folder / "tree"
        (self.tree / "app").mkdir(parents=True)
        (self.tree / "app" / "millrace").touch()  # no program: every stage that is not planted fails

    def start_check(self, call, *options, emulated=True):
        return subprocess.Popen([sys.executable, SCRIPT, self.out, "--call", call, "--tree", self.tree, *options,
                                 *(["--emulated"] if emulated else [])], stdout=subprocess.DEVNULL)

    def check(self, call, *options):
        self.assertEqual(self.start_check(call, *options).wait(200), 1)  # something failed
        return self.report(call)

    def report(self, call):
        report = json.loads((self.out / f"call{call}.json").read_text())
        text = (self.out / f"call{call}.md").read_text()
        for stage in report["stages"]:
            self.assertIn(f"{stage['state']:9} {stage['stage']}: {stage['reason']}", text)
        return {stage["stage"]: stage for stage in report["stages"]}

    def test_every_planted_fault_is_named(self):
        """A crash, a hang, a wrong number and a missing library in each stage."""
        running = {call: self.start_check(call, "--plant", "all") for call in "12"}
        for call, count in ("1", 17), ("2", 18):
            self.assertEqual(running[call].wait(200), 1)
            stages = self.report(call)
            names = {name.rpartition(":")[0] for name in stages}
            self.assertEqual(len(names), count)
            for name in names:
                for kind, state, reason in (("crash", "failed", "killed by SIGSEGV"), ("hang", "timed out", "timed out after 1 s; at last: planted"),
                                            ("number", "failed", "wrong: "), ("library", "failed", "libplanted.so.1: cannot open")):
                    stage = stages.pop(f"{name}:{kind}")
                    self.assertEqual(stage["state"], state, stage)
                    self.assertIn(reason, stage["reason"])
            self.assertEqual(stages, {})
        files = [path.relative_to(self.out) for path in self.out.rglob("*") if path.is_file()]
        self.assertLessEqual(len(files), 8)
        self.assertLessEqual(max(len(path.parents) for path in files), 3)  # two folders and OUT
        self.assertEqual([path for path in pathlib.Path("/proc").glob("[0-9]*/environ") if self.is_of_a_stage(path)], [],
                         "processes of stages that hung live on")

    def is_of_a_stage(self, path):
        try:
            return f"XDG_CACHE_HOME={self.out}".encode() in path.read_bytes()
        except OSError:
            return False

    def test_one_planted_fault_stops_no_other_stage(self):
        stages = self.check("1", "--plant", "profile:hang")
        self.assertEqual(stages["profile:hang"]["state"], "timed out")
        self.assertIn("Permission denied", stages["kernels"]["reason"] + stages["speed-resident"]["reason"])
        self.assertEqual(len(stages), 17)

    def test_a_suite_that_dies_runs_again_test_by_test(self):
        (self.tree / "tests").mkdir()
        program = self.tree / "tests" / "tensor_test"
        program.write_text(TEST_PROGRAM.replace("{python}", sys.executable))
        program.chmod(0o755)
        stages = self.check("1")
        self.assertIn("killed by SIGABRT", stages["tests-tensor"]["reason"])
        again = {name.removeprefix("tests-tensor/CudaRows."): stage for name, stage in stages.items() if name.startswith("tests-tensor/")}
        self.assertEqual({name: stage["state"] for name, stage in again.items()},
                         {"dies": "failed", "dies, CUDA_LAUNCH_BLOCKING=1": "failed", "fails": "failed",
                          "fails, CUDA_LAUNCH_BLOCKING=1": "failed", "writes": "ok"})
        self.assertGreater(list(stages).index("tests-tensor/CudaRows.dies"), list(stages).index("nvidia-smi-after"), "no other stage waits")
        self.assertIn("blocking: 1", again["dies, CUDA_LAUNCH_BLOCKING=1"]["reason"])

    def test_a_killed_call_leaves_a_report(self):
        call = self.start_check("1", "--plant", "all")
        self.addCleanup(call.kill)
        for _ in range(400):
            time.sleep(0.05)
            if (self.out / "call1.md").exists() and "devices:hang" in (self.out / "call1.md").read_text():
                break
        call.kill()
        call.wait()
        stages = self.report("1")
        self.assertEqual(stages["nvidia-smi-before:crash"]["state"], "failed")
        self.assertEqual([stage["reason"] for stage in stages.values() if stage["state"] == "running"], ["the call ended here"])

    def test_limits_fit_into_nine_minutes(self):
        for call in "12":
            self.assertEqual(self.start_check(call, "--seconds", "0", emulated=False).wait(60), 0)
            stages = self.report(call).values()
            self.assertEqual({stage["state"] for stage in stages}, {"left out"})
            self.assertLessEqual(sum(stage["limit"] for stage in stages), 525)

    def test_chosen_engines_go_from_call_1_to_call_2_and_no_older_ones(self):
        kept = self.out / "cache" / "millrace" / "engines"
        given = self.folder / "engines"
        given.write_text("chosen by call 1")
        self.start_check("2", "--seconds", "0", "--engines", given).wait(60)
        self.assertEqual(kept.read_text(), "chosen by call 1")
        self.start_check("1", "--seconds", "0").wait(60)
        self.assertFalse(kept.exists())

    def test_mistakes(self):
        def mistake(*options):
            done = subprocess.run([sys.executable, SCRIPT, self.out, *options], text=True, capture_output=True, timeout=60)
            self.assertNotEqual(done.returncode, 0)
            return done.stderr
        self.assertIn("expected one of nvidia-smi-before", mistake("--call", "1", "--tree", self.tree, "--plant", "speed:crash"))
        self.assertIn("build it, or name a build", mistake("--call", "1", "--tree", self.folder))
        self.assertIn("name CIFAR-10", mistake("--call", "2", "--tree", self.tree, "--data", self.folder / "none"))


@unittest.skipUnless((SCRIPT.parent.parent / ".git").exists(), "what travels is what git knows")
class Bundle(Command):
    def bundle(self, data_bytes, arch="x86-64-v3"):
        build = self.folder / "build"
        for name in "app/millrace bench/cuda_bench tests/tensor_test tests/autograd_test tests/nn_test tests/distributed_test " \
                    "tests/pipeline_test".split():
            (build / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(shutil.which("xz"), build / name)  # small, and with a library of its own
        (build / "CMakeCache.txt").write_text(f"MILLRACE_ARCH:STRING={arch}\n")
        data = self.folder / "data.tar.xz"
        with open(data, "wb") as file:
            file.truncate(data_bytes)
        return subprocess.run([sys.executable, SCRIPT.parent / "bundle", self.folder / "bundle", "--build", build, "--data", data], text=True,
                              capture_output=True, timeout=200)

    def test_all_that_travels_is_there_and_weighed(self):
        done = self.bundle(1000)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("in all, of 64", done.stdout)
        self.assertEqual((self.folder / "bundle" / "data.tar.xz").stat().st_size, 1000)
        with tarfile.open(self.folder / "bundle" / "millrace.tar.xz") as archive:
            names = archive.getnames()
        for name in "app/millrace", "scripts/gpu-check", "bench/peers/torch_train.py", "tests/nn_test", "lib/liblzma.so.5":
            self.assertIn(f"millrace/{name}", names)
        self.assertNotIn("millrace/lib/libc.so.6", names)

    def test_too_much_is_refused_with_what_is_large(self):
        done = self.bundle(64 << 20)
        self.assertEqual(done.returncode, 1)
        self.assertIn("larger than 64 MiB: leave something out", done.stderr)
        self.assertRegex(done.stderr, "millrace.tar.xz holds [a-z/_]+ [0-9.]+ MiB")

    def test_a_build_for_this_processor_alone_is_refused(self):
        self.assertIn("-DMILLRACE_ARCH=x86-64-v3", self.bundle(0, "native").stderr)


if __name__ == "__main__":
    main()
