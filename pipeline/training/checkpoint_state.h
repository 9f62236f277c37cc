#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "pipeline/loader/state.h"
#include "pipeline/training/run_description.h"

namespace millrace {

/// What another version of Millrace wrote: no damage, and nothing to pass over.
class OtherFormat : public InputError {
 public:
  using InputError::InputError;
};

/// What a checkpoint holds beside its tensors: the content of its state.pb (proto/checkpoint.proto).
struct CheckpointState {
  struct File {
    std::string name;
    std::uint64_t bytes = 0;
    std::uint32_t crc32c = 0;
    bool operator==(const File&) const = default;
  };

  static constexpr std::uint64_t kMostBytes = std::uint64_t{1} << 26;

  std::int64_t step = 0;
  LoaderState loader;
  RunDescription run;
  std::string engines;      ///< Of GPUs' convolutions, as EngineChoices::bytes gives them.
  std::vector<File> files;  ///< The other files.
  /// Null when there is none of this name.
  const File* find(std::string_view name) const;

  std::string to_bytes() const;
  /// @throws OtherFormat, or InputError saying what is wrong with the bytes.
  static CheckpointState from_bytes(std::span<const std::byte> bytes);
};

}  // namespace millrace
