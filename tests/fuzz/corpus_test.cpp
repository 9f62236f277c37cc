// Every parser against the files in corpus/ and damaged ones made of them. MILLRACE_DAMAGED and MILLRACE_SEED
// ask for more of them, or others: scripts/trials/damage.

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fmt/format.h>
#include <fstream>
#include <gtest/gtest.h>
#include <iterator>
#include <map>
#include <optional>
#include <random>
#include <string>

#include "targets.h"

namespace millrace::fuzz {
namespace {

namespace fs = std::filesystem;
using Bytes = std::vector<std::byte>;

/// The corpus of one target, in the order of the names.
std::map<std::string, Bytes> corpus(const Target& target) {
  std::map<std::string, Bytes> files;
  for (const auto& entry : fs::directory_iterator(fs::path(MILLRACE_CORPUS) / target.name)) {
    std::ifstream stream(entry.path(), std::ios::binary);
    const std::string text(std::istreambuf_iterator<char>(stream), {});
    const auto bytes = std::as_bytes(std::span(text));
    files[entry.path().filename().string()] = {bytes.begin(), bytes.end()};
  }
  return files;
}

class Damager {
 public:
  static constexpr const char* kKinds[] = {"cut", "bits", "header", "sizes"};

  explicit Damager(std::uint64_t seed) : random_(seed) {}

  std::uint64_t below(std::uint64_t bound) { return random_() % bound; }

  /// Never the bytes as they were.
  Bytes damage(const Bytes& good, std::size_t kind) {
    Bytes bytes;
    do {
      bytes = good;
      switch (kind) {
        case 0:
          bytes.resize(below(bytes.size()));
          break;
        case 1:
          for (std::uint64_t i = 0, flips = 1 + below(4); i < flips; ++i) {
            bytes[below(bytes.size())] ^= std::byte{1} << below(8);
          }
          break;
        case 2:
          for (std::uint64_t i = 0, changes = 1 + below(4); i < changes; ++i) {
            bytes[below(std::min<std::size_t>(bytes.size(), 64))] = static_cast<std::byte>(below(256));
          }
          break;
        default:
          write_absurd_size(bytes);
      }
    } while (bytes == good);
    return bytes;
  }

 private:
  /// Somewhere, of 1 to 8 bytes: all ones, the largest signed number in either order, or digits.
  void write_absurd_size(Bytes& bytes) {
    const std::size_t size = std::min<std::size_t>(std::size_t{1} << below(4), bytes.size());
    const auto at = bytes.begin() + static_cast<std::ptrdiff_t>(below(bytes.size() - size + 1));
    const std::uint64_t form = below(4);
    std::fill_n(at, size, form == 3 ? std::byte{'9'} : std::byte{0xFF});
    if (form == 1) {
      at[0] = std::byte{0x7F};
    }
    if (form == 2) {
      at[static_cast<std::ptrdiff_t>(size) - 1] = std::byte{0x7F};
    }
  }

  std::mt19937_64 random_;
};

std::uint64_t from_environment(const char* name, std::uint64_t otherwise) {
  const char* text = std::getenv(name);
  return text == nullptr ? otherwise : std::strtoull(text, nullptr, 10);
}

class Corpus : public testing::TestWithParam<Target> {};

TEST_P(Corpus, EveryFileIsReadOrRefused) {
  const auto files = corpus(GetParam());
  ASSERT_FALSE(files.empty());
  for (const auto& [name, bytes] : files) {
    SCOPED_TRACE(name);
    const auto read = outcome(GetParam(), bytes);
    EXPECT_TRUE(read || name.starts_with("found_")) << "those of scripts/make-corpus are whole";
    EXPECT_EQ(read, outcome_and_sealed(GetParam(), bytes)) << "read twice, it differs";
  }
}

TEST_P(Corpus, DamagedFilesAreReadOrRefused) {
  const Target& target = GetParam();
  std::vector<std::pair<Bytes, std::uint64_t>> good;
  for (const auto& [name, bytes] : corpus(target)) {
    const auto read = outcome(target, bytes);
    if (read && !bytes.empty()) {
      good.emplace_back(bytes, *read);
    }
  }
  ASSERT_FALSE(good.empty());
  const std::uint64_t seed = from_environment("MILLRACE_SEED", 1);
  const std::uint64_t count = from_environment("MILLRACE_DAMAGED", 40);
  Damager damager(seed);
  for (std::size_t kind = 0; kind < std::size(Damager::kKinds); ++kind) {
    std::uint64_t refused = 0, same = 0, other = 0;
    for (std::uint64_t i = 0; i < count / std::size(Damager::kKinds); ++i) {
      const auto& [bytes, read] = good[damager.below(good.size())];
      const auto got = outcome_and_sealed(target, damager.damage(bytes, kind));
      ++(!got ? refused : *got == read ? same : other);
    }
    fmt::print("{:14} {:7} {:6} refused, {:6} read as before, {:6} read as something else\n", target.name,
               Damager::kKinds[kind], refused, same, other);
    EXPECT_TRUE(other == 0 || !target.checksummed) << "seed " << seed;
  }
}

INSTANTIATE_TEST_SUITE_P(Targets, Corpus, testing::ValuesIn(all_targets()),
                         [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace millrace::fuzz
