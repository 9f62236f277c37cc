"""What the tests of the command share: each runs it as a user does, in a folder of its own, on small data that it makes."""
import base64
import json
import os
import pathlib
import random
import resource
import signal
import struct
import subprocess
import sys
import tempfile
import unittest
import zlib

# The first word of the command line of every test program here.
MILLRACE = str(pathlib.Path(sys.argv[1]).resolve())
TINY_JPEG = base64.b64decode(
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDABsSFBcUERsXFhceHBsgKEIrKCUlKFE6PTBCYFVlZF9VXVtqeJmBanGQc1tdhbWGkJ6j"
    "q62rZ4C8ybqmx5moq6T/2wBDARweHigjKE4rK06kbl1upKSkpKSkpKSkpKSkpKSkpKSkpKSkpKSkpKSkpKSkpKSkpKSkpKSkpKSk"
    "pKSkpKSkpKT/wAARCAAgACADASIAAhEBAxEB/8QAFQABAQAAAAAAAAAAAAAAAAAAAwX/xAAWEAADAAAAAAAAAAAAAAAAAAAAAgP/"
    "xAAYAQACAwAAAAAAAAAAAAAAAAADBQIEBv/EABYRAAMAAAAAAAAAAAAAAAAAAAACA//aAAwDAQACEQMRAD8AirMVZjLMZZlpnIyo"
    "CsxlmKsxlmBZxnKgKzGWYqzGWYFnM7KgKzGWYqzGWYBnGUqH/9k=")


def png(width, height, pixel):
    """An RGB PNG file; pixel(x, y) gives three numbers."""
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    rows = b"".join(b"\0" + bytes(v for x in range(width) for v in pixel(x, y)) for y in range(height))
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)) +
            chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


def picture(label, rng):
    """Class 0 is red above, class 1 blue above, with noise."""
    bright = (0, 2)[label]
    return png(32, 32, lambda x, y: [rng.randrange(60) + (180 if c == bright and y < 16 else 0) for c in range(3)])


class Command(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def run_command(self, *words, file_limit=None, memory_limit=None, environment=None):
        def limit():
            for kind, most in (resource.RLIMIT_FSIZE, file_limit), (resource.RLIMIT_AS, memory_limit):
                if most:
                    resource.setrlimit(kind, (most, most))
        return subprocess.run([MILLRACE, *map(str, words)], capture_output=True, text=True, timeout=200, cwd=self.folder,
                              preexec_fn=limit, env={**os.environ, **(environment or {})})

    def start(self, *words, **variables):
        """The command under way, which hears signals even where this program is to ignore them: as a background job, or under nohup."""
        def hear():
            for each in signal.SIGINT, signal.SIGTERM, signal.SIGHUP:
                signal.signal(each, signal.SIG_DFL)
        return subprocess.Popen([MILLRACE, *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=self.folder,
                                preexec_fn=hear, env={**os.environ, **{name: str(value) for name, value in variables.items()}})

    def good(self, *words, **limits):
        done = self.run_command(*words, **limits)
        self.assertEqual(done.returncode, 0, f"{words}\n{done.stdout}{done.stderr}")
        return done.stdout

    def bad(self, code, named, *words, lines=1, **limits):
        """Expects the exit code, and one sentence (or more) on stderr with every string of `named` in it."""
        done = self.run_command(*words, **limits)
        self.assertEqual(done.returncode, code, f"{words}\n{done.stdout}{done.stderr}")
        self.assertEqual(done.stderr.count("\n"), lines, f"expected {lines} lines, got: {done.stderr}")
        for word in named:
            self.assertIn(word, done.stderr)

    def images(self, name="images", each=24, seed=1):
        """A tree of two classes; returns its data set name."""
        rng = random.Random(seed)
        for label, kind in enumerate(["blue", "red"]):
            (self.folder / name / kind).mkdir(parents=True)
            for i in range(each):
                (self.folder / name / kind / f"{i:03}.png").write_bytes(picture(1 - label, rng))
        return f"images:{self.folder / name}"

    def cifar10(self, label=3, cut=0):
        folder = self.folder / "cifar"
        folder.mkdir()
        record = bytes(3072)
        for name in [f"data_batch_{i}.bin" for i in range(1, 6)] + ["test_batch.bin"]:
            labels = [label if name == "data_batch_2.bin" and i == 7 else i % 10 for i in range(40)]
            (folder / name).write_bytes(b"".join(bytes([v]) + record for v in labels))
        broken = folder / "data_batch_4.bin"
        broken.write_bytes(broken.read_bytes()[:40 * 3073 - cut])
        return f"cifar10:{folder}"

    def train(self, *words):
        return self.good("train", "--model", "lenet5", "--epochs", 1, "--replicas", 1, *words)

    def events(self, name):
        return [json.loads(line) for line in (self.folder / name).read_text().splitlines()]

def main():
    unittest.main(argv=[sys.argv[0], *sys.argv[2:]])
