#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>

#include "dataio/dataset.h"

namespace millrace {

struct ConvertOptions {
  std::int64_t part_size = 0;  ///< As in RecordWriterOptions: bytes a file; 0: one file.
  bool restart_rows = false;   ///< Rewrite JPEGs without loss, with a restart marker per row of MCUs.
  int threads = 0;             ///< 0 means this process's cores.
  /// Called after each record, by one thread at a time.
  std::function<void(std::int64_t done)> on_progress = {};
};

struct Converted {
  std::int64_t records = 0, bytes = 0, files = 0;
};

/// Writes all samples of `from`, in their order, as records to `to`; nothing is left of it when that fails.
/// @throws InputError when `to` exists, or naming the sample that cannot be read or rewritten; MachineError
/// when the disk fails or is full.
Converted convert(const Dataset& from, const std::filesystem::path& to, const ConvertOptions& options = {});

}  // namespace millrace
