#include "dataio/formats/tfrecord.h"

#include <random>

#include "base/crc32c.h"
#include "dataio/dataset.h"
#include "tests/base/temporary_folder.h"
#include "tests/dataio/formats/sample_files.h"

namespace millrace {
namespace {

using test::input_error;
using test::kJpeg;
using test::kPng;
using test::little_endian;
using test::TemporaryFolder;
using test::text;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

// Protocol Buffers by hand, as TensorFlow writes them
// -----------------------------------------------------------------------------------------------------------

std::string varint(std::uint64_t value) {
  std::string bytes;
  for (; value > 127; value >>= 7) {
    bytes.push_back(static_cast<char>(value | 128));
  }
  return bytes + static_cast<char>(value);
}

std::string field(int number, const std::string& bytes) {
  return varint(static_cast<std::uint64_t>(number) << 3 | 2) + varint(bytes.size()) + bytes;
}

using Named = std::pair<std::string, std::string>;
Named bytes_feature(const std::string& name, const std::string& value) {
  return {name, field(1, field(1, value))};
}
Named whole_feature(const std::string& name, std::int64_t value) {
  return {name, field(3, field(1, varint(static_cast<std::uint64_t>(value))))};
}

std::string example(const std::vector<Named>& features) {
  std::string all;
  for (const auto& [name, feature] : features) {
    all += field(1, field(1, name) + field(2, feature));
  }
  return field(1, all);
}

std::string checksum(const std::string& bytes) {
  const std::uint32_t sum = crc32c(std::as_bytes(std::span(bytes)));
  return little_endian((sum >> 15 | sum << 17) + 0xA282EAD8u, 4);
}

std::string record(const std::string& data) {
  const std::string length = little_endian(data.size(), 8);
  return length + checksum(length) + data + checksum(data);
}

std::string sample(const std::string& image, std::int64_t label) {
  return record(example({bytes_feature("image/encoded", image), whole_feature("image/class/label", label)}));
}

class Tfrecord : public testing::Test {
 protected:
  std::unique_ptr<Dataset> open(const std::string& bytes, const std::string& options = "") {
    folder.write("x.tfrecord", bytes);
    return open_dataset("tfrecord:" + folder.path("x.tfrecord") + options);
  }
  std::string error(const std::string& bytes, const std::string& options = "") {
    return input_error([&] {
      const auto dataset = open(bytes, options);
      std::vector<std::byte> scratch;
      for (std::int64_t i = 0; i < dataset->size(); ++i) {
        dataset->read(i, scratch);
      }
    });
  }
  TemporaryFolder folder;
};

TEST_F(Tfrecord, TheBytesAreThoseOfTheFormat) {
  // Computed apart from our code: one record of label 7 and the image ff d8 ff.
  const std::string hex =
      "2400000000000000422b804d0a220a0e0a056c6162656c12051a030a01070a100a05696d61676512070a050a03ffd8ffc8ecf8"
      "4d";
  std::string bytes;
  for (std::size_t i = 0; i < hex.size(); i += 2) {
    bytes.push_back(static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16)));
  }
  EXPECT_EQ(bytes, record(example({whole_feature("label", 7), bytes_feature("image", "\xFF\xD8\xFF")})));
  const auto dataset = open(bytes);
  std::vector<std::byte> scratch;
  EXPECT_EQ(text(dataset->read(0, scratch).bytes), "\xFF\xD8\xFF");
  EXPECT_EQ(dataset->label(0), 7);
}

