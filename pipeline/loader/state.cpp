#include "pipeline/loader/state.h"

#include <string_view>

#include "base/error.h"
#include "base/hash.h"

namespace millrace {

namespace {

constexpr std::uint64_t kMagic = 0x3054415453524C4D;  // "MLRSTAT0" as little-endian bytes
constexpr int kDigit = 56;                            // where the fingerprint's version is added

std::uint64_t checksum(std::span<const std::byte> bytes) {
  return Hash().add(std::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size())).value();
}

class Writer {
 public:
  explicit Writer(std::span<std::byte> to) : to_(to) {}
  template <typename Integer>
  void put(Integer value) {
    for (std::size_t i = 0; i < 8; ++i) {
      to_[at_++] = static_cast<std::byte>(static_cast<std::uint64_t>(value) >> (8 * i));
    }
  }

 private:
  std::span<std::byte> to_;
  std::size_t at_ = 0;
};

class Reader {
 public:
  explicit Reader(std::span<const std::byte> from) : from_(from) {}
  std::uint64_t take() {
    std::uint64_t value = 0;
    for (std::size_t i = 0; i < 8; ++i) {
      value |= std::to_integer<std::uint64_t>(from_[at_++]) << (8 * i);
    }
    return value;
  }
  std::int64_t take_signed() { return static_cast<std::int64_t>(take()); }

 private:
  std::span<const std::byte> from_;
  std::size_t at_ = 0;
};

}  // namespace

std::array<std::byte, LoaderState::kBytes> LoaderState::to_bytes() const {
  std::array<std::byte, kBytes> bytes;
  Writer writer(bytes);
  writer.put(kMagic + (static_cast<std::uint64_t>(fingerprint_version) << kDigit));
  // The order's kind beside the version: 32 bits each.
  writer.put(static_cast<std::uint64_t>(order.kind) << 32 | static_cast<std::uint32_t>(permutation_version));
  writer.put(order.block_size);
  writer.put(order.window);
  writer.put(seed);
  writer.put(epoch);
  writer.put(step);
  writer.put(batch_size);
  writer.put(samples);
  writer.put(fingerprint);
  writer.put(checksum(std::span(bytes).first(kBytes - 8)));
  return bytes;
}

LoaderState LoaderState::from_bytes(std::span<const std::byte> bytes) {
  if (bytes.size() != kBytes) {
    throw InputError("loader state: got {} bytes, expected {}", bytes.size(), kBytes);
  }
  Reader reader(bytes);
  LoaderState state;
  const std::uint64_t magic = reader.take(), version = (magic - kMagic) >> kDigit;
  if (magic != kMagic + (version << kDigit) || version < 1 || version > 9) {
    throw InputError("loader state: these bytes are none; expected what to_bytes gave");
  }
  if (version > std::uint64_t{Dataset::kFingerprintVersion}) {
    throw InputError(
        "loader state: it has a fingerprint of version {}, expected at most {}; a newer Millrace wrote it",
        version, Dataset::kFingerprintVersion);
  }
  state.fingerprint_version = static_cast<int>(version);
  const std::uint64_t kind_and_version = reader.take(), kind = kind_and_version >> 32;
  state.permutation_version = static_cast<int>(kind_and_version);
  state.order.block_size = reader.take_signed();
  state.order.window = reader.take_signed();
  state.seed = reader.take();
  state.epoch = reader.take_signed();
  state.step = reader.take_signed();
  state.batch_size = reader.take_signed();
  state.samples = reader.take_signed();
  state.fingerprint = reader.take();
  if (reader.take() != checksum(bytes.first(kBytes - 8)) || kind > 2) {
    throw InputError("loader state: its checksum does not fit its bytes: it is damaged; use an earlier one");
  }
  state.order.kind = static_cast<Order>(kind);
  return state;
}

void LoaderState::require_same_order(const LoaderState& other) const {
  const auto same = [](std::string_view what, const auto& mine, const auto& theirs) {
    if (mine != theirs) {
      throw InputError("loader: the state is of {} {}, and this loader has {}; make the loader as it was",
                       what, theirs, mine);
    }
  };
  same("permutation version", permutation_version, other.permutation_version);
  same("order", name_of(order.kind), name_of(other.order.kind));
  if (order.kind == Order::blocks) {
    same("block size", order.block_size, other.order.block_size);
    same("window", order.window, other.order.window);
  }
  same("seed", seed, other.seed);
  same("batch size", batch_size, other.batch_size);
  same("number of samples", samples, other.samples);
  same("fingerprint version", fingerprint_version, other.fingerprint_version);
  same("data set fingerprint", fingerprint, other.fingerprint);
}

}  // namespace millrace
