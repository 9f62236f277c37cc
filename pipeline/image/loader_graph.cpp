#include "pipeline/image/loader_graph.h"

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <oneapi/tbb/flow_graph.h>
#include <oneapi/tbb/global_control.h>
#include <oneapi/tbb/task_arena.h>
#include <optional>
#include <string>
#include <tuple>

#include "pipeline/loader/reader_threads.h"

namespace millrace {
namespace {

namespace flow = tbb::flow;

/// One step of the plan; `sequence` numbers what the graph makes, `planned` says what that is.
struct PlanStep {
  PlannedShard planned;
  std::uint64_t sequence = 0;
  std::int64_t generation = 0;
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
  std::shared_ptr<Trace> trace;  // as long as a slab may be shown on it
  bool more_planned = false;
  std::size_t out = 0;  // full or held
  std::chrono::nanoseconds wait{};
  std::optional<Trace::Clock::time_point> wait_since;  // with work planned and all slabs out

  void plan(bool more) {
    const std::lock_guard lock(mutex);
    more_planned = more;
  }
  void take_out() {
    const std::lock_guard lock(mutex);
    if (++out == jobs.size() && more_planned) {
      wait_since = Trace::Clock::now();
    }
  }
  void give_back(SlabJob* job) {
    const std::lock_guard lock(mutex);
    --out;
    if (wait_since) {
      wait += Trace::Clock::now() - *std::exchange(wait_since, std::nullopt);
    }
    if (free != nullptr) {
      free->try_put(job);
    }
  }
};

struct LoaderGraph::Nodes {
  using Join = flow::join_node<std::tuple<PlanStep, SlabJob*>, flow::reserving>;
  using Spread = flow::multifunction_node<Join::output_type, std::tuple<Chunk>>;
  using Fetch = flow::async_node<Chunk, Chunk>;
  using Work = flow::multifunction_node<Chunk, std::tuple<SlabJob*>>;

  Nodes(Impl& impl, int threads);

  flow::graph graph;
  flow::input_node<PlanStep> plan;
  flow::buffer_node<SlabJob*> free;
  Join join;
  Spread spread;
  Fetch fetch;
  Work work;
  flow::sequencer_node<SlabJob*> order;
  flow::function_node<SlabJob*> deliver;
};

struct LoaderGraph::Impl {
  Impl(const SampleExecutor& executor_in, const Sampler& sampler_in, const LoaderOptions& options)
      : sampler(sampler_in),
        chunk(options.chunk > 0 ? options.chunk : executor_in.chunk()),
        threads(options.threads),
        reader_threads(options.reader_threads),
        chunks(executor_in, options, generation),
        arena(threads,
              0) {  // no slot for the consumer: it never comes, and with one thread nobody else would
    const auto pixel_scale = executor_in.pixel_scale();  // one for all: a GPU gets it once
    for (int i = 0; i < options.slabs; ++i) {
      pool->jobs.push_back(std::make_unique<SlabJob>(Slab(sampler.shard_size(), executor_in.fields())));
      pool->jobs.back()->slab.pixel_scale = pixel_scale;
    }
    if (options.trace) {
      show_on(options.trace);
    }
    arena.execute([&] { nodes.emplace(*this, threads); });
    pool->free = &nodes->free;
    for (const auto& job : pool->jobs) {
      nodes->free.try_put(job.get());
    }
    readers.emplace(options.reader_threads);
  }

  PlanStep next_step(tbb::flow_control& control);
  void show_on(const std::shared_ptr<Trace>& trace);
  void spread(const PlanStep& step, SlabJob* job, Nodes::Spread::output_ports_type& to);
  void will_need(Slab& slab);
  void deliver(SlabJob* job);
  std::string stuck_stage();

  const Sampler sampler;
  const std::int64_t chunk;
  const int threads, reader_threads;
  const std::shared_ptr<SlabPool> pool = std::make_shared<SlabPool>();
  std::atomic<std::int64_t> generation = 0;  // changed under the mutex, read without it
  ChunkWork chunks;

  std::mutex mutex;  // of what follows, up to the arena
  std::condition_variable changed;
  std::int64_t position = 0, end = 0;  // in the sampler's plan
  std::uint64_t sequence = 0;          // the next step's
  std::deque<SlabJob*> ready;
  std::int64_t spread_jobs = 0, delivered_jobs = 0;
  std::int64_t ready_found = 0;

