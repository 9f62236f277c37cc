#include "base/crc32c.h"

#include <gtest/gtest.h>
#include <numeric>
#include <random>
#include <string_view>
#include <vector>

namespace millrace {
namespace {

std::span<const std::byte> bytes(std::string_view text) { return std::as_bytes(std::span(text)); }

/// The examples of RFC 3720, appendix B.4, and the usual check value.
TEST(Crc32c, PublishedVectors) {
  std::vector<std::uint8_t> rising(32);
  std::iota(rising.begin(), rising.end(), std::uint8_t{0});
  const std::vector<std::uint8_t> falling(rising.rbegin(), rising.rend());
  const std::vector<std::uint8_t> zeros(32, 0x00), ones(32, 0xFF);
  for (const auto crc : {crc32c, crc32c_by_table}) {
    EXPECT_EQ(crc(bytes("123456789"), 0), 0xE3069283u);
    EXPECT_EQ(crc(std::as_bytes(std::span(zeros)), 0), 0x8A9136AAu);
    EXPECT_EQ(crc(std::as_bytes(std::span(ones)), 0), 0x62A8AB43u);
    EXPECT_EQ(crc(std::as_bytes(std::span(rising)), 0), 0x46DD794Eu);
    EXPECT_EQ(crc(std::as_bytes(std::span(falling)), 0), 0x113FDB5Cu);
    EXPECT_EQ(crc({}, 0), 0u);
  }
}

TEST(Crc32c, AnyLengthStartAndSplitAgreeWithTheTable) {
  std::mt19937 random(7);
  std::vector<std::byte> data(1700);
  for (std::byte& byte : data) {
    byte = static_cast<std::byte>(random());
  }
  const std::span<const std::byte> all(data);
  for (std::size_t start = 0; start < 9; ++start) {
    for (std::size_t size = 0; size + start <= all.size(); size += size < 100 ? 1 : 7) {
      const auto part = all.subspan(start, size);
      const std::size_t cut = random() % (size + 1);
      const std::uint32_t expected = crc32c_by_table(part);
      ASSERT_EQ(crc32c(part), expected) << start << " " << size;
      ASSERT_EQ(crc32c(part.subspan(cut), crc32c(part.first(cut))), expected) << start << " " << size;
    }
  }
}

}  // namespace
}  // namespace millrace
