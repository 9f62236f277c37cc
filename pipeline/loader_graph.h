#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>
#include <vector>

#include "dataio/sampler.h"
#include "pipeline/execute.h"
#include "pipeline/slab.h"
#include "pipeline/statistics.h"
#include "pipeline/trace.h"

namespace millrace {

/// More than this many workers oneTBB is not asked for.
inline constexpr int kMaxLoaderThreads = 256;

/// A slab and the work of filling it once. It is the token that goes round the graph and out to the consumer.
struct SlabJob {
  SlabJob(std::int64_t samples, const std::vector<FieldSpec>& fields) : slab(samples, fields) {}

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

/// Goes back to the free slabs when the last copy is gone; may outlive the graph.
using SlabLease = std::shared_ptr<SlabJob>;

/// The flow graph: plan and free slabs are joined, spread as chunks over the workers, put in order and
/// delivered.
///
///   input_node (plan) ---.
///                        |-> join_node<reserving> -> spread -> work (n at once) -> sequencer_node -> deliver
///   buffer_node (slabs) -'                                                                            |
///        ^---------------------------- lease is gone <----------------------------- next() <----------'
///
/// With reader threads, chunks pass an async_node between spread and work: they wait for storage, and workers
/// never do. The number of slabs is the only back-pressure. The consumer never joins the arena.
class LoaderGraph {
 public:
  /// Of `options` it takes the threads, slabs, chunk, reader threads and trace, which must be filled in.
  LoaderGraph(const SampleExecutor& executor, const Sampler& sampler, const LoaderOptions& options);
  /// Stops early where work is under way; leases that are still out stay valid.
  ~LoaderGraph();
  LoaderGraph(const LoaderGraph&) = delete;
  LoaderGraph& operator=(const LoaderGraph&) = delete;

  /// Makes the shards [begin, end) of the sampler's plan; what was made of an earlier range and not taken is
  /// dropped.
  void start(std::int64_t begin, std::int64_t end);
  /// The next slab of the plan, in order; it may hold an error. @throws MachineError after `timeout`, naming
  /// the stage that is stuck. One consumer; it must not ask for more than was started.
  SlabLease next(std::chrono::duration<double> timeout);
  /// What the threads did; the consumer's side is left open. `ready` counts slabs.
  LoaderStatistics statistics() const;

 private:
  struct Nodes;
  struct Impl;
  std::shared_ptr<Impl> impl_;  // shared with the workers, so that one that hangs for ever does no harm
};

}  // namespace millrace
