#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "dataio/file.h"

/// How checkpoints lie in their folder: step-000000123, and with these endings while one is being written,
/// replaced (and still whole) or removed.
namespace millrace {

inline constexpr const char *kUnfinished = ".part", *kReplaced = ".replaced", *kRemoved = ".removed";

std::string checkpoint_name(std::int64_t step);
/// What `checkpoint_name` was made from; nothing for other names.
std::optional<std::int64_t> step_of(const std::filesystem::path& path);

/// Makes the folder, keeps other runs out while the result lives, and removes what a killed run left half
/// written or half removed. One that it was about to replace comes back, unless the new one is
/// there and whole.
/// @throws InputError when it cannot be written, or another run writes into it.
FileDescriptor take_folder(const std::filesystem::path& folder);
/// Removes the oldest checkpoints up to that of `newest`, but for `keep`. What cannot be removed stays.
void remove_old(const std::filesystem::path& folder, std::int64_t newest, int keep);
/// What is in the folder is on disk when it returns. @throws MachineError.
void sync_folder(const std::filesystem::path& folder);

}  // namespace millrace
