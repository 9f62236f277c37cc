#pragma once

#include <cstdint>
#include <string_view>

namespace millrace {

/// In which order an epoch visits the samples; each comes exactly once.
enum class Order : std::uint8_t {
  sequential,  ///< As the data set has them.
  shuffled,    ///< One permutation of all samples.
  blocks       ///< Blocks of neighbours in shuffled order, then shuffled within a window: for cold disks.
};

std::string_view name_of(Order order);
/// @throws InputError that lists the orders.
Order parse_order(std::string_view name);

struct OrderOptions {
  Order kind = Order::shuffled;
  std::int64_t block_size = 64;  ///< Neighbours that are read about the same time; of Order::blocks.
  std::int64_t window = 64;      ///< In blocks: samples are mixed among so many of them.
  bool operator==(const OrderOptions&) const = default;
};

/// What becomes of the samples that fill no whole batch.
enum class Tail : std::uint8_t {
  drop,  ///< They are left out of this epoch.
  pad    ///< They make a last batch, whose other places are masked: never a sample twice.
};

/// Names the arithmetic of all orders and is stored with every checkpoint: any change of an order needs a new
/// number.
inline constexpr int kPermutationVersion = 1;

}  // namespace millrace
