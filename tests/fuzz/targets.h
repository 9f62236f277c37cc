#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

namespace millrace::fuzz {

/// One parser under trial. libFuzzer's program and the ordinary test run the same ones.
struct Target {
  std::string_view name;  ///< Also of its folder in corpus/.
  /// Reads all that is in `bytes` through the parser and returns a hash of it.
  /// @throws InputError when it is refused, as it may be. Whatever else happens is a mistake.
  std::uint64_t (*run)(std::span<const std::byte> bytes);
  /// The format has checksums over everything: no damage may change what is read.
  bool checksummed = false;
  /// Puts the format's checksums right, so that a fuzzer gets past them.
  void (*seal)(std::vector<std::byte>& bytes) = nullptr;
};

/// Of dataio/: files that hold data sets.
std::span<const Target> dataset_targets();
/// Of pipeline/: images.
std::span<const Target> image_targets();
/// Of tensor/, nn/ and pipeline/: what is saved and loaded again.
std::span<const Target> state_targets();

std::vector<Target> all_targets();

/// What the target reads in `bytes`, in memory of exactly that size; nothing when it refuses them.
std::optional<std::uint64_t> outcome(const Target& target, std::span<const std::byte> bytes);
/// Runs the target on `bytes` as they are and, where it has one, with their seal.
std::optional<std::uint64_t> outcome_and_sealed(const Target& target, std::span<const std::byte> bytes);

}  // namespace millrace::fuzz
