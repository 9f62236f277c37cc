#include "pipeline/image/execute.h"

#include <algorithm>
#include <cstring>
#include <exception>
#include <functional>
#include <iterator>

#include "base/philox.h"
#include "dataio/mapping.h"

namespace millrace {
namespace {

// So that these draws have nothing in common with those of samples.
constexpr std::uint64_t kSubstituteKey = 0x73756273, kMixKey = 0x6D697865;

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
  if (sample.encoding == Encoding::jpeg || sample.encoding == Encoding::png) {
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
      bad_samples_(options.bad_samples),
      decode_(options.decode),
      seed_(options.seed),
      dtype_(options.dtype),
      channels_(dataset_->info().channels) {
  if (channels_ < 1) {
    throw InputError("loader: the data set says that its images have {} channels, expected at least 1",
                     channels_);
  }
  std::string list = options.transforms;
  mix_ = BatchMix::take_from(list);
  if (mix_.active() && dataset_->info().classes.empty()) {
    throw InputError("transforms: mixup and cutmix need to know the classes, and the data set names none");
  }
  transforms_ = parse_transforms(list);
  transforms_.insert(transforms_.end(), options.custom_transforms.begin(), options.custom_transforms.end());
  learn_sizes();
  image_shape_ = {channels_, output_.height, output_.width};
  writer_.emplace(channels_, output_, dtype_, options.mean, options.std);
}

std::shared_ptr<const PixelScale> SampleExecutor::pixel_scale() const {
  if (dtype_ != DType::u8) {
    return nullptr;
  }
  return std::make_shared<PixelScale>(writer_->pixel_scale(make_plan(first_size_, first_, 0).normalize));
}

/// From the first sample, or the first good one where bad ones may come.
void SampleExecutor::learn_sizes() {
  constexpr std::int64_t kMostTries = 100;
  const std::int64_t tries =
      bad_samples_ == BadSamples::fail ? 1 : std::clamp<std::int64_t>(dataset_->size(), 1, kMostTries);
  std::exception_ptr error;
  for (first_ = 0; first_ < tries; ++first_) {
    try {
      return learn_sizes_from(first_);
    } catch (const InputError&) {
      error = error ? error : std::current_exception();
    }
  }
  std::rethrow_exception(error);
}

void SampleExecutor::learn_sizes_from(std::int64_t index) {
  Scratch scratch;
  const Sample sample = dataset_->read(index, scratch.bytes[0]);
  try {
    const Size2 size = scratch.decoder.open(sample, channels_, decode_);
    output_ = make_plan(size, index, 0).output();
    first_size_ = size;
  } catch (const InputError& error) {
    throw InputError("{}: {}", dataset_->describe(index), error.what());
  }
  const bool encoded = sample.encoding == Encoding::jpeg || sample.encoding == Encoding::png;
  constexpr std::int64_t kTaskElements = 64 * 32 * 32 * 3;
  const std::int64_t elements = output_.height * output_.width * channels_;
  chunk_ = encoded ? 2 : static_cast<int>(std::clamp<std::int64_t>(kTaskElements / elements, 1, 64));
  timed_every_ = elements * 16 <= kTaskElements ? 31 : 1;  // odd: no regular place in a chunk
}

std::vector<FieldSpec> SampleExecutor::fields() const {
  std::vector<FieldSpec> fields = {{"image", dtype_, image_shape_}, {"label", DType::i64, {}}};
  if (mix_.active()) {
    fields.push_back({"soft_label", DType::f32, {std::ssize(dataset_->info().classes)}});
  }
  return fields;
}

SamplePlan SampleExecutor::make_plan(Size2 source, std::int64_t index, std::int64_t epoch) const {
  SamplePlan plan(source);
  SampleRandom random(seed_, epoch, index);
  try {
    for (const auto& transform : transforms_) {
      transform->edit(plan, random);
    }
    check(plan, source);
  } catch (const InputError& error) {
    if (source == first_size_) {  // which they did fit: it is not the size
      throw TransformError("{}", error.what());
    }
    throw;
  }
  return plan;
}

void SampleExecutor::make(const Sample& sample, std::int64_t index, std::int64_t epoch, std::byte* image,
                          Scratch& scratch) const {
  try {
    const Size2 size = scratch.decoder.open(sample, channels_, decode_);
    const SamplePlan plan = make_plan(size, index, epoch);
    if (plan.output() != output_) {
      throw InputError(
          "its size is {} x {} (height x width) and that of {} is {} x {}, so they do not fit into one "
          "batch; "
          "add a transform that resizes, such as --transform resize:{}",
          size.height, size.width, dataset_->describe(first_), first_size_.height, first_size_.width,
          first_size_.height);
    }
    const std::int64_t classes = std::ssize(dataset_->info().classes);
    if (mix_.active() && (sample.label < 0 || sample.label >= classes)) {
      throw InputError("its label is {}, and there are {} classes to mix", sample.label, classes);
    }
    const Pixels pixels = scratch.decoder.decode(plan);
    scratch.clock.lap(Stage::decode, index);
    writer_->write(plan, pixels, image, scratch.pixels);
    scratch.clock.lap(Stage::write, index);
  } catch (const TransformError& error) {
    throw TransformError("{}: {}", dataset_->describe(index), error.what());
  } catch (const InputError& error) {
    throw InputError("{}: {}", dataset_->describe(index), error.what());
  }
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
  scratch.bad.clear();
  for (;;) {
    error = nullptr;
    try {
      fill(slab, epoch, begin, end, scratch, fetched);
    } catch (...) {
      error = std::current_exception();
    }
    if (mapped_reads_intact()) {
      break;
    }
    // Once more: what is lost is then an error of its own, and what was taken for bad may not be.
    for (const BadSample& bad : scratch.bad) {
      slab.ids().data<std::int64_t>()[bad.place] = bad.id;
    }
    scratch.bad.clear();
  }
  if (error) {
    std::rethrow_exception(error);
  }
}

SampleExecutor::Read SampleExecutor::read(std::int64_t id, std::vector<std::byte>& bytes,
                                          Scratch& scratch) const {
  scratch.sample.store(id, std::memory_order_relaxed);
  try {
    const Sample sample = dataset_->read(id, bytes);
    scratch.clock.lap(Stage::read, id);
    prefetch(sample);
    return {sample, nullptr};
  } catch (...) {
    return {{}, std::current_exception()};
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
  const auto bring = [&](std::int64_t i) -> Read {
    if (fetched != nullptr) {
      const auto place = static_cast<std::size_t>(i - begin);
      return {fetched->samples[place], fetched->errors[place]};
    }
    return read(ids[i], scratch.bytes[i % 2], scratch);
  };
  scratch.clock.begin(timed_every_ == 1);
  std::int64_t bytes_read = 0;
  Read next = begin < valid ? bring(begin) : Read{};
  for (std::int64_t i = begin; i < valid; ++i, image += bytes) {
    scratch.clock.begin_one_of(timed_every_);
    // Reads one ahead, so that memory is on its way while this image is made. Its failure waits for its turn.
    const Read now = next;
    next = i + 1 < valid ? bring(i + 1) : Read{};
    bytes_read += std::ssize(now.sample.bytes);
    scratch.sample.store(ids[i], std::memory_order_relaxed);
    try {
      if (now.error) {
        std::rethrow_exception(now.error);
      }
      make(now.sample, ids[i], epoch, image, scratch);
      labels[i] = now.sample.label;
    } catch (const TransformError&) {
      throw;
    } catch (const InputError& error) {
      if (bad_samples_ == BadSamples::fail) {
        throw;
      }
      replace(slab, epoch, i, error.what(), scratch);
    }
  }
  scratch.clock.count(std::max(valid, begin) - begin, bytes_read);
  std::fill(labels + std::max(begin, valid), labels + end, std::int64_t{-1});
  std::memset(image, 0, static_cast<std::size_t>(end - std::max(begin, valid)) * bytes);
}

/// In a handler's place of sample `i`, which is bad: leaves zeros there, or what comes instead.
void SampleExecutor::replace(Slab& slab, std::int64_t epoch, std::int64_t i, std::string_view reason,
                             Scratch& scratch) const {
  constexpr int kMostTries = 4;
  const std::size_t bytes = writer_->bytes_per_image();
  std::int64_t& id = slab.ids().data<std::int64_t>()[i];
  std::int64_t& label = slab.field("label").data<std::int64_t>()[i];
  std::byte* image = slab.field("image").raw() + static_cast<std::size_t>(i) * bytes;
  BadSample bad{.epoch = epoch, .id = id, .reason = std::string(reason), .place = i};
  const std::uint64_t key =
      mix(mix(mix(seed_, kSubstituteKey), static_cast<std::uint64_t>(epoch)), static_cast<std::uint64_t>(id));
  const int tries = bad_samples_ == BadSamples::substitute ? kMostTries : 0;
  for (int attempt = 0; attempt < tries && bad.substitute < 0; ++attempt) {
    const auto candidate = static_cast<std::int64_t>(mix(key, static_cast<std::uint64_t>(attempt)) %
                                                     static_cast<std::uint64_t>(dataset_->size()));
    try {
      const Sample sample = dataset_->read(candidate, scratch.bytes[2]);
      make(sample, candidate, epoch, image, scratch);
      label = sample.label;
      bad.substitute = candidate;
    } catch (const InputError&) {  // the next one then; its own place will tell of it
    }
  }
  id = bad.substitute;
  if (id < 0) {
    label = -1;
    std::memset(image, 0, bytes);
  }
  scratch.bad.push_back(std::move(bad));
}

void SampleExecutor::finish(Slab& slab, const PlannedShard& planned) const {
  const std::int64_t filled = slab.valid;
  slab.close_gaps();
  auto* labels = slab.field("label").data<std::int64_t>();
  std::fill(labels + slab.valid, labels + filled, std::int64_t{-1});
  if (mix_.active()) {
    const std::uint64_t key = mix(mix(seed_, kMixKey), static_cast<std::uint64_t>(planned.step));
    BatchMix::apply(slab, mix_.draw(SampleRandom(key, planned.epoch, planned.first_position), output_));
  }
}

}  // namespace millrace
