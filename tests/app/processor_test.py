#!/usr/bin/env python3
"""The command on a processor that lacks what it was built for: processor_test.py MILLRACE [TEST...]"""
import pathlib
import platform
import shutil
import subprocess
import unittest

from command import Command, MILLRACE, main


@unittest.skipUnless(platform.machine() == "x86_64" and shutil.which("qemu-x86_64"), "takes qemu-x86_64 (Debian: qemu-user) on x86-64")
class OtherProcessor(Command):
    def on(self, processor, *words):
        return subprocess.run(["qemu-x86_64", "-cpu", processor, MILLRACE, *map(str, words)], capture_output=True, text=True, timeout=200,
                              cwd=self.folder)

    def test_every_command_says_what_is_missing(self):
        for words in ["--version"], ["train", "--data", "synthetic:64"], ["launch", "-n", 2, "--", "devices"], ["no such"]:
            done = self.on("Nehalem", *words)  # it knows neither AVX nor FMA
            if " avx" not in done.stderr and done.returncode == 0:
                self.skipTest("this build needs no more than x86-64")
            self.assertEqual((done.returncode, done.stdout), (1, ""), done.stderr)
            self.assertRegex(done.stderr, r"^millrace: this program was built for processors with [a-z0-9. ]*\bavx\b[a-z0-9. ]*; this one lacks "
                             r"[a-z0-9. ]*\bavx\b[a-z0-9. ]*; build it on this machine, or for others: cmake -DMILLRACE_ARCH=.*\n$")
            self.assertNotIn("sse3", done.stderr.split("this one lacks")[1], "which it has")

    def test_so_do_the_programs_of_the_tests(self):
        """Some link shared libraries whose initializers call inline functions of the program."""
        for program in sorted(pathlib.Path(MILLRACE).parent.parent.glob("tests/*_test")):
            with self.subTest(program=program.name):
                done = subprocess.run(["qemu-x86_64", "-cpu", "Nehalem", program, "--gtest_list_tests"], capture_output=True, text=True, timeout=200)
                if done.returncode != 0:
                    self.assertEqual((done.returncode, done.stdout), (1, ""), done.stderr)
                    self.assertRegex(done.stderr, "^millrace: this program was built for processors with .*; this one lacks .*\n$")

    def test_what_is_there_is_enough(self):
        """qemu knows all of AVX2, and of AVX-512 nothing."""
        done = self.on("max", "--version")
        if done.returncode == 0:
            self.assertTrue(done.stdout.startswith("millrace "), done.stdout)
        else:
            lacking = done.stderr.split("this one lacks ")[1].split(";")[0].split()
            self.assertEqual([name for name in lacking if not name.startswith("avx512") and name != "avxvnni"], [], done.stderr)


if __name__ == "__main__":
    main()
