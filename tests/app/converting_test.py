#!/usr/bin/env python3
"""convert and inspect: converting_test.py MILLRACE [TEST...]"""
import os
import random
import tarfile

import records_reader
from command import Command, picture, png, TINY_JPEG, main


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
        self.assertEqual((classes, header["parts"], header["flags"]), (["blue", "red"], 1, 0))
        paths = sorted((self.folder / "images").glob("*/*"))
        self.assertEqual([record[4] for record in records], list(map(str, paths)))
        for path, (payload, label, encoding, size, _) in zip(paths, records):
            self.assertEqual(payload, path.read_bytes())
            self.assertEqual((classes[label], encoding, size), (path.parent.name, 3 if path.suffix == ".png" else 2, (0, 0, 0)))

    def test_another_reader_reads_raw_images_in_parts(self):
        data = self.cifar10()
        self.good("convert", "--from", data, "--to", "c.mlr", "--part-size", "100KB")
        parts = sorted(self.folder.glob("c-*-of-*.mlr"))
        self.assertGreater(len(parts), 2)
        labels, fingerprints = [], set()
        for i, part in enumerate(parts):
            self.assertLessEqual(part.stat().st_size, 100_000)
            header, classes, records = records_reader.read_records(part)
            self.assertEqual((header["part"], header["parts"], header["height"], len(classes)), (i, len(parts), 32, 10))
            fingerprints.add(header["fingerprint"])
            for payload, label, encoding, size, _ in records:
                self.assertEqual((payload, encoding, size), (bytes(3072), 1, (32, 32, 3)))
                labels.append(label)
        self.assertEqual(labels, [3 if i == 47 else i % 40 % 10 for i in range(200)])
        self.assertEqual(len(fingerprints), 1)
        self.good("convert", "--from", data, "--to", "d.mlr", "--shard-size", "100KB")  # its name before
        self.assertEqual([part.read_bytes() for part in sorted(self.folder.glob("d-*-of-*.mlr"))], [part.read_bytes() for part in parts])
        parts[1].unlink()
        self.bad(2, [parts[2].name, "part 2", "expected part 1"], "inspect", "records:c-*.mlr")

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
        self.assertIn("verified: all 20 samples were read and have the right checksums\n", self.good("inspect", "s.mlr", "--verify"))
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

    def test_verify_decodes_whole_images(self):
        folder = self.folder / "images" / "only"
        folder.mkdir(parents=True)
        rng = random.Random(2)
        tile = png(64, 64, lambda x, y: [rng.randrange(256) for _ in range(3)])
        for name, whole in ("a.jpg", TINY_JPEG), ("b.png", tile):
            (folder / name).write_bytes(whole)
        self.assertIn("all 2 samples were read; their format has no checksums; decoded whole: 2 JPEG and PNG images",
                      self.good("inspect", "images:images", "--verify"))
        cuts = {f"cut{i}.jpg": TINY_JPEG[:size] for i, size in enumerate([-40, -12, -2])}
        cuts |= {f"cut{i}.png": tile[:size] for i, size in enumerate([len(tile) // 2, -12, -2], 3)}
        for name, part in cuts.items():
            (folder / name).write_bytes(part)
        self.good("convert", "--from", "images:images", "--to", "a.mlr")
        with tarfile.open(self.folder / "a.tar", "w") as tar:
            tar.add(folder, "only")
        with tarfile.open(self.folder / "w.tar", "w") as tar:
            for name in sorted(os.listdir(folder)):
                (self.folder / "label").write_text("0")
                tar.add(folder / name, name)
                tar.add(self.folder / "label", name[:-3] + "cls")
        (self.folder / "a.csv").write_text("".join(f"images/only/{name},0\n" for name in sorted(os.listdir(folder))))
        for data in "images:images", "images:a.tar", "tar:w.tar", "list:a.csv", "records:a.mlr":
            done = self.run_command("inspect", data, "--verify")
            self.assertEqual(done.returncode, 2, data)
            damaged = [line for line in done.stdout.splitlines() if line.startswith("damaged: ")]
            self.assertEqual(len(damaged), len(cuts), data)
            for name, line in zip(sorted(cuts), damaged):
                self.assertIn(name, line)
            self.assertIn("6 of 8 samples", done.stderr)

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
        self.bad(2, ["--part-size", "many"], "convert", "--from", "synthetic:20", "--to", "b.mlr", "--part-size", "many")
        self.bad(1, ["b.mlr"], "convert", "--from", "synthetic:20", "--to", "b.mlr", file_limit=4096)
        self.assertEqual([p.name for p in self.folder.iterdir()], ["a.mlr"])


if __name__ == "__main__":
    main()
