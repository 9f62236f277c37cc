#pragma once

#include <atomic>
#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "dataio/sampler.h"
#include "pipeline/image/execute.h"
#include "pipeline/loader/slab.h"
#include "pipeline/loader/statistics.h"
#include "pipeline/loader/trace.h"

namespace millrace {

/// A slab and the work of filling it once. It is the token that goes round the graph and out to the consumer.
struct SlabJob {
  explicit SlabJob(Slab memory) : slab(std::move(memory)) {}

  Slab slab;
  PlannedShard planned;
  std::uint64_t sequence = 0;   ///< Over the life of the graph, without a break: the order of delivery.
  std::int64_t generation = 0;  ///< Which start() asked for it; older ones are skipped.
  std::atomic<int> chunks_left = 0;
  std::mutex mutex;              ///< Of what follows, while chunks are under way.
  std::exception_ptr error;      ///< Of the first failed sample, whichever thread comes upon it when.
  std::int64_t error_chunk = 0;  ///< Where its chunk begins.
  std::vector<BadSample> bad;    ///< In the order of their places once the slab is delivered.
  Trace::Track* track = nullptr;
  Trace::Clock::time_point since = {};

  /// Shows what it did since the last call, if there is a trace.
  void show(const char* what);
};

/// Samples [begin, end) of a slab: what a task makes.
struct Chunk {
  SlabJob* job = nullptr;
  std::int64_t begin = 0, end = 0;
  SampleExecutor::Fetched* fetched = nullptr;  // by a reader thread
};

/// What the graph's threads do with chunks. Any thread may call it: it lends each the memory that it needs.
class ChunkWork {
 public:
  /// Chunks of another generation than `generation` are passed on without work.
  ChunkWork(const SampleExecutor& executor, const LoaderOptions& options,
            const std::atomic<std::int64_t>& generation);

  const SampleExecutor& executor() const { return executor_; }
  /// By reader thread number `reader`: brings a chunk's samples into memory.
  void fetch(Chunk& chunk, int reader);
  /// By a worker: makes a chunk, and finishes the slab when it was the last one. @returns whether it was.
  bool work(const Chunk& chunk);

  /// "a worker is reading or decoding sample 17", if a thread is at a sample now.
  std::optional<std::string> busy_with() const;
  /// Adds what the threads did.
  void count(LoaderStatistics& sum) const;
  void show_on(Trace& trace);

 private:
  using Scratch = SampleExecutor::Scratch;
  class Borrowed;
  void make(const Chunk& chunk);
  void finish(SlabJob& job);

  const SampleExecutor executor_;
  const std::atomic<std::int64_t>& generation_;
  std::vector<Scratch> workers_;  // one for each chunk that may be under way
  std::vector<Scratch> readers_;  // one a reader thread
  std::mutex mutex_;              // of what follows
  std::vector<Scratch*> free_workers_;
  std::vector<std::unique_ptr<SampleExecutor::Fetched>> free_fetched_;  // at most one a chunk of all slabs
};

}  // namespace millrace
