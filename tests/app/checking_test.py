#!/usr/bin/env python3
"""millrace check: checking_test.py MILLRACE [TEST...]"""
import json

from command import Command, main


class Checking(Command):
    def test_a_sound_machine_passes(self):
        out = self.good("check", "--seconds", 180).splitlines()
        self.assertRegex(out[-1], r"^check: all \d+ passed in [\d.]+ s$")
        self.assertLessEqual(len(out), 40)
        for words in ("oneDNN: ", "processor: ", "ok      lenet5, f32 on cpu, a step: ", "ok      airbench94, f32 on cpu, hashes: ",
                      "ok      checkpoint on cpu: ", "images/s"):
            self.assertTrue(any(words in line for line in out), words)

    def test_json(self):
        report = json.loads(self.good("check", "--seconds", 180, "--json"))
        self.assertTrue(report["passed"])
        self.assertTrue(all(check["passed"] for check in report["checks"]))
        self.assertIn("processor", report["versions"])

    def test_it_ends_when_its_time_is_over(self):
        for words in ([], ["--json"]):
            done = self.run_command("check", "--seconds", 0.02, *words)
            self.assertEqual(done.returncode, 1, done.stdout + done.stderr)
            self.assertIn("check: not done after 0.02 s, at ", done.stdout)
        self.assertFalse(json.loads(done.stdout)["passed"])


if __name__ == "__main__":
    main()
