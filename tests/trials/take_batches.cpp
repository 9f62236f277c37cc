// One rank of the trial scripts/trials/resume-kill. It takes batches for ever or to the end of its epochs;
// after each it writes down which samples came, and then saves the loader's state, as a program of a user
// would.
#include <CLI/CLI.hpp>
#include <chrono>
#include <filesystem>
#include <fmt/core.h>
#include <fstream>
#include <iterator>
#include <thread>

#include "pipeline/image/loader.h"

namespace {

using millrace::Batch, millrace::Loader, millrace::LoaderOptions, millrace::LoaderState;

struct Files {
  std::filesystem::path from, state, journal;
};

LoaderState read_state(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  return LoaderState::from_bytes(std::as_bytes(std::span(text)));
}

/// Renamed into its place whole, so that a kill leaves this state or the one before.
void save_state(const std::filesystem::path& path, const LoaderState& state) {
  const std::filesystem::path unfinished = path.string() + ".new";
  const auto bytes = state.to_bytes();
  std::ofstream(unfinished, std::ios::binary)
      .write(reinterpret_cast<const char*>(bytes.data()), std::ssize(bytes));
  std::filesystem::rename(unfinished, path);
}

/// "epoch step shard id id ...", one line a shard; -1 is padding.
void write_down(std::ofstream& journal, const Batch& batch, int first_shard) {
  for (int shard = 0; shard < batch.shards(); ++shard) {
    journal << batch.epoch() << ' ' << batch.step() << ' ' << first_shard + shard;
    const auto* ids = batch.shard(shard).ids().data<std::int64_t>();
    for (std::int64_t i = 0; i < batch.shard(shard).samples(); ++i) {
      journal << ' ' << ids[i];
    }
    journal << '\n';
  }
  journal.flush();
}

void run(const std::string& data, const LoaderOptions& options, const Files& files) {
  Loader loader(millrace::open_dataset(data), options);
  if (!files.from.empty()) {
    loader.restore(read_state(files.from));
  }
  std::ofstream journal(files.journal);
  for (std::int64_t epoch = loader.state().epoch; epoch < options.epochs; ++epoch) {
    for (const Batch& batch : loader.epoch(epoch)) {
      write_down(journal, batch, options.first_shard);
      save_state(files.state, loader.state());
      std::this_thread::sleep_for(std::chrono::microseconds(500));
    }
  }
}

}  // namespace

// NOLINTNEXTLINE(bugprone-exception-escape): what is thrown ends the program
int main(int argc, char** argv) {
  CLI::App app("One rank of scripts/trials/resume-kill");
  LoaderOptions options;
  options.tail = millrace::Tail::pad;
  std::string data, order;
  Files files;
  app.add_option("--data", data)->required();
  app.add_option("--order", order)->required();
  app.add_option("--batch-size", options.batch_size)->required();
  app.add_option("--shards", options.shards)->required();
  app.add_option("--first-shard", options.first_shard)->required();
  app.add_option("--local-shards", options.local_shards)->required();
  app.add_option("--threads", options.threads)->required();
  app.add_option("--slabs", options.slabs)->required();
  app.add_option("--seed", options.seed)->required();
  app.add_option("--epochs", options.epochs)->required();
  app.add_option("--from", files.from, "The state to go on from");
  app.add_option("--state", files.state)->required();
  app.add_option("--journal", files.journal)->required();
  CLI11_PARSE(app, argc, argv);
  try {
    options.order = {.kind = millrace::parse_order(order), .block_size = 20, .window = 5};
    run(data, options, files);
  } catch (const std::exception& error) {
    fmt::print(stderr, "take_batches: {}\n", error.what());
    return 1;
  }
}