  tbb::global_control parallelism{tbb::global_control::max_allowed_parallelism, kMostParallelism};
  tbb::task_arena arena;
  std::optional<Nodes> nodes;
  std::optional<ReaderThreads> readers;
};

void LoaderGraph::Impl::show_on(const std::shared_ptr<Trace>& trace) {
  pool->trace = trace;
  chunks.show_on(*trace);
  for (std::size_t i = 0; i < pool->jobs.size(); ++i) {
    pool->jobs[i]->track = &trace->track(fmt::format("slab {}", i));
  }
}

LoaderGraph::Nodes::Nodes(Impl& impl, int threads)
    : plan(graph, [&impl](tbb::flow_control& control) { return impl.next_step(control); }),
      free(graph),
      join(graph),
      spread(graph, flow::serial,
             [&impl](const Join::output_type& input, Spread::output_ports_type& ports) {
               impl.spread(std::get<0>(input), std::get<1>(input), ports);
             }),
      fetch(graph, flow::serial,
            [&impl](const Chunk& chunk, Fetch::gateway_type& gateway) {
              gateway.reserve_wait();
              impl.readers->push([&impl, &gateway, chunk = Chunk(chunk)](int reader) mutable {
                impl.chunks.fetch(chunk, reader);
                gateway.try_put(chunk);
                gateway.release_wait();
              });
            }),
      // As many at once as there are threads and the rest queued, so that earlier slabs are done first.
      work(graph, static_cast<std::size_t>(threads),
           [&impl](const Chunk& chunk, Work::output_ports_type& ports) {
             if (impl.chunks.work(chunk)) {
               std::get<0>(ports).try_put(chunk.job);
             }
           }),
      order(graph, [](SlabJob* const& job) { return static_cast<std::size_t>(job->sequence); }),
      deliver(graph, flow::serial, [&impl](SlabJob* job) { impl.deliver(job); }) {
  flow::make_edge(plan, flow::input_port<0>(join));
  flow::make_edge(free, flow::input_port<1>(join));
  flow::make_edge(join, spread);
  if (impl.reader_threads == 0) {
    flow::make_edge(flow::output_port<0>(spread), work);
  } else {
    flow::make_edge(flow::output_port<0>(spread), fetch);
    flow::make_edge(fetch, work);
  }
  flow::make_edge(flow::output_port<0>(work), order);
  flow::make_edge(order, deliver);
}

PlanStep LoaderGraph::Impl::next_step(tbb::flow_control& control) {
  const std::lock_guard lock(mutex);
  if (position == end) {
    pool->plan(false);
    control.stop();
    return {};
  }
  return {sampler.planned(position++), sequence++, generation};
}

void LoaderGraph::Impl::spread(const PlanStep& step, SlabJob* job, Nodes::Spread::output_ports_type& to) {
  {
    const std::lock_guard lock(mutex);
    ++spread_jobs;
  }
  Slab& slab = job->slab;
  job->planned = step.planned;
  job->sequence = step.sequence;
  job->generation = step.generation;
  job->error = nullptr;
  job->bad.clear();
  slab.wait_until_returned();
  slab.valid = step.planned.valid;
  slab.first_position = step.planned.first_position;
  const std::int64_t samples = slab.samples();
  sampler.indices(step.planned, {slab.ids().data<std::int64_t>(), static_cast<std::size_t>(samples)});
  if (job->track != nullptr) {
    job->since = Trace::Clock::now();
  }
  will_need(slab);
  job->chunks_left.store(static_cast<int>((samples + chunk - 1) / chunk), std::memory_order_relaxed);
  for (std::int64_t begin = 0; begin < samples; begin += chunk) {
    std::get<0>(to).try_put({job, begin, std::min(begin + chunk, samples)});
  }
}

/// The order is known: storage can start on this slab while the ones before it are made.
void LoaderGraph::Impl::will_need(Slab& slab) {
  try {
    chunks.executor().dataset().will_need(
        {slab.ids().data<std::int64_t>(), static_cast<std::size_t>(slab.valid)});
  } catch (const std::exception&) {  // only advice; what is wrong shows when the sample is read
  }
}

void LoaderGraph::Impl::deliver(SlabJob* job) {
  bool wanted;
  job->show("fill");
  pool->take_out();
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
  if (const std::optional<std::string> busy = chunks.busy_with()) {
    return *busy;
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

LoaderGraph::LoaderGraph(const SampleExecutor& executor, const Sampler& sampler, const LoaderOptions& options)
    : impl_(std::make_shared<Impl>(executor, sampler, options)) {}

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
    impl_->pool->plan(true);
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
    impl_->ready_found += std::ssize(impl_->ready);
    const bool came = impl_->changed.wait_for(lock, timeout, [&] { return !impl_->ready.empty(); });
    if (!came) {
      lock.unlock();
      throw MachineError("loader: no batch came in {} s: {}", timeout.count(), impl_->stuck_stage());
    }
    job = impl_->ready.front();
    impl_->ready.pop_front();
  }
  const auto pool = impl_->pool;
  job->show("ready");
  {
    const std::lock_guard lock(pool->mutex);
    ++pool->leased;
  }
  return {job, [pool](SlabJob* leased) {
            leased->show("held");
            {
              const std::lock_guard lock(pool->mutex);
              --pool->leased;
            }
            pool->give_back(leased);
          }};
}

LoaderStatistics LoaderGraph::statistics() const {
  LoaderStatistics sum;
  sum.threads = impl_->threads;
  sum.reader_threads = impl_->reader_threads;
  impl_->chunks.count(sum);
  {
    const std::lock_guard lock(impl_->mutex);
    sum.ready = impl_->ready_found;
  }
  const std::lock_guard lock(impl_->pool->mutex);
  sum.slab_wait = std::chrono::duration<double>(impl_->pool->wait).count();
  return sum;
}

}  // namespace millrace
