// Opening a records file and loading its first batch, for 10^5 to 10^8 records. The files are sparse: only
// the entries that the first batches ask for are written, and all of them have the same payload.
#include <benchmark/benchmark.h>
#include <filesystem>
#include <fstream>
#include <stdlib.h>
#include <unistd.h>

#include "base/crc32c.h"
#include "base/error.h"
#include "dataio/formats/record_format.h"
#include "dataio/permutation.h"
#include "pipeline/image/loader.h"

namespace millrace {
namespace {

constexpr std::int64_t kBatch = 64, kWritten = 64 * kBatch;

class SparseRecords {
 public:
  explicit SparseRecords(std::int64_t records) {
    std::string name = (std::filesystem::temp_directory_path() / "millrace-bench-XXXXXX").string();
    const int file = mkstemp(name.data());
    if (file < 0) {
      throw MachineError("cannot make {}", name);
    }
    close(file);
    path_ = name;
    const std::vector<std::byte> pixels(32 * 32 * 3, std::byte{100});
    RecordHeader header{.records = static_cast<std::uint64_t>(records),
                        .index_offset = 4096,
                        .classes_crc = crc32c({}),
                        .height = 32,
                        .width = 32};
    header.file_size = header.classes_offset();
    const RecordEntry entry{
        .offset = 128, .size = 3072, .crc = crc32c(pixels), .height = 32, .width = 32, .channels = 3};
    {
      std::ofstream out(path_, std::ios::binary);
      const auto write = [&](std::uint64_t at, std::span<const std::byte> bytes) {
        out.seekp(static_cast<std::streamoff>(at));
        out.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
      };
      write(0, header.encode());
      write(entry.offset, pixels);
      const auto write_entry = [&](std::int64_t record) {
        write(header.index_offset + static_cast<std::uint64_t>(record) * RecordEntry::kBytes, entry.encode());
      };
      write_entry(0);  // the loader learns the images' size from it
      const Permutation order(records, 0, 0);
      for (std::int64_t i = 0; i < kWritten; ++i) {
        write_entry(order(i));
      }
    }
    std::filesystem::resize_file(path_, header.file_size);
  }
  ~SparseRecords() { std::filesystem::remove(path_); }
  SparseRecords(const SparseRecords&) = delete;

  std::string name() const { return "records:" + path_.string(); }

 private:
  std::filesystem::path path_;
};

double resident_megabytes() {
  std::ifstream file("/proc/self/statm");
  double total = 0, resident = 0;
  file >> total >> resident;
  return resident * static_cast<double>(getpagesize()) / 1e6;
}

void open_records(benchmark::State& state) {
  const SparseRecords file(state.range(0));
  for (auto _ : state) {
    benchmark::DoNotOptimize(open_dataset(file.name()));
  }
}
BENCHMARK(open_records)
    ->RangeMultiplier(10)
    ->Range(100'000, 100'000'000)
    ->Iterations(100)
    ->Unit(benchmark::kMicrosecond);

/// From the file's name to the first shuffled batch in hand. `megabytes` is what the process grew by, pages
/// of the mapped file included.
void first_batch(benchmark::State& state) {
  const SparseRecords file(state.range(0));
  double most = 0;
  for (auto _ : state) {
    const double before = resident_megabytes();
    Loader loader{open_dataset(file.name()), {.batch_size = kBatch, .threads = 1}};
    loader.epoch(0);
    Batch batch;
    loader.next(batch);
    most = std::max(most, resident_megabytes() - before);
  }
  state.counters["megabytes"] = most;
}
BENCHMARK(first_batch)
    ->RangeMultiplier(10)
    ->Range(100'000, 100'000'000)
    ->Iterations(100)
    ->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace millrace

BENCHMARK_MAIN();
