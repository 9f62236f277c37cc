#include "pipeline/execute.h"

#include <algorithm>
#include <cstring>
#include <exception>
#include <functional>
#include <iterator>

#include "dataio/mapping.h"

namespace millrace {
namespace {

/// Transforms of the user's own may plan anything; the writer trusts the plan.
void check(const SamplePlan& plan, Size2 source) {
  constexpr std::int64_t kMost = 1 << 17;  // pixels; far from where sums overflow
  const auto lies_in = [](std::int64_t begin, std::int64_t size, std::int64_t all) {
    return begin >= 0 && size > 0 && size <= all && begin <= all - size;
  };
  const auto is_near = [](const Rectangle& r) {
    return std::max({std::abs(r.top), std::abs(r.left), std::abs(r.height), std::abs(r.width)}) <= kMost;
  };
  const auto is_size = [](Size2 size) {
    return size.height > 0 && size.width > 0 && std::max(size.height, size.width) <= kMost;
  };
  const Rectangle& crop = plan.crop;
  if (plan.source != source || !lies_in(crop.top, crop.height, source.height) ||
      !lies_in(crop.left, crop.width, source.width)) {
    throw InputError(
        "transforms: planned a crop of {} x {} at ({}, {}) of an image of {} x {}; it must lie inside",
        crop.height, crop.width, crop.top, crop.left, source.height, source.width);
  }
  if (!is_size(plan.resized) || !is_size(plan.output()) || !is_near(plan.window) ||
      !std::all_of(plan.holes.begin(), plan.holes.end(), is_near)) {
    throw InputError(
        "transforms: planned to resize to {} x {} and to take {} x {} at ({}, {}); sizes must be positive, "
        "and nothing, holes included, beyond {}",
        plan.resized.height, plan.resized.width, plan.window.height, plan.window.width, plan.window.top,
        plan.window.left, kMost);
  }
}

/// Asks for a raw image's memory; an encoded one takes far longer to decode than to fetch.
void prefetch(const Sample& sample) {
  constexpr std::size_t kLine = 64, kMost = 4096;
  if (sample.encoding == Encoding::jpeg || sample.encoding == Encoding::other) {
    return;
  }
  for (std::size_t i = 0; i < std::min(sample.bytes.size(), kMost); i += kLine) {
    __builtin_prefetch(sample.bytes.data() + i);
  }
}

/// Copies bytes that lie elsewhere, in a mapped file say, into the sample's own memory.
void own(Sample& sample, std::vector<std::byte>& bytes) {
  const std::less_equal<> before;
  const bool inside = before(bytes.data(), sample.bytes.data()) &&
                      before(sample.bytes.data() + sample.bytes.size(), bytes.data() + bytes.size());
  if (inside) {
    return;
  }
  if (bytes.size() < sample.bytes.size()) {
    bytes.resize(sample.bytes.size());
  }
  std::copy(sample.bytes.begin(), sample.bytes.end(), bytes.begin());
  sample.bytes = std::span(bytes).first(sample.bytes.size());
}

/// Leaves no sample marked as being made.
class Current {
 public:
  explicit Current(SampleExecutor::Scratch& scratch) : sample_(scratch.sample) {}
  ~Current() { sample_.store(-1, std::memory_order_relaxed); }
  Current(const Current&) = delete;
  Current& operator=(const Current&) = delete;

