#include "pipeline/loader_graph.h"

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <oneapi/tbb/flow_graph.h>
#include <oneapi/tbb/global_control.h>
#include <oneapi/tbb/task_arena.h>
#include <optional>
#include <string>
#include <tuple>

namespace millrace {
namespace {

namespace flow = tbb::flow;

/// One step of the plan; `sequence` numbers what the graph makes, `planned` says what that is.
struct PlanStep {
  PlannedShard planned;
  std::uint64_t sequence = 0;
  std::int64_t generation = 0;
};

struct Chunk {
  SlabJob* job = nullptr;
  std::int64_t begin = 0, end = 0;
};

/// oneTBB gives at most cores - 1 workers unless it is allowed more; a lower limit that the application sets
/// still holds. It is a limit, not a number of threads.
constexpr std::size_t kMostParallelism = kMaxLoaderThreads;

/// How long the destructor waits for a worker that may be stuck in a read.
constexpr std::chrono::seconds kStopTimeout{60};

}  // namespace

/// All slabs, and the way back to the free ones while the graph lives.
struct SlabPool {
  std::vector<std::unique_ptr<SlabJob>> jobs;
  std::mutex mutex;
  flow::buffer_node<SlabJob*>* free = nullptr;  // null once the graph is closing
  int leased = 0;

  void give_back(SlabJob* job) {
    const std::lock_guard lock(mutex);
    if (free != nullptr) {
      free->try_put(job);
    }
  }
};

struct LoaderGraph::Nodes {
  using Join = flow::join_node<std::tuple<PlanStep, SlabJob*>, flow::reserving>;
  using Spread = flow::multifunction_node<Join::output_type, std::tuple<Chunk>>;
  using Work = flow::multifunction_node<Chunk, std::tuple<SlabJob*>>;

  Nodes(Impl& impl, int threads);

  flow::graph graph;
  flow::input_node<PlanStep> plan;
  flow::buffer_node<SlabJob*> free;
  Join join;
  Spread spread;
  Work work;
  flow::sequencer_node<SlabJob*> order;
  flow::function_node<SlabJob*> deliver;
};

struct LoaderGraph::Impl {
  Impl(const SampleExecutor& executor_in, const Sampler& sampler_in, int threads, int slabs, int chunk_in)
      : executor(executor_in),
        sampler(sampler_in),
        chunk(chunk_in > 0 ? chunk_in : executor_in.chunk()),
        scratch(static_cast<std::size_t>(std::max(threads, 2))),  // an arena has two places at least
        arena(threads,
              0) {  // no slot for the consumer: it never comes, and with one thread nobody else would
    for (SampleExecutor::Scratch& each : scratch) {
      free_scratch.push_back(&each);
    }
    for (int i = 0; i < slabs; ++i) {
      pool->jobs.push_back(std::make_unique<SlabJob>(sampler.shard_size(), executor.fields()));
    }
    arena.execute([&] { nodes.emplace(*this, threads); });
    pool->free = &nodes->free;
    for (const auto& job : pool->jobs) {
      nodes->free.try_put(job.get());
    }
  }

  /// A scratch for the time of one chunk. The arena's thread index will not do: it can exceed
  /// max_concurrency.
  struct Borrowed {
    explicit Borrowed(Impl& from) : impl(from) {
      const std::lock_guard lock(impl.scratch_mutex);
      scratch = impl.free_scratch.back();
      impl.free_scratch.pop_back();
    }
    ~Borrowed() {
      const std::lock_guard lock(impl.scratch_mutex);
      impl.free_scratch.push_back(scratch);
    }
    Borrowed(const Borrowed&) = delete;
    Borrowed& operator=(const Borrowed&) = delete;
    Impl& impl;
    SampleExecutor::Scratch* scratch;
  };

  PlanStep next_step(tbb::flow_control& control);
  void spread(const PlanStep& step, SlabJob* job, Nodes::Spread::output_ports_type& chunks);
  bool work(const Chunk& chunk);
  void deliver(SlabJob* job);
  std::string stuck_stage();

  const SampleExecutor executor;
  const Sampler sampler;
  const std::int64_t chunk;
  const std::shared_ptr<SlabPool> pool = std::make_shared<SlabPool>();
  std::vector<SampleExecutor::Scratch> scratch;  // one for each chunk that may be under way

  std::mutex scratch_mutex;
  std::vector<SampleExecutor::Scratch*> free_scratch;

  std::mutex mutex;  // of what follows, up to the arena
  std::condition_variable changed;
  std::int64_t position = 0, end = 0;  // in the sampler's plan
  std::uint64_t sequence = 0;          // the next step's
  std::deque<SlabJob*> ready;
  std::int64_t spread_jobs = 0, delivered_jobs = 0;
  std::atomic<std::int64_t> generation = 0;  // read without the mutex by the workers