TEST_F(Tfrecord, SamplesOfAllPartsComeInOrder) {
  folder.write("a-1", sample(kPng + std::string(100'000, '3'), 0));
  folder.write("a-0",
               sample(kJpeg + "1", 2) +
                   record(example({bytes_feature("image/class/text", "dog"),
                                   {"image/height", field(3, std::string("\x08\x05", 2))},
                                   {"scores", field(2, field(1, std::string(8, '\0')))},
                                   {"image/class/label", field(3, std::string("\x08\x01", 2))},  // not packed
                                   bytes_feature("image/encoded", kJpeg + "2")})));
  for (const Reading reading : {Reading::map, Reading::read}) {
    for (int again = 0; again < 2; ++again) {  // built, then from the kept index
      const auto dataset = open_dataset("tfrecord:" + folder.path("a-?"), {.reading = reading});
      ASSERT_EQ(dataset->size(), 3);
      EXPECT_THAT(dataset->info().classes, ElementsAre("0", "dog", "2"));
      std::vector<std::byte> scratch;
      EXPECT_EQ(text(dataset->read(0, scratch).bytes), kJpeg + "1");
      const Sample second = dataset->read(1, scratch);
      EXPECT_EQ(text(second.bytes), kJpeg + "2");
      EXPECT_EQ(second.encoding, Encoding::jpeg);
      EXPECT_EQ(second.label, 1);
      EXPECT_EQ(dataset->read(2, scratch).encoding, Encoding::png);
      EXPECT_EQ(dataset->label(0), 2);
      EXPECT_EQ(dataset->describe(1),
                folder.path("a-0") + " at offset " + std::to_string(sample(kJpeg + "1", 2).size()));
    }
  }
}

TEST_F(Tfrecord, FeaturesGoByName) {
  const std::string bytes =
      record(example({bytes_feature("jpeg", kJpeg), bytes_feature("image", kPng), whole_feature("y", 3),
                      whole_feature("label", 1), bytes_feature("n", "cat")}));
  EXPECT_EQ(open(bytes)->label(0), 1);
  const auto dataset = open(bytes, ",image=jpeg,label=y,text=n");
  std::vector<std::byte> scratch;
  EXPECT_EQ(text(dataset->read(0, scratch).bytes), kJpeg);
  EXPECT_EQ(dataset->label(0), 3);
  EXPECT_EQ(dataset->info().classes[3], "cat");
  EXPECT_THAT(error(bytes, ",label=z"), AllOf(HasSubstr("x.tfrecord at offset 0"), HasSubstr("no feature z"),
                                              HasSubstr("image, jpeg, label, n, y")));
}

TEST_F(Tfrecord, ExamplesThatAreNoSamplesAreNamed) {
  const std::string good = sample(kJpeg, 1);
  const std::string at = "at offset " + std::to_string(good.size());
  const auto bad = [&](const std::string& data) { return error(good + record(data)); };
  EXPECT_THAT(bad("\xFF\xFF"), AllOf(HasSubstr(at), HasSubstr("no tf.train.Example")));
  EXPECT_THAT(bad(""), AllOf(HasSubstr(at), HasSubstr("no feature image/encoded or")));
  EXPECT_THAT(bad(example({bytes_feature("image", kJpeg)})),
              HasSubstr("no feature image/class/label or label"));
  EXPECT_THAT(bad(example({whole_feature("image", 1), whole_feature("label", 1)})),
              HasSubstr("0 values of bytes"));
  EXPECT_THAT(bad(example({bytes_feature("image", kJpeg), bytes_feature("label", "1")})),
              HasSubstr("0 whole numbers"));
  EXPECT_THAT(bad(example({bytes_feature("image", kJpeg), {"label", field(3, field(1, "\x01\x02"))}})),
              HasSubstr("2 whole numbers"));
  for (const std::int64_t label : {std::int64_t{-1}, std::int64_t{1'000'000}, std::int64_t{1} << 62}) {
    EXPECT_THAT(bad(example({bytes_feature("image", kJpeg), whole_feature("label", label)})),
                AllOf(HasSubstr(at), HasSubstr("label " + std::to_string(label))));
  }
}

TEST_F(Tfrecord, EveryDamageIsNamed) {
  const std::string good = sample(kJpeg, 1) + sample(kJpeg, 2);
  for (std::size_t i = 0; i < good.size(); ++i) {
    std::string bad = good;
    bad[i] ^= 4;
    EXPECT_THAT(error(bad),
                AllOf(HasSubstr("x.tfrecord at offset " +
                                std::string(i < good.size() / 2 ? "0" : std::to_string(good.size() / 2))),
                      HasSubstr("damaged")))
        << i;
    if (i > 0 && i != good.size() / 2) {
      EXPECT_THAT(error(good.substr(0, i)), HasSubstr("it is cut")) << i;
    }
  }
  EXPECT_THAT(error("\x1F\x8B and so on, zipped"), HasSubstr("gzipped"));
  EXPECT_THAT(error(""), HasSubstr("holds no samples"));
  folder.write("empty.tfrecord", "");
  input_error([&] { open_dataset("tfrecord:" + folder.path("empty.tfrecord")); });
  EXPECT_FALSE(std::filesystem::exists(folder.path("empty.tfrecord.mlx")));
  for (const std::uint64_t length : {~std::uint64_t{0}, ~std::uint64_t{0} - 15, std::uint64_t{1} << 40}) {
    const std::string bytes = little_endian(length, 8);
    EXPECT_THAT(error(bytes + checksum(bytes) + std::string(100, 'x')), HasSubstr("it is cut")) << length;
  }
}

TEST_F(Tfrecord, ADamagedRecordLeavesTheOthersUsable) {
  std::string bad = sample(kJpeg, 2);
  bad[40] ^= 1;
  for (int again = 0; again < 2; ++again) {
    const auto dataset = open(sample(kJpeg, 1) + bad + sample(kJpeg, 3));
    ASSERT_EQ(dataset->size(), 3);
    std::vector<std::byte> scratch;
    EXPECT_EQ(dataset->read(0, scratch).label, 1);
    EXPECT_THAT(input_error([&] { dataset->read(1, scratch); }), HasSubstr("checksum of its data"));
    EXPECT_EQ(dataset->read(2, scratch).label, 3);
  }
}

TEST_F(Tfrecord, NothingIsKeptOfDamageThatMayBeRepaired) {
  const std::string good = sample(kJpeg + std::string(100'000, 'x'), 1);
  std::string bad = good;
  bad[60'000] ^= 1;  // where the kept index's key does not look
  EXPECT_EQ(open(good + bad + good)->label(1), 0);
  const auto time = std::filesystem::last_write_time(folder.path("x.tfrecord"));
  folder.write("x.tfrecord", good + good + good);
  std::filesystem::last_write_time(folder.path("x.tfrecord"), time);
  const auto repaired = open_dataset("tfrecord:" + folder.path("x.tfrecord"));
  std::vector<std::byte> scratch;
  EXPECT_EQ(repaired->read(1, scratch).label, 1);
  EXPECT_TRUE(std::filesystem::exists(folder.path("x.tfrecord.mlx")));
}

TEST_F(Tfrecord, ARecordLargerThanProtocolBuffersIsNotRead) {
  const std::uint64_t size = std::uint64_t{1} << 31, around = 16;
  const std::string length = little_endian(size - around, 8);
  folder.write("x.tfrecord", length + checksum(length));
  std::filesystem::resize_file(folder.path("x.tfrecord"), size);  // sparse
  EXPECT_THAT(
      input_error([&] { open_dataset("tfrecord:" + folder.path("x.tfrecord")); }),
      AllOf(HasSubstr("x.tfrecord at offset 0"), HasSubstr("a record of 2147483632 bytes is too large")));
}

TEST_F(Tfrecord, DamageSinceItWasIndexedIsNamedWhenRead) {
  const std::string good = sample(kJpeg + std::string(100'000, 'x'), 1);
  open(good + good + good);
  const auto time = std::filesystem::last_write_time(folder.path("x.tfrecord"));
  std::string bad = good;
  bad[60'000] ^= 1;
  folder.write("x.tfrecord", good + bad + good);
  std::filesystem::last_write_time(folder.path("x.tfrecord"), time);  // as when a disk fails
  std::vector<std::byte> scratch;
  const auto dataset = open_dataset("tfrecord:" + folder.path("x.tfrecord"));
  EXPECT_EQ(dataset->read(0, scratch).label, 1);
  EXPECT_THAT(input_error([&] { dataset->read(1, scratch); }),
              AllOf(HasSubstr("x.tfrecord at offset " + std::to_string(good.size())),
                    HasSubstr("checksum of its data")));
  const auto trusting = open_dataset("tfrecord:" + folder.path("x.tfrecord"), {.verify = Verify::never});
  EXPECT_EQ(trusting->read(1, scratch).label, 1);
}

}  // namespace
}  // namespace millrace
