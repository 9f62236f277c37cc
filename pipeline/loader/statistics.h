#pragma once

#include <cstdint>
#include <string>

namespace millrace {

/// Where a loader's time went. Times are in seconds; those of the stages are summed over the threads.
struct LoaderStatistics {
  int threads = 0, reader_threads = 0;
  double seconds = 0;        ///< From the start of each epoch to the consumer's last call.
  double consumer_wait = 0;  ///< Of these, the consumer's in `next`.
  double slab_wait = 0;      ///< In which no slab could be filled, because all were full or held.
  double read = 0;  ///< Bringing samples' bytes into memory; by the reader threads, if there are any.
  double decode = 0, write = 0;
  std::int64_t samples = 0, bytes = 0;  ///< Made, and read for them as they are stored.
  std::int64_t batches = 0;             ///< Taken.
  std::int64_t ready = 0;               ///< Finished batches found, summed over all that were taken.

  /// How many batches were ready, on average, when one was taken.
  double ready_batches() const {
    return batches > 0 ? static_cast<double>(ready) / static_cast<double>(batches) : 0;
  }
  /// What happened between an earlier look and this one.
  LoaderStatistics since(const LoaderStatistics& earlier) const;
  /// What limits the speed, and what would help: "decode-bound: the consumer waited 38 % of the time; about
  /// 3.1 more cores would feed it".
  std::string verdict() const;
};

}  // namespace millrace
