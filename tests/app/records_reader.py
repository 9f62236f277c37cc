"""Reads records files by docs/records.md alone; it shares no code with the library."""
import struct

TABLE = []
for value in range(256):
    for _ in range(8):
        value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
    TABLE.append(value)


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def expect(good, what):
    if not good:
        raise ValueError(what)


def read_records(path):
    """The header's fields by name, the class names, and a list of (payload, label, encoding, (height, width, channels), source)."""
    data = path.read_bytes()
    magic, order, version, size, count, index, classes, classes_crc, part, parts, fingerprint, height, width, channels, \
        flags = struct.unpack_from("<8sIIQQQIIIIQIIII", data)
    expect(magic == b"\x89MLR\r\n\x1a\n" and order == 0x01020304 and version == 1, "magic, byte order or version")
    expect(struct.unpack_from("<I", data, 124)[0] == crc32c(data[:124]), "header checksum")
    expect(size == len(data), "size of the file")
    tail = data[index + 40 * count:]
    expect(crc32c(tail) == classes_crc and tail.count(0) == classes, "class names")
    records = []
    for at in range(index, index + 40 * count, 40):
        offset, label, size, crc, h, w, name_size, encoding, c, entry_crc = struct.unpack_from("<QqIIIIHBBI", data, at)
        expect(entry_crc == crc32c(data[at:at + 36]), "entry checksum")
        expect(offset % 64 == 0, "alignment")
        expect(crc == crc32c(data[offset:offset + size + name_size]), "record checksum")
        name = data[offset + size:offset + size + name_size]
        records.append((data[offset:offset + size], label, encoding, (h, w, c), name.decode()))
    header = {"part": part, "parts": parts, "fingerprint": fingerprint, "height": height, "width": width,
              "channels": channels, "flags": flags}
    return header, [name.decode() for name in tail.split(b"\0")[:-1]], records
