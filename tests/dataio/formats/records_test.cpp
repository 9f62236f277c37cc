#include "dataio/formats/records.h"

#include <fcntl.h>
#include <random>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/crc32c.h"
#include "dataio/formats/record_writer.h"
#include "tests/base/temporary_folder.h"
#include "tests/dataio/formats/sample_files.h"

namespace millrace {
namespace {

namespace fs = std::filesystem;
using test::input_error;
using test::TemporaryFolder;
using test::text;
using testing::AllOf;
using testing::HasSubstr;

std::span<const std::byte> bytes(std::string_view text) { return std::as_bytes(std::span(text)); }

std::string content(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

/// Overwrites a part of a file where it lies; much faster than to write the file anew.
void patch(const std::string& path, std::size_t at, std::string_view bytes) {
  std::fstream(path, std::ios::in | std::ios::out | std::ios::binary)
      .seekp(static_cast<std::streamoff>(at))
      .write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

constexpr int kRecords = 7;

std::string payload(int i) {
  return std::string(static_cast<std::size_t>(40 * i), static_cast<char>('a' + i));
}

Sample sample(int i, const std::string& payload) {
  return {.bytes = bytes(payload), .encoding = i % 2 ? Encoding::jpeg : Encoding::png, .label = i % 3};
}

const DatasetInfo kInfo{.classes = {"cat", "dog", "owl"}};

/// Seven records of three classes.
void write(const std::string& path, const RecordWriterOptions& options = {},
           const DatasetInfo& info = kInfo) {
  RecordWriter writer(path, info, options);
  for (int i = 0; i < kRecords; ++i) {
    writer.add(sample(i, payload(i)), "source " + std::to_string(i));
  }
  writer.finish();
}

void expect_written(const Dataset& dataset) {
  ASSERT_EQ(dataset.size(), kRecords);
  EXPECT_EQ(dataset.info().classes, kInfo.classes);
  std::vector<std::byte> scratch;
  for (const int i : {3, 0, 6, 1, 5, 2, 4, 3}) {
    const Sample got = dataset.read(i, scratch);
    EXPECT_EQ(text(got.bytes), payload(i));
    EXPECT_EQ(got.encoding, i % 2 ? Encoding::jpeg : Encoding::png);
    EXPECT_EQ(got.label, i % 3);
    EXPECT_EQ(dataset.label(i), i % 3);
    EXPECT_THAT(dataset.describe(i), HasSubstr("source " + std::to_string(i)));
  }
}

std::vector<std::string> names(const TemporaryFolder& folder) {
  std::vector<std::string> result;
  for (const auto& entry : fs::directory_iterator(folder.path())) {
    result.push_back(entry.path().filename());
  }
  std::sort(result.begin(), result.end());
  return result;
}

TEST(Records, AreReadAsTheyWereWritten) {
  TemporaryFolder folder;
  write(folder.path("a.mlr"));
  for (const Reading reading : {Reading::map, Reading::read}) {
    for (const Verify verify : {Verify::first_read, Verify::always, Verify::never}) {
      const auto dataset =
          open_dataset("records:" + folder.path("a.mlr"), {.reading = reading, .verify = verify});
      expect_written(*dataset);
      EXPECT_THAT(dataset->describe(2), testing::EndsWith("a.mlr, record 2 (source 2)"));
    }
  }
  EXPECT_THAT(names(folder), testing::ElementsAre("a.mlr"));
}

TEST(Records, RawImagesKeepTheirSize) {
  TemporaryFolder folder;
  const std::string pixels(2 * 3 * 4, 'p');
  const DatasetInfo info{.height = 2, .width = 3, .channels = 4, .classes = {"all"}};
  RecordWriter writer(folder.path("a.mlr"), info);
  const Sample raw{
      .bytes = bytes(pixels), .encoding = Encoding::raw_chw, .height = 2, .width = 3, .channels = 4};
  writer.add(raw, "raw");
  EXPECT_THAT(input_error([&] {
                Sample wrong = raw;
                wrong.width = 4;
                writer.add(wrong, "x.bin");
              }),
              AllOf(HasSubstr("x.bin"), HasSubstr("2 x 4 x 4"), HasSubstr("24 bytes")));
  EXPECT_THAT(input_error([&] {
                Sample wrong = raw;
                wrong.label = 1;
                writer.add(wrong, "x.bin");
              }),
              AllOf(HasSubstr("x.bin"), HasSubstr("label 1")));
  writer.finish();
  const auto dataset = open_dataset("records:" + folder.path("a.mlr"));
  EXPECT_EQ(dataset->info().height, 2);
  EXPECT_EQ(dataset->info().width, 3);
  EXPECT_EQ(dataset->info().channels, 4);
  std::vector<std::byte> scratch;
  const Sample got = dataset->read(0, scratch);
  EXPECT_EQ(got.encoding, Encoding::raw_chw);
  EXPECT_EQ(got.height, 2);
  EXPECT_EQ(got.width, 3);
  EXPECT_EQ(got.channels, 4);
  EXPECT_EQ(text(got.bytes), pixels);
}

TEST(Records, PayloadsAreAligned) {
  TemporaryFolder folder;
  write(folder.path("a.mlr"));
  const std::string file = content(folder.path("a.mlr"));
  for (int i = 1; i < kRecords; ++i) {
    EXPECT_EQ(file.find(payload(i)) % 64, 0u);
  }
}

TEST(Records, FingerprintsTellContentsApart) {
  TemporaryFolder folder;
  const auto fingerprint = [&](const std::string& name, int changed, const std::string& source,
                               std::int64_t part_size) {
    RecordWriter writer(folder.path(name + ".mlr"), kInfo, {.part_size = part_size});
    for (int i = 0; i < kRecords; ++i) {
      writer.add(sample(i == changed ? i + 1 : i, payload(i)), source);
    }
    writer.finish();
    return open_dataset("records:" + folder.path(name + "*.mlr"))->fingerprint();
  };
  const std::uint64_t first = fingerprint("a", -1, "here", 0);
  EXPECT_EQ(fingerprint("b", -1, "there", 0), first);
  EXPECT_EQ(fingerprint("c", -1, "here", 600), first) << "parts do not matter";
  EXPECT_NE(fingerprint("d", 3, "here", 0), first);
}

// Parts

TEST(Records, PartsAreOneDataSet) {
  TemporaryFolder folder;
  write(folder.path("a.mlr"), {.part_size = 700});
  const std::vector<std::string> files = names(folder);
  ASSERT_GT(files.size(), 2u);
  for (const std::string& file : files) {
    EXPECT_LE(fs::file_size(folder.path(file)), 700u) << file;
  }
  EXPECT_EQ(files[1], fmt::format("a-00001-of-{:05}.mlr", files.size()));
  expect_written(*open_dataset("records:" + folder.path("a-*.mlr")));

  // Two data sets, one behind the other.
  write(folder.path("b.mlr"));
  const auto both = open_dataset("records:" + folder.path("*.mlr"));
  EXPECT_EQ(both->size(), 2 * kRecords);
  std::vector<std::byte> scratch;
  EXPECT_EQ(text(both->read(kRecords + 5, scratch).bytes), payload(5));
  EXPECT_NE(both->fingerprint(), open_dataset("records:" + folder.path("b.mlr"))->fingerprint());
}

TEST(Records, MissingPartsAreNamed) {
  TemporaryFolder folder;
  write(folder.path("a.mlr"), {.part_size = 700});
  const std::vector<std::string> files = names(folder);
  const auto error_without = [&](std::size_t missing) {
    fs::rename(folder.path(files[missing]), folder.path("away"));
    const std::string error = input_error([&] { open_dataset("records:" + folder.path("a-*.mlr")); });
    fs::rename(folder.path("away"), folder.path(files[missing]));
    return error;
  };
  EXPECT_THAT(error_without(0), AllOf(HasSubstr(files[1]), HasSubstr("expected part 0")));
  EXPECT_THAT(error_without(1), AllOf(HasSubstr(files[2]), HasSubstr("expected part 1")));
  EXPECT_THAT(error_without(files.size() - 1), HasSubstr("missing"));
  fs::copy_file(folder.path(files[0]), folder.path("a-00000-of-twice.mlr"));
  EXPECT_THAT(input_error([&] { open_dataset("records:" + folder.path("a-*.mlr")); }),
              HasSubstr("each once"));
}

TEST(Records, FingerprintsOfAnotherDefinitionAreNotTheSame) {
  TemporaryFolder folder;
  write(folder.path("a.mlr"), {.part_size = 700});
  const std::string path = folder.path(names(folder)[1]);
  std::string file = content(path);
  const auto head = std::as_bytes(std::span(file)).first<RecordHeader::kBytes>();
  RecordHeader header = RecordHeader::decode(head, file.size(), path);
  EXPECT_EQ(header.fingerprint_definition, 0u);
  header.fingerprint_definition = 1;
  const auto changed = header.encode();
  EXPECT_EQ(RecordHeader::decode(changed, file.size(), path).fingerprint_definition, 1u);
  file.replace(0, changed.size(), reinterpret_cast<const char*>(changed.data()), changed.size());
  std::ofstream(path, std::ios::binary) << file;
  EXPECT_THAT(input_error([&] { open_dataset("records:" + folder.path("a-*.mlr")); }),
              AllOf(HasSubstr(path), HasSubstr("expected part 1")));
}

TEST(Records, ClassesMustAgree) {
  TemporaryFolder folder;
  write(folder.path("a.mlr"));
  write(folder.path("b.mlr"), {}, {.classes = {"cat", "dog", "eel"}});
  EXPECT_THAT(input_error([&] { open_dataset("records:" + folder.path("*.mlr")); }),
              AllOf(HasSubstr("classes"), HasSubstr("a.mlr"), HasSubstr("b.mlr")));
}

// Writing

TEST(RecordWriter, DoesNotOverwrite) {
  TemporaryFolder folder;
  folder.write("a.mlr", "last week's");
  EXPECT_THAT(input_error([&] { write(folder.path("a.mlr")); }), HasSubstr("a.mlr exists"));
  EXPECT_EQ(content(folder.path("a.mlr")), "last week's");
  write(folder.path("a.mlr"), {.part_size = 700});
  EXPECT_THAT(input_error([&] { write(folder.path("a.mlr"), {.part_size = 300}); }), HasSubstr("exists"));
  EXPECT_THAT(input_error([&] { write(folder.path("no/a.mlr")); }), HasSubstr("no/a.mlr"));
  EXPECT_THAT(input_error([&] { write(folder.path("b.mlr"), {}, {.height = 70000}); }),
              HasSubstr("70000 x 0"));
  folder.write("c-out-of-date.mlr", "something else");
  write(folder.path("c.mlr"), {.part_size = 700});
}

TEST(RecordWriter, TwoAtOnceDoNotMix) {
  TemporaryFolder folder;
  for (const std::int64_t part_size : {0, 300}) {
    RecordWriter first(folder.path("a.mlr"), kInfo, {.part_size = part_size});
    for (int i = 0; i < kRecords; ++i) {
      first.add(sample(i, payload(i)), "source " + std::to_string(i));
    }
    EXPECT_THAT(input_error([&] { write(folder.path("a.mlr"), {.part_size = part_size}); }),
                HasSubstr("another process"));
    first.finish();
    expect_written(*open_dataset("records:" + folder.path(part_size == 0 ? "a.mlr" : "a-*.mlr")));
  }
}

TEST(RecordWriter, LeavesNothingWithoutFinish) {
  TemporaryFolder folder;
  {
    RecordWriter writer(folder.path("a.mlr"), kInfo, {.part_size = 300});
    for (int i = 0; i < kRecords; ++i) {
      writer.add(sample(i, payload(i)), "");
    }
    EXPECT_GT(names(folder).size(), 2u);
  }
  EXPECT_TRUE(names(folder).empty());
  RecordWriter empty(folder.path("a.mlr"), kInfo);
  EXPECT_THAT(input_error([&] { empty.finish(); }), HasSubstr("no records"));
}

TEST(RecordWriter, KilledItLeavesWhatNoReaderTakesForWhole) {
  TemporaryFolder folder;
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    RecordWriter writer(folder.path("a.mlr"), kInfo, {.part_size = 300});
    for (int i = 0; i < kRecords; ++i) {
      writer.add(sample(i, payload(i)), "");
    }
    kill(getpid(), SIGKILL);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFSIGNALED(status));
  EXPECT_THAT(names(folder), testing::Each(testing::EndsWith(".part")));
  EXPECT_THAT(input_error([&] { open_dataset("records:" + folder.path("*.mlr")); }),
              HasSubstr("no such file"));
  EXPECT_THAT(input_error([&] { open_dataset("records:" + folder.path("a-00000.mlr.part")); }),
              HasSubstr("interrupted"));
  write(folder.path("a.mlr"), {.part_size = 300});  // the next one takes its place
  expect_written(*open_dataset("records:" + folder.path("a-*.mlr")));
}

TEST(RecordWriter, FullDiskIsTheMachinesFault) {
  TemporaryFolder folder;
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {  // a limit on the size of a file stands in for a disk that is full
    signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{4096, 4096};
    setrlimit(RLIMIT_FSIZE, &limit);
    bool failed = false;
    try {
      RecordWriter writer(folder.path("a.mlr"), kInfo);
      for (int i = 0; i < 100; ++i) {
        writer.add(sample(1, payload(6)), "");
      }
      writer.finish();
    } catch (const MachineError& error) {
      failed = std::string(error.what()).find("a.mlr") != std::string::npos;
    }
    _exit(failed ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  EXPECT_TRUE(names(folder).empty());
}

// Damage

/// What a reader gets out of a file: the messages of all errors, and the payloads that it read.
struct Outcome {
  std::string open_error;
  std::vector<std::string> read_errors, descriptions;
  std::vector<Sample> samples;
  std::vector<std::string> payloads;
};

Outcome outcome(const std::string& path, Reading reading = Reading::map) {
  Outcome result;
  std::unique_ptr<Dataset> dataset;
  try {
    dataset = open_dataset("records:" + path, {.reading = reading, .verify = Verify::always});
  } catch (const InputError& error) {
    result.open_error = error.what();
    return result;
  }
  std::vector<std::byte> scratch;
  for (std::int64_t i = 0; i < dataset->size(); ++i) {
    result.descriptions.push_back(dataset->describe(i));
    try {
      const Sample sample = dataset->read(i, scratch);
      result.samples.push_back(sample);
      result.payloads.push_back(text(sample.bytes));
    } catch (const InputError& error) {
      result.read_errors.push_back(error.what());
    }
  }
  return result;
}

TEST(RecordsDamage, EveryByteThatMattersIsChecked) {
  TemporaryFolder folder;
  write(folder.path("good.mlr"));
  const std::string good = content(folder.path("good.mlr"));
  const Outcome expected = outcome(folder.path("good.mlr"));
  ASSERT_EQ(expected.payloads.size(), kRecords);
  int unseen = 0;
  folder.write("bad.mlr", good);
  for (std::size_t i = 0; i < good.size(); ++i) {
    patch(folder.path("bad.mlr"), i, std::string(1, static_cast<char>(good[i] ^ 1 << i % 8)));
    const Outcome got = outcome(folder.path("bad.mlr"), i % 2 ? Reading::map : Reading::read);
    patch(folder.path("bad.mlr"), i, good.substr(i, 1));
    if (!got.open_error.empty()) {
      EXPECT_THAT(got.open_error, HasSubstr("bad.mlr"));
      continue;
    }
    ASSERT_LE(got.read_errors.size(), 1u) << "byte " << i;
    if (got.read_errors.empty()) {
      ++unseen;
      EXPECT_EQ(good[i], '\0') << "byte " << i << " is no padding";
      ASSERT_EQ(got.payloads, expected.payloads) << "byte " << i;
      for (int k = 0; k < kRecords; ++k) {
        EXPECT_EQ(got.samples[k].label, k % 3);
      }
    } else {
      EXPECT_THAT(got.read_errors[0], AllOf(HasSubstr("bad.mlr, record "), HasSubstr("offset")));
      EXPECT_EQ(got.payloads.size(), kRecords - 1u);
    }
  }
  EXPECT_LT(unseen, kRecords * 64);
}

TEST(RecordsDamage, EveryLengthIsChecked) {
  TemporaryFolder folder;
  write(folder.path("good.mlr"));
  const std::string good = content(folder.path("good.mlr"));
  folder.write("cut.mlr", good);
  for (std::size_t size = good.size(); size-- > 0;) {
    fs::resize_file(folder.path("cut.mlr"), size);
    EXPECT_THAT(outcome(folder.path("cut.mlr")).open_error, HasSubstr("cut.mlr has")) << size;
  }
  folder.write("cut.mlr", good + '\0');
  EXPECT_THAT(outcome(folder.path("cut.mlr")).open_error, HasSubstr("cut.mlr has"));
}

TEST(RecordsDamage, AFirstReadIsCheckedOnce) {
  TemporaryFolder folder;
  write(folder.path("a.mlr"));
  const auto first = open_dataset("records:" + folder.path("a.mlr"));
  const auto always = open_dataset("records:" + folder.path("a.mlr"), {.verify = Verify::always});
  const auto never = open_dataset("records:" + folder.path("a.mlr"), {.verify = Verify::never});
  std::vector<std::byte> scratch;
  first->read(4, scratch);
  const std::size_t at = content(folder.path("a.mlr")).find(payload(4));
  patch(folder.path("a.mlr"), at, "!");
  const auto error = [&](const Dataset& dataset) { return input_error([&] { dataset.read(4, scratch); }); };
  EXPECT_EQ(error(*first), "(no error)");
  EXPECT_EQ(error(*never), "(no error)");
  EXPECT_THAT(error(*always),
              AllOf(HasSubstr("record 4 (source 4)"), HasSubstr(fmt::format("offset {}", at))));
  EXPECT_THAT(error(*open_dataset("records:" + folder.path("a.mlr"))), HasSubstr("record 4"));
}

RecordHeader header_of(const std::string& file) {
  return RecordHeader::decode(bytes(file).first<RecordHeader::kBytes>(), file.size(), "good.mlr");
}

/// Files whose checksums are right and whose numbers are not.
TEST(RecordsDamage, HostileHeadersAreRefused) {
  TemporaryFolder folder;
  write(folder.path("good.mlr"));
  const std::string good = content(folder.path("good.mlr"));
  const RecordHeader header = header_of(good);
  const auto with_header = [&](auto change) {
    RecordHeader changed = header;
    change(changed);
    folder.write("bad.mlr", text(changed.encode()) + good.substr(RecordHeader::kBytes));
    return outcome(folder.path("bad.mlr")).open_error;
  };
  const auto wrong = AllOf(HasSubstr("bad.mlr"), HasSubstr("makes no sense"));
  constexpr std::uint64_t kMost = std::numeric_limits<std::uint64_t>::max();
  for (const std::uint64_t value :
       {kMost, kMost / 40, kMost / 40 + 2, std::uint64_t{1} << 61, std::uint64_t{0}}) {
    EXPECT_THAT(with_header([&](RecordHeader& h) { h.records = value; }), wrong) << value;
  }
  for (const std::uint64_t value : {kMost, std::uint64_t{good.size()} + 1, std::uint64_t{5}}) {
    EXPECT_THAT(with_header([&](RecordHeader& h) { h.index_offset = value; }), wrong) << value;
  }
  EXPECT_THAT(with_header([](RecordHeader& h) { h.height = 1u << 31; }), wrong);
  EXPECT_THAT(with_header([](RecordHeader& h) { h.channels = 0; }), wrong);
  EXPECT_THAT(with_header([](RecordHeader& h) { h.parts = 0; }), wrong);
  EXPECT_THAT(with_header([](RecordHeader& h) { h.classes = 2; }), HasSubstr("classes"));
  EXPECT_THAT(with_header([](RecordHeader& h) { h.records -= 1; }), HasSubstr("classes"));
}

TEST(RecordsDamage, HostileEntriesAreRefused) {
  TemporaryFolder folder;
  write(folder.path("bad.mlr"));
  const std::string good = content(folder.path("bad.mlr"));
  const RecordHeader header = header_of(good);
  const std::size_t at = header.index_offset + 2 * RecordEntry::kBytes;
  std::mt19937_64 random(11);
  for (int i = 0; i < 2000; ++i) {
    RecordEntry entry = *RecordEntry::decode(bytes(good).subspan(at).first<RecordEntry::kBytes>());
    const std::uint64_t value = random() >> random() % 64;
    switch (i % 5) {
      case 0:
        entry.offset = i % 2 ? value : ~(value % 4096);  // some wrap around
        break;
      case 1:
        entry.size = static_cast<std::uint32_t>(value);
        break;
      case 2:
        entry.name_size = static_cast<std::uint16_t>(value);
        break;
      case 3:
        entry.label = static_cast<std::int64_t>(value | 8);
        break;
      case 4:
        entry.encoding = static_cast<Encoding>(4 | value % 256);
        break;
    }
    patch(folder.path("bad.mlr"), at, text(entry.encode()));
    const Outcome got = outcome(folder.path("bad.mlr"));
    ASSERT_EQ(got.open_error, "");
    if (got.read_errors.empty()) {
      EXPECT_EQ(got.payloads[2], payload(2));  // the very value that was there
    } else {
      EXPECT_THAT(got.read_errors[0], HasSubstr("bad.mlr, record 2"));
    }
  }
}

TEST(RecordsDamage, OtherFilesAreNoRecords) {
  TemporaryFolder folder;
  write(folder.path("good.mlr"));
  const std::string good = content(folder.path("good.mlr"));
  const auto with = [&](std::size_t at, const std::string& change) {
    folder.write("bad.mlr", std::string(good).replace(at, change.size(), change));
    return outcome(folder.path("bad.mlr")).open_error;
  };
  EXPECT_THAT(with(0, "\x89PNG"), HasSubstr("no records file"));
  EXPECT_THAT(with(8, std::string("\x01\x02\x03\x04", 4)), HasSubstr("byte order 0x04030201"));
  EXPECT_THAT(with(12, "\x02"), HasSubstr("version 2"));
  EXPECT_THAT(with(0, std::string(RecordHeader::kBytes, '\0')), HasSubstr("interrupted"));
}

TEST(RecordsDamage, NamesFromFilesAreMadeFitToPrint) {
  TemporaryFolder folder;
  RecordWriter writer(folder.path("a.mlr"), kInfo);
  writer.add(sample(1, "x"), "a\n\x1B[2J");
  writer.finish();
  EXPECT_THAT(open_dataset("records:" + folder.path("a.mlr"))->describe(0), testing::EndsWith("(a??[2J)"));
}

// Size

std::int64_t resident_bytes() {
  std::ifstream file("/proc/self/statm");
  std::int64_t total = 0, resident = 0;
  file >> total >> resident;
  return resident * getpagesize();
}

/// A sparse file of a hundred million records, of which only one has an entry.
TEST(Records, OpeningTakesNoMemoryThatGrowsWithTheRecords) {
  TemporaryFolder folder;
  constexpr std::uint64_t kMany = 100'000'000, kThis = 70'000'000;
  const std::string payload = "the only one";
  RecordHeader header{.records = kMany, .index_offset = 256, .classes_crc = crc32c({})};
  header.file_size = header.classes_offset();
  const RecordEntry entry{
      .offset = 192, .label = 5, .size = 12, .crc = crc32c(bytes(payload)), .encoding = Encoding::jpeg};
  {
    std::ofstream file(folder.path("a.mlr"), std::ios::binary);
    file << text(header.encode());
    file.seekp(192) << payload;
    file.seekp(static_cast<std::streamoff>(header.index_offset + kThis * RecordEntry::kBytes))
        << text(entry.encode());
  }
  fs::resize_file(folder.path("a.mlr"), header.file_size);
  for (const Reading reading : {Reading::map, Reading::read}) {
    const std::int64_t before = resident_bytes();
    const auto dataset = open_dataset("records:" + folder.path("a.mlr"), {.reading = reading});
    ASSERT_EQ(dataset->size(), static_cast<std::int64_t>(kMany));
    std::vector<std::byte> scratch;
    EXPECT_EQ(text(dataset->read(kThis, scratch).bytes), payload);
    EXPECT_THAT(input_error([&] { dataset->read(kThis + 1, scratch); }), HasSubstr("record 70000001"));
    EXPECT_LT(resident_bytes() - before, 4 << 20);
  }
}

}  // namespace
}  // namespace millrace
