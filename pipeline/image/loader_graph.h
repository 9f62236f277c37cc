#pragma once

#include <chrono>
#include <cstdint>
#include <memory>

#include "dataio/sampler.h"
#include "pipeline/image/chunk_work.h"

namespace millrace {

/// More than this many workers oneTBB is not asked for.
inline constexpr int kMaxLoaderThreads = 256;

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
