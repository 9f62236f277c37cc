#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace millrace {

/// CRC-32C (Castagnoli's polynomial, as in iSCSI and TFRecord) of `bytes`, continuing from the `crc` of what
/// came before them. In hardware where the processor has SSE 4.2.
std::uint32_t crc32c(std::span<const std::byte> bytes, std::uint32_t crc = 0);

/// The same by a table, for processors without the instruction.
std::uint32_t crc32c_by_table(std::span<const std::byte> bytes, std::uint32_t crc = 0);

}  // namespace millrace
