// What a sample costs before it is decoded: its place in the order, and its bytes from a file.
#include <benchmark/benchmark.h>
#include <filesystem>
#include <fstream>
#include <stdlib.h>

#include "base/error.h"
#include "dataio/dataset.h"
#include "dataio/permutation.h"

namespace millrace {
namespace {

void permutation(benchmark::State& state) {
  const Permutation order(state.range(0), 1, 2);
  std::int64_t position = 0, sum = 0;
  for (auto _ : state) {
    sum += order(position);
    position = position + 1 < order.size() ? position + 1 : 0;
  }
  benchmark::DoNotOptimize(sum);
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK(permutation)->Arg(50000)->Arg(1281167);

/// 10,000 files of 900 bytes, about CIFAR-10's JPEGs, in ten class folders; read in a shuffled order.
void image_folder(benchmark::State& state) {
  std::string root = (std::filesystem::temp_directory_path() / "millrace-bench-XXXXXX").string();
  if (mkdtemp(root.data()) == nullptr) {
    throw MachineError("cannot make {}", root);
  }
  constexpr int kFiles = 10000;
  for (int i = 0; i < kFiles; ++i) {
    const std::filesystem::path folder = std::filesystem::path(root) / std::to_string(i % 10);
    std::filesystem::create_directories(folder);
    std::ofstream(folder / (std::to_string(i) + ".jpg"), std::ios::binary)
        << "\xFF\xD8\xFF" << std::string(897, 'x');
  }
  {
    const auto dataset = open_dataset("images:" + root);
    const Permutation order(kFiles, 1, 2);
    std::vector<std::byte> scratch;
    std::int64_t position = 0;
    for (auto _ : state) {
      const Sample sample = dataset->read(order(position), scratch);
      if (sample.bytes.size() != 900) {
        throw MachineError("read {} bytes", sample.bytes.size());
      }
      position = (position + 1) % kFiles;
    }
  }
  state.SetItemsProcessed(state.iterations());
  std::filesystem::remove_all(root);
}
BENCHMARK(image_folder);

void draw_synthetic(benchmark::State& state) {
  for (auto _ : state) {
    benchmark::DoNotOptimize(open_dataset("synthetic:1000"));
  }
  state.SetItemsProcessed(state.iterations() * 1000);
}
BENCHMARK(draw_synthetic);

}  // namespace
}  // namespace millrace

BENCHMARK_MAIN();
