#include "targets.h"

#include "base/error.h"

namespace millrace::fuzz {

std::vector<Target> all_targets() {
  std::vector<Target> all;
  for (const auto targets : {dataset_targets(), image_targets(), state_targets()}) {
    all.insert(all.end(), targets.begin(), targets.end());
  }
  return all;
}

std::optional<std::uint64_t> outcome(const Target& target, std::span<const std::byte> bytes) {
  const std::vector<std::byte> exact(bytes.begin(), bytes.end());
  try {
    return target.run(exact);
  } catch (const InputError&) {
    return std::nullopt;
  }
}

std::optional<std::uint64_t> outcome_and_sealed(const Target& target, std::span<const std::byte> bytes) {
  if (target.seal != nullptr) {
    std::vector<std::byte> sealed(bytes.begin(), bytes.end());
    target.seal(sealed);
    outcome(target, sealed);
  }
  return outcome(target, bytes);
}

}  // namespace millrace::fuzz
