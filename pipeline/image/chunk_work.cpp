#include "pipeline/image/chunk_work.h"

#include <algorithm>
#include <iterator>
#include <new>
#include <utility>

namespace millrace {

void SlabJob::show(const char* what) {
  if (track == nullptr) {
    return;
  }
  const auto now = Trace::Clock::now();
  track->add(what, since, now, "step", planned.step);
  since = now;
}

/// A worker's memory for the time of one chunk. The arena's thread index will not do: it can exceed
/// max_concurrency.
class ChunkWork::Borrowed {
 public:
  explicit Borrowed(ChunkWork& from) : from_(from) {
    const std::lock_guard lock(from_.mutex_);
    scratch_ = from_.free_workers_.back();
    from_.free_workers_.pop_back();
  }
  ~Borrowed() {
    const std::lock_guard lock(from_.mutex_);
    from_.free_workers_.push_back(scratch_);
  }
  Borrowed(const Borrowed&) = delete;
  Borrowed& operator=(const Borrowed&) = delete;
  Scratch& operator*() const { return *scratch_; }

 private:
  ChunkWork& from_;
  Scratch* scratch_;
};

ChunkWork::ChunkWork(const SampleExecutor& executor, const LoaderOptions& options,
                     const std::atomic<std::int64_t>& generation)
    : executor_(executor),
      generation_(generation),
      workers_(static_cast<std::size_t>(std::max(options.threads, 2))),  // an arena has two places at least
      readers_(static_cast<std::size_t>(options.reader_threads)) {
  for (Scratch& each : workers_) {
    free_workers_.push_back(&each);
  }
}

void ChunkWork::fetch(Chunk& chunk, int reader) {
  if (chunk.job->generation != generation_.load(std::memory_order_relaxed)) {
    return;
  }
  std::unique_ptr<SampleExecutor::Fetched> fetched;
  {
    const std::lock_guard lock(mutex_);
    if (!free_fetched_.empty()) {
      fetched = std::move(free_fetched_.back());
      free_fetched_.pop_back();
    }
  }
  try {
    if (fetched == nullptr) {
      fetched = std::make_unique<SampleExecutor::Fetched>();
    }
    executor_.fetch(chunk.job->slab, chunk.begin, chunk.end, *fetched,
                    readers_[static_cast<std::size_t>(reader)]);
    chunk.fetched = fetched.release();
  } catch (const std::bad_alloc&) {  // the worker reads, with the memory that it has
  }
}

void ChunkWork::make(const Chunk& chunk) {
  const Borrowed borrowed(*this);
  Scratch& worker = *borrowed;
  SlabJob& job = *chunk.job;
  Trace::Track* track = worker.clock.track();
  const auto begin = track != nullptr ? Trace::Clock::now() : Trace::Clock::time_point();
  executor_.execute(job.slab, job.planned.epoch, chunk.begin, chunk.end, worker, chunk.fetched);
  if (track != nullptr) {
    track->add("chunk", begin, Trace::Clock::now(), "step", job.planned.step);
  }
  if (!worker.bad.empty()) {
    const std::lock_guard lock(job.mutex);
    std::move(worker.bad.begin(), worker.bad.end(), std::back_inserter(job.bad));
  }
}

bool ChunkWork::work(const Chunk& chunk) {
  SlabJob& job = *chunk.job;
  try {
    if (job.generation == generation_.load(std::memory_order_relaxed)) {
      make(chunk);
    }
  } catch (...) {
    const std::lock_guard lock(job.mutex);
    if (job.error == nullptr || chunk.begin < job.error_chunk) {
      job.error = std::current_exception();
      job.error_chunk = chunk.begin;
    }
  }
  if (chunk.fetched != nullptr) {
    chunk.fetched->errors.clear();  // before the consumer can get hold of the one that the slab has
    const std::lock_guard lock(mutex_);
    free_fetched_.emplace_back(chunk.fetched);
  }
  if (job.chunks_left.fetch_sub(1, std::memory_order_acq_rel) > 1) {
    return false;
  }
  finish(job);
  return true;
}

/// By whoever did a slab's last chunk.
void ChunkWork::finish(SlabJob& job) {
  if (job.error != nullptr || job.generation != generation_.load(std::memory_order_relaxed)) {
    return;
  }
  try {
    std::sort(job.bad.begin(), job.bad.end(), [](const auto& a, const auto& b) { return a.place < b.place; });
    executor_.finish(job.slab, job.planned);
  } catch (...) {
    job.error = std::current_exception();
  }
}

std::optional<std::string> ChunkWork::busy_with() const {
  for (const auto& [threads, what] : {std::pair{&readers_, "a reader thread is reading"},
                                      std::pair{&workers_, "a worker is reading or decoding"}}) {
    for (const Scratch& each : *threads) {
      const std::int64_t sample = each.sample.load(std::memory_order_relaxed);
      if (sample >= 0) {
        return fmt::format("{} sample {}", what, sample);  // describing it might read what hangs
      }
    }
  }
  return std::nullopt;
}

void ChunkWork::count(LoaderStatistics& sum) const {
  for (const auto* threads : {&workers_, &readers_}) {
    for (const Scratch& each : *threads) {
      sum.read += each.clock.seconds(Stage::read);
      sum.decode += each.clock.seconds(Stage::decode);
      sum.write += each.clock.seconds(Stage::write);
      sum.samples += each.clock.samples();
      sum.bytes += each.clock.bytes();
    }
  }
}

void ChunkWork::show_on(Trace& trace) {
  for (std::size_t i = 0; i < workers_.size(); ++i) {
    workers_[i].clock.show_on(trace.track(fmt::format("worker {}", i)));
  }
  for (std::size_t i = 0; i < readers_.size(); ++i) {
    readers_[i].clock.show_on(trace.track(fmt::format("reader {}", i)));
  }
}

}  // namespace millrace
