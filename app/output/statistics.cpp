#include "app/output/statistics.h"

#include <algorithm>
#include <fmt/core.h>

namespace millrace::app {

Json to_json(const LoaderStatistics& s) {
  return {{"seconds", s.seconds},
          {"threads", s.threads},
          {"reader_threads", s.reader_threads},
          {"read_seconds", s.read},
          {"decode_seconds", s.decode},
          {"write_seconds", s.write},
          {"slab_wait_seconds", s.slab_wait},
          {"consumer_wait_seconds", s.consumer_wait},
          {"samples", s.samples},
          {"bytes", s.bytes},
          {"batches", s.batches},
          {"ready_batches", s.ready_batches()},
          {"verdict", s.verdict()}};
}

void print_statistics(const LoaderStatistics& s) {
  const double seconds = std::max(s.seconds, 1e-9);
  const double samples = static_cast<double>(std::max<std::int64_t>(s.samples, 1));
  fmt::print("  stage          share of time    an image\n");
  const auto stage = [&](const char* name, double time, int threads) {
    fmt::print("  {:<14} {:6.1f} % of {:<4} {:8.2f} us\n", name, 100 * time / seconds / std::max(threads, 1),
               threads, 1e6 * time / samples);
  };
  stage("read", s.read, s.reader_threads > 0 ? s.reader_threads : s.threads);
  stage("decode", s.decode, s.threads);
  stage("augment, write", s.write, s.threads);
  fmt::print("  slab wait      {:6.1f} %\n", 100 * s.slab_wait / seconds);
  fmt::print("  consumer wait  {:6.1f} %          {:.1f} batches ready on average\n",
             100 * s.consumer_wait / seconds, s.ready_batches());
  fmt::print("  {:.1f} MB/s as stored\n  {}\n", 1e-6 * static_cast<double>(s.bytes) / seconds, s.verdict());
}

}  // namespace millrace::app