  tbb::global_control parallelism{tbb::global_control::max_allowed_parallelism, kMostParallelism};
  tbb::task_arena arena;
  std::optional<Nodes> nodes;
};

LoaderGraph::Nodes::Nodes(Impl& impl, int threads)
    : plan(graph, [&impl](tbb::flow_control& control) { return impl.next_step(control); }),
      free(graph),
      join(graph),
      spread(graph, flow::serial,
             [&impl](const Join::output_type& input, Spread::output_ports_type& ports) {
               impl.spread(std::get<0>(input), std::get<1>(input), ports);
             }),
      // As many at once as there are threads and the rest queued, so that earlier slabs are done first.
      work(graph, static_cast<std::size_t>(threads),
           [&impl](const Chunk& chunk, Work::output_ports_type& ports) {
             if (impl.work(chunk)) {
               std::get<0>(ports).try_put(chunk.job);
             }
           }),
      order(graph, [](SlabJob* const& job) { return static_cast<std::size_t>(job->sequence); }),
      deliver(graph, flow::serial, [&impl](SlabJob* job) { impl.deliver(job); }) {
  flow::make_edge(plan, flow::input_port<0>(join));
  flow::make_edge(free, flow::input_port<1>(join));
  flow::make_edge(join, spread);
  flow::make_edge(flow::output_port<0>(spread), work);
  flow::make_edge(flow::output_port<0>(work), order);
  flow::make_edge(order, deliver);
}

PlanStep LoaderGraph::Impl::next_step(tbb::flow_control& control) {
  const std::lock_guard lock(mutex);
  if (position == end) {
    control.stop();
    return {};
  }
  return {sampler.planned(position++), sequence++, generation};
}

void LoaderGraph::Impl::spread(const PlanStep& step, SlabJob* job, Nodes::Spread::output_ports_type& chunks) {
  {
    const std::lock_guard lock(mutex);
    ++spread_jobs;
  }
  Slab& slab = job->slab;
  job->planned = step.planned;
  job->sequence = step.sequence;
  job->generation = step.generation;
  job->error = nullptr;
  slab.valid = step.planned.valid;
  slab.first_position = step.planned.first_position;
  const std::int64_t samples = slab.samples();
  sampler.indices(step.planned, {slab.ids().data<std::int64_t>(), static_cast<std::size_t>(samples)});
  job->chunks_left.store(static_cast<int>((samples + chunk - 1) / chunk), std::memory_order_relaxed);
  for (std::int64_t begin = 0; begin < samples; begin += chunk) {
    std::get<0>(chunks).try_put({job, begin, std::min(begin + chunk, samples)});
  }
}

/// @returns whether this was the slab's last chunk.
bool LoaderGraph::Impl::work(const Chunk& chunk) {
  SlabJob& job = *chunk.job;
  try {
    if (job.generation == generation.load(std::memory_order_relaxed)) {
      const Borrowed borrowed(*this);
      executor.execute(job.slab, job.planned.epoch, chunk.begin, chunk.end, *borrowed.scratch);
    }
  } catch (...) {
    const std::lock_guard lock(job.error_mutex);
    if (job.error == nullptr || chunk.begin < job.error_chunk) {
      job.error = std::current_exception();
      job.error_chunk = chunk.begin;
    }
  }
  return job.chunks_left.fetch_sub(1, std::memory_order_acq_rel) == 1;
}

void LoaderGraph::Impl::deliver(SlabJob* job) {
  bool wanted;
  {
    const std::lock_guard lock(mutex);
    ++delivered_jobs;
    wanted = job->generation == generation;
    if (wanted) {
      ready.push_back(job);
    }
    changed.notify_all();
  }
  if (!wanted) {
    pool->give_back(job);
  }
}

std::string LoaderGraph::Impl::stuck_stage() {
  for (const SampleExecutor::Scratch& each : scratch) {
    const std::int64_t sample = each.sample.load(std::memory_order_relaxed);
    if (sample >= 0) {
      return fmt::format("a worker is reading or decoding {}", executor.dataset().describe(sample));
    }
  }
  const std::lock_guard lock(pool->mutex);
  if (pool->leased == static_cast<int>(pool->jobs.size())) {
    return fmt::format("all {} slabs are held by batches; release one, or allow for more with slabs",
                       pool->leased);
  }
  return "no worker thread runs; the application's tbb::global_control::max_allowed_parallelism must exceed "
         "the "
         "loader's threads";
}

LoaderGraph::LoaderGraph(const SampleExecutor& executor, const Sampler& sampler, int threads, int slabs,
                         int chunk)
    : impl_(std::make_shared<Impl>(executor, sampler, threads, slabs, chunk)) {}

LoaderGraph::~LoaderGraph() {
  {
    const std::lock_guard lock(impl_->pool->mutex);
    impl_->pool->free = nullptr;
  }
  std::unique_lock lock(impl_->mutex);
  impl_->position = impl_->end = 0;
  ++impl_->generation;
  const bool idle = impl_->changed.wait_for(lock, kStopTimeout,
                                            [&] { return impl_->spread_jobs == impl_->delivered_jobs; });
  lock.unlock();
  if (idle) {
    impl_->nodes->graph.wait_for_all();
  } else {
    new std::shared_ptr<Impl>(impl_);  // a read that never ends still uses it: given up on purpose
  }
}

void LoaderGraph::start(std::int64_t begin, std::int64_t end) {
  std::deque<SlabJob*> dropped;
  {
    const std::lock_guard lock(impl_->mutex);
    ++impl_->generation;
    impl_->position = begin;
    impl_->end = end;
    dropped.swap(impl_->ready);
  }
  for (SlabJob* job : dropped) {
    impl_->pool->give_back(job);
  }
  impl_->nodes->plan.activate();
}

SlabLease LoaderGraph::next(std::chrono::duration<double> timeout) {
  SlabJob* job = nullptr;
  {
    std::unique_lock lock(impl_->mutex);
    const bool came = impl_->changed.wait_for(lock, timeout, [&] { return !impl_->ready.empty(); });
    if (!came) {
      lock.unlock();
      throw MachineError("loader: no batch came in {} s: {}", timeout.count(), impl_->stuck_stage());
    }
    job = impl_->ready.front();
    impl_->ready.pop_front();
  }
  const auto pool = impl_->pool;
  {
    const std::lock_guard lock(pool->mutex);
    ++pool->leased;
  }
  return {job, [pool](SlabJob* leased) {
            {
              const std::lock_guard lock(pool->mutex);
              --pool->leased;
            }
            pool->give_back(leased);
          }};
}

}  // namespace millrace
