#include "dataio/file.h"

#include <csignal>
#include <cstdlib>
#include <sys/mman.h>
#include <thread>
#include <unistd.h>

#include "tests/base/temporary_folder.h"

namespace millrace {
namespace {

using test::input_error;
using test::TemporaryFolder;
using testing::AllOf;
using testing::HasSubstr;

constexpr std::size_t kPage = 4096;

std::string pattern(std::size_t size) {
  std::string bytes(size, ' ');
  for (std::size_t i = 0; i < size; ++i) {
    bytes[i] = static_cast<char>(1 + i % 251);
  }
  return bytes;
}

/// Sums bytes so that they are read.
int touch(std::span<const std::byte> bytes) {
  int sum = 0;
  for (const std::byte byte : bytes) {
    sum += std::to_integer<int>(byte);
  }
  return sum;
}

TEST(DataFile, ReadsTheSameMappedAndByPosition) {
  const TemporaryFolder folder;
  const std::string bytes = pattern(3 * kPage + 17);
  folder.write("data", bytes);
  mapped_reads_intact();  // forgets what other tests have read
  for (const Reading reading : {Reading::map, Reading::read}) {
    const DataFile file(folder.path("data"), reading);
    std::vector<std::byte> scratch;
    const auto part = file.read(kPage - 5, kPage, scratch);
    EXPECT_EQ(std::memcmp(part.data(), bytes.data() + kPage - 5, kPage), 0);
    EXPECT_TRUE(mapped_reads_intact());
    EXPECT_THAT(input_error([&] { file.read(3 * kPage, 18, scratch); }),
                AllOf(HasSubstr("wanted 18 bytes at offset 12288"), HasSubstr("it has 12305")));
    EXPECT_THAT(input_error([&] { file.read(~std::uint64_t{0}, 2, scratch); }), HasSubstr("wanted 2 bytes"));
  }
}

TEST(DataFile, ACutUnderTheMappingIsAnErrorAndNoSignal) {
  const TemporaryFolder folder;
  folder.write("data", pattern(64 * kPage));
  const DataFile file(folder.path("data"), Reading::map);
  std::vector<std::byte> scratch;
  const auto before = file.read(2 * kPage, kPage, scratch);
  const auto lost = file.read(40 * kPage, kPage, scratch);
  std::filesystem::resize_file(folder.path("data"), 10 * kPage + 100);
  EXPECT_EQ(touch(lost), 0);
  EXPECT_GT(touch(before), 0);
  EXPECT_FALSE(mapped_reads_intact());
  EXPECT_TRUE(mapped_reads_intact()) << "nothing was read since";
  EXPECT_THAT(input_error([&] { file.read(40 * kPage, kPage, scratch); }),
              AllOf(HasSubstr(folder.path("data")),
                    HasSubstr("was cut to 41060 bytes while it was in use, had 262144"),
                    HasSubstr("wanted 4096 at offset 163840")));
  EXPECT_GT(touch(file.read(9 * kPage, kPage, scratch)), 0);
  EXPECT_TRUE(mapped_reads_intact());
}

TEST(DataFile, AClosedFileIsNoneOfTheNextOnesConcern) {
  const TemporaryFolder folder;
  folder.write("large", pattern(2 * kPage));
  folder.write("small", pattern(100));
  mapped_reads_intact();  // forgets what other tests have read
  for (const char* name : {"large", "small"}) {
    const MappedFile file(folder.path(name));
    EXPECT_GT(touch(file.bytes()), 0);
  }
  EXPECT_TRUE(mapped_reads_intact());
}

TEST(DataFile, ACutWithinAPageRaisesNoSignalAndIsSeenAsWell) {
  const TemporaryFolder folder;
  folder.write("data", pattern(kPage));
  const DataFile file(folder.path("data"), Reading::map);
  std::vector<std::byte> scratch;
  const auto all = file.read(0, kPage, scratch);
  std::filesystem::resize_file(folder.path("data"), 200);
  touch(all);
  EXPECT_FALSE(mapped_reads_intact());
  EXPECT_THAT(input_error([&] { file.read(100, 101, scratch); }), HasSubstr("was cut to 200 bytes"));
  touch(file.read(100, 100, scratch));
  EXPECT_TRUE(mapped_reads_intact()) << "what was read is there";
}

TEST(DataFile, AFileWrittenAnewIsNotTrustedAgain) {
  const TemporaryFolder folder;
  folder.write("data", pattern(8 * kPage));
  const DataFile file(folder.path("data"), Reading::map);
  std::vector<std::byte> scratch;
  const auto part = file.read(4 * kPage, kPage, scratch);
  std::filesystem::resize_file(folder.path("data"), 0);
  EXPECT_EQ(touch(part), 0);
  folder.write("data", pattern(8 * kPage));
  EXPECT_FALSE(mapped_reads_intact());
  EXPECT_THROW(file.read(4 * kPage, kPage, scratch), MachineError);
}

TEST(DataFile, ManyThreadsMayTouchWhatIsLost) {
  const TemporaryFolder folder;
  constexpr int kFiles = 8, kThreads = 4;
  std::vector<DataFile> files;
  for (int i = 0; i < kFiles; ++i) {
    const std::string name = fmt::format("data{}", i);
    folder.write(name, pattern(64 * kPage));
    files.emplace_back(folder.path(name), Reading::map);
  }
  std::vector<int> errors(kThreads);
  {
    std::vector<std::jthread> threads;
    for (int t = 0; t < kThreads; ++t) {
      threads.emplace_back([&, t] {
        std::vector<std::byte> scratch;
        for (int i = 0; i < kFiles; ++i) {
          const DataFile& file = files[static_cast<std::size_t>((i + t) % kFiles)];
          try {
            const auto part = file.read(static_cast<std::size_t>(63 - t) * kPage, kPage, scratch);
            std::filesystem::resize_file(file.path(), static_cast<std::size_t>(20 - t) * kPage);
            touch(part);
            errors[static_cast<std::size_t>(t)] += !mapped_reads_intact();
          } catch (const InputError&) {  // another thread was first
            ++errors[static_cast<std::size_t>(t)];
          }
        }
      });
    }
  }
  for (const int count : errors) {
    EXPECT_EQ(count, kFiles);
  }
}

// Its child process dies as it would have without us.
TEST(DataFileDeathTest, AForeignBusErrorStillKills) {
  const TemporaryFolder folder;
  folder.write("ours", pattern(kPage));
  folder.write("foreign", pattern(kPage));
  const auto foreign = [&] {
    const DataFile ours(folder.path("ours"), Reading::map);
    FILE* file = std::fopen(folder.path("foreign").c_str(), "r+");
    void* address = mmap(nullptr, kPage, PROT_READ, MAP_SHARED, fileno(file), 0);
    if (ftruncate(fileno(file), 0) != 0) {
      std::abort();
    }
    std::exit(touch({static_cast<const std::byte*>(address), kPage}));
  };
  // A sanitizer's own handler reports it and exits.
  EXPECT_EXIT(
      foreign(), [](int status) { return !WIFEXITED(status) || WEXITSTATUS(status) != 0; }, "");
  const auto sent = [&] {
    const DataFile ours(folder.path("ours"), Reading::map);
    raise(SIGBUS);
    std::exit(0);
  };
  EXPECT_EXIT(
      sent(), [](int status) { return !WIFEXITED(status) || WEXITSTATUS(status) != 0; }, "");
}

TEST(DataFile, AdviceOnLargeFilesChangesNoBytes) {
  const TemporaryFolder folder;
  folder.write("large", pattern(kPage));
  std::filesystem::resize_file(folder.path("large"), std::uint64_t{300} << 20);  // sparse
  const DataFile file(folder.path("large"), Reading::map);
  ASSERT_NE(file.advised(), nullptr) << "it is too large to be read whole";
  std::vector<FileRange> ranges = {
      {file.advised(), 9000, 10}, {file.advised(), 0, 100}, {file.advised(), 5, 50}};
  will_need(ranges);
  std::vector<std::byte> scratch;
  EXPECT_EQ(std::to_integer<int>(file.read(1, 1, scratch)[0]), 2);
  folder.write("small", pattern(kPage));
  EXPECT_EQ(DataFile(folder.path("small"), Reading::map).advised(), nullptr);
}

}  // namespace
}  // namespace millrace
