#include "pipeline/loader/statistics.h"

#include <algorithm>
#include <fmt/core.h>

namespace millrace {

LoaderStatistics LoaderStatistics::since(const LoaderStatistics& earlier) const {
  LoaderStatistics change = *this;
  for (double LoaderStatistics::*time :
       {&LoaderStatistics::seconds, &LoaderStatistics::consumer_wait, &LoaderStatistics::slab_wait,
        &LoaderStatistics::read, &LoaderStatistics::decode, &LoaderStatistics::write}) {
    change.*time -= earlier.*time;
  }
  for (std::int64_t LoaderStatistics::*count : {&LoaderStatistics::samples, &LoaderStatistics::bytes,
                                                &LoaderStatistics::batches, &LoaderStatistics::ready}) {
    change.*count -= earlier.*count;
  }
  return change;
}

std::string LoaderStatistics::verdict() const {
  if (batches == 0 || seconds <= 0) {
    return "no batch was taken";
  }
  const double worker = decode + write + (reader_threads == 0 ? read : 0);
  const double waited = consumer_wait / seconds, own = seconds - consumer_wait;
  const std::string wait = fmt::format("the consumer waited {:.0f} % of the time", 100 * waited);
  constexpr double kHardly = 0.05;
  if (waited < kHardly) {
    return fmt::format("consumer-bound: {}; the loader needed {:.1f} of its {} threads", wait,
                       worker / seconds, threads);
  }
  if (slab_wait > consumer_wait / 2) {  // more cores would wait as well
    return fmt::format(
        "slab-bound: {}, and the loader waited {:.0f} % for a free slab; more slabs would even it out", wait,
        100 * slab_wait / seconds);
  }
  const bool readers_are_busier = reader_threads > 0 && read / reader_threads > worker / std::max(threads, 1);
  if (readers_are_busier || (reader_threads == 0 && read > std::max(decode, write))) {
    return fmt::format("read-bound: {}; {:.1f} MB/s came in: faster storage{} would feed it", wait,
                       1e-6 * static_cast<double>(bytes) / seconds,
                       reader_threads > 0 ? " or more reader threads" : ", or reader threads,");
  }
  const char* stage = decode >= write ? "decode" : "augment";
  constexpr double kSome = 0.02;
  if (own < kSome * seconds) {
    return fmt::format("{}-bound: {} and did nothing else; more cores or less work an image make it faster",
                       stage, wait);
  }
  return fmt::format("{}-bound: {}; about {:.1f} more cores would feed it", stage, wait,
                     worker / own - worker / seconds);
}

}  // namespace millrace