 private:
  std::atomic<std::int64_t>& sample_;
};

}  // namespace

SampleExecutor::SampleExecutor(std::shared_ptr<const Dataset> dataset, const LoaderOptions& options)
    : dataset_(std::move(dataset)),
      transforms_(parse_transforms(options.transforms)),
      decode_(options.decode),
      seed_(options.seed),
      dtype_(options.dtype),
      channels_(dataset_->info().channels) {
  if (channels_ < 1) {
    throw InputError("loader: the data set says that its images have {} channels, expected at least 1",
                     channels_);
  }
  transforms_.insert(transforms_.end(), options.custom_transforms.begin(), options.custom_transforms.end());
  learn_sizes();
  image_shape_ = {channels_, output_.height, output_.width};
  writer_.emplace(channels_, output_, dtype_, options.mean, options.std);
}

void SampleExecutor::learn_sizes() {
  Scratch scratch;
  const Sample sample = dataset_->read(0, scratch.bytes[0]);
  try {
    first_size_ = scratch.decoder.open(sample, channels_, decode_);
    output_ = make_plan(first_size_, 0, 0).output();
  } catch (const InputError& error) {
    throw InputError("{}: {}", dataset_->describe(0), error.what());
  }
  const bool encoded = sample.encoding == Encoding::jpeg || sample.encoding == Encoding::other;
  constexpr std::int64_t kTaskElements = 64 * 32 * 32 * 3;
  const std::int64_t elements = output_.height * output_.width * channels_;
  chunk_ = encoded ? 2 : static_cast<int>(std::clamp<std::int64_t>(kTaskElements / elements, 1, 64));
  timed_every_ = elements * 16 <= kTaskElements ? 16 : 1;
}

std::vector<FieldSpec> SampleExecutor::fields() const {
  return {{"image", dtype_, image_shape_}, {"label", DType::i64, {}}};
}

SamplePlan SampleExecutor::make_plan(Size2 source, std::int64_t index, std::int64_t epoch) const {
  SamplePlan plan(source);
  SampleRandom random(seed_, epoch, index);
  for (const auto& transform : transforms_) {
    transform->edit(plan, random);
  }
  check(plan, source);
  return plan;
}

void SampleExecutor::make(const Sample& sample, std::int64_t index, std::int64_t epoch, std::byte* image,
                          Scratch& scratch) const {
  const Size2 size = scratch.decoder.open(sample, channels_, decode_);
  const SamplePlan plan = make_plan(size, index, epoch);
  if (plan.output() != output_) {
    throw InputError(
        "its size is {} x {} (height x width) and that of {} is {} x {}, so they do not fit into one batch; "
        "add a "
        "transform that resizes, such as --transform resize:{}",
        size.height, size.width, dataset_->describe(0), first_size_.height, first_size_.width,
        first_size_.height);
  }
  const Pixels pixels = scratch.decoder.decode(plan);
  scratch.clock.lap(Stage::decode, index);
  writer_->write(plan, pixels, image, scratch.pixels);
  scratch.clock.lap(Stage::write, index);
}

void SampleExecutor::fetch(const Slab& slab, std::int64_t begin, std::int64_t end, Fetched& fetched,
                           Scratch& scratch) const {
  const Current current(scratch);
  const auto count = static_cast<std::size_t>(end - begin);
  fetched.samples.resize(count);
  fetched.errors.resize(count);
  fetched.bytes.resize(count);
  scratch.clock.begin(1);
  for (std::size_t i = 0; i < count; ++i) {
    const std::int64_t id = slab.ids().data<std::int64_t>()[begin + static_cast<std::int64_t>(i)];
    if (id < 0) {
      break;  // the padding comes last
    }
    scratch.sample.store(id, std::memory_order_relaxed);
    do {
      fetched.errors[i] = nullptr;
      try {
        fetched.samples[i] = dataset_->read(id, fetched.bytes[i]);
        own(fetched.samples[i], fetched.bytes[i]);
      } catch (...) {
        fetched.errors[i] = std::current_exception();
      }
    } while (!mapped_reads_intact());
    scratch.clock.lap(Stage::read, id);
  }
}

void SampleExecutor::execute(Slab& slab, std::int64_t epoch, std::int64_t begin, std::int64_t end,
                             Scratch& scratch, const Fetched* fetched) const {
  std::exception_ptr error;
  do {
    error = nullptr;
    try {
      fill(slab, epoch, begin, end, scratch, fetched);
    } catch (...) {
      error = std::current_exception();
    }
  } while (!mapped_reads_intact());  // once more: what is lost is then an error of its own
  if (error) {
    std::rethrow_exception(error);
  }
}

void SampleExecutor::fill(Slab& slab, std::int64_t epoch, std::int64_t begin, std::int64_t end,
                          Scratch& scratch, const Fetched* fetched) const {
  const Current current(scratch);
  const std::size_t bytes = writer_->bytes_per_image();
  const auto* ids = slab.ids().data<std::int64_t>();
  auto* labels = slab.field("label").data<std::int64_t>();
  std::byte* image = slab.field("image").raw() + static_cast<std::size_t>(begin) * bytes;
  const std::int64_t valid = std::find(ids + begin, ids + end, -1) - ids;  // the padding comes last
  const auto read = [&](std::int64_t i) {
    if (fetched != nullptr) {
      const auto place = static_cast<std::size_t>(i - begin);
      if (fetched->errors[place]) {
        std::rethrow_exception(fetched->errors[place]);
      }
      return fetched->samples[place];
    }
    scratch.sample.store(ids[i], std::memory_order_relaxed);
    const Sample sample = dataset_->read(ids[i], scratch.bytes[i % 2]);
    scratch.clock.lap(Stage::read, ids[i]);
    return sample;
  };
  scratch.clock.begin(timed_every_ == 1);
  std::int64_t bytes_read = 0;
  Sample next = begin < valid ? read(begin) : Sample{};
  for (std::int64_t i = begin; i < valid; ++i, image += bytes) {
    scratch.clock.begin(i % timed_every_ == 0 ? timed_every_ : 0);
    bytes_read += std::ssize(next.bytes);
    // Reads one ahead, so that memory is on its way while this image is made. Its failure waits for its turn.
    const Sample sample = next;
    std::exception_ptr failed;
    if (i + 1 < valid) {
      try {
        prefetch(next = read(i + 1));
      } catch (...) {
        failed = std::current_exception();
      }
    }
    scratch.sample.store(ids[i], std::memory_order_relaxed);
    try {
      make(sample, ids[i], epoch, image, scratch);
    } catch (const InputError& error) {
      throw InputError("{}: {}", dataset_->describe(ids[i]), error.what());
    }
    labels[i] = sample.label;
    if (failed) {
      std::rethrow_exception(failed);
    }
  }
  scratch.clock.count(std::max(valid, begin) - begin, bytes_read);
  std::fill(labels + std::max(begin, valid), labels + end, std::int64_t{-1});
  std::memset(image, 0, static_cast<std::size_t>(end - std::max(begin, valid)) * bytes);
}

}  // namespace millrace
