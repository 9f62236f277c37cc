#include "tensor/kernels/recording.h"

#include <algorithm>
#include <utility>

namespace millrace {

/// Stands between a pass and its kernels while it lives.
class Recording::Recorder {
 public:
  Recorder(Recording& recording, std::span<const Tensor> inputs) : recording_(recording), inputs_(inputs) {
    listen();
  }
  ~Recorder() { stop(); }
  Recorder(const Recorder&) = delete;
  Recorder& operator=(const Recorder&) = delete;

  /// Why what was launched does not stand for the pass; empty when it does.
  std::string verdict() const {
    if (refusal_.empty() && !recording_.blocks_->were_enough()) {
      return fmt::format("it takes more than {} MiB", kMostBytes >> 20);
    }
    if (refusal_.empty() && !recording_.blocks_->are_back()) {
      return "it left memory behind that is still in use";
    }
    return refusal_;
  }
  void refuse(std::string_view reason) { refusal_ = reason; }

 private:
  void listen() {
    outer_hook_ = std::exchange(launch_hook, &hook_);
    outer_blocks_ = cpu::exchange_own_blocks(recording_.blocks_.get());
    recorder = this;
  }
  void stop() {
    launch_hook = outer_hook_;
    cpu::exchange_own_blocks(outer_blocks_);
    recorder = nullptr;
  }

  /// What a kernel does inside is its own business.
  void take(const KernelLaunch& launch) {
    struct Pause {
      explicit Pause(Recorder& paused) : recorder(paused) { recorder.stop(); }
      ~Pause() { recorder.listen(); }
      Recorder& recorder;
    };
    const Pause pause(*this);
    outer_hook_ != nullptr ? (*outer_hook_)(launch) : launch.run();
    if (!refusal_.empty() || !recording_.blocks_->were_enough()) {
      recording_.steps_.clear();  // in vain, and what they hold the pass may have let go of
      return;
    }
    Step step{.kernel = launch.kernel, .operation = launch.operation, .run = {}, .tensors = {}};
    step.tensors.assign(launch.tensors.begin(), launch.tensors.end());
    step.run = launch.keep([&](const Tensor& tensor) {
      std::shared_ptr<Tensor> held = hold(tensor);
      std::ranges::replace(step.tensors, &tensor, held.get());
      return held;
    });
    recording_.steps_.push_back(std::move(step));
  }

  std::shared_ptr<Tensor> hold(const Tensor& tensor) {
    auto held = std::make_shared<Tensor>(tensor);
    if (!tensor.defined() || tensor.numel() == 0) {
      return held;
    }
    if (!tensor.device().is_cpu()) {
      refuse("it runs on a GPU");
      return held;
    }
    for (std::size_t i = 0; i < inputs_.size(); ++i) {
      const std::ptrdiff_t offset = tensor.raw() - inputs_[i].raw();
      if (offset >= 0 && offset < static_cast<std::ptrdiff_t>(inputs_[i].bytes())) {
        recording_.inputs_.push_back({held, i, offset});
        return held;
      }
    }
    if (recording_.blocks_->owns(tensor.raw())) {  // the pass may give it back, and take it again
      const Storage& storage = *tensor.storage();
      *held = Tensor(Storage::wrap(storage.data(), storage.bytes(), kCpu, {}), tensor.offset(),
                     tensor.shape(), tensor.strides(), tensor.dtype());
    }
    return held;
  }

  static thread_local Recorder* recorder;
  friend void millrace::refuse_recording(std::string_view reason);

  Recording& recording_;
  std::span<const Tensor> inputs_;
  LaunchHook hook_ = [this](const KernelLaunch& launch) { take(launch); };
  const LaunchHook* outer_hook_ = nullptr;
  cpu::OwnBlocks* outer_blocks_ = nullptr;
  std::string refusal_;
};

thread_local Recording::Recorder* Recording::Recorder::recorder = nullptr;

Recording::Recording() = default;
Recording::~Recording() = default;
Recording::Recording(Recording&&) noexcept = default;
Recording& Recording::operator=(Recording&&) noexcept = default;

bool Recording::record(std::span<const Tensor> inputs, const std::function<void()>& pass) {
  *this = Recording();
  Recording made;
  made.blocks_ = std::make_unique<cpu::OwnBlocks>(kMostBytes);
  {
    Recorder recorder(made, inputs);
    pass();
    refusal_ = recorder.verdict();
  }
  if (!refusal_.empty()) {
    return false;
  }
  *this = std::move(made);
  return true;
}

void Recording::replay(std::span<const Tensor> inputs) {
  for (const Input& input : inputs_) {
    Tensor& shown = *input.tensor;
    const Tensor& from = inputs[input.number];
    const std::ptrdiff_t start = from.raw() - from.storage()->data() + input.offset;
    shown = Tensor(from.storage(), start / static_cast<std::ptrdiff_t>(size_of(shown.dtype())), shown.shape(),
                   shown.strides(), shown.dtype());
  }
  for (const Step& step : steps_) {
    if (launch_hook == nullptr) [[likely]] {
      step.run();
    } else {
      show(step);
    }
  }
}

/// Without a copy or an allocation, for what the hook measures is the time between the kernels, too.
void Recording::show(const Step& step) {
  (*launch_hook)({.kernel = step.kernel,
                  .operation = step.operation,
                  .tensors = step.tensors,
                  .run = std::ref(step.run),
                  .keep = [&step](const Hold&) { return step.run; }});
}

void refuse_recording(std::string_view reason) {
  if (Recording::Recorder::recorder != nullptr) {
    Recording::Recorder::recorder->refuse(reason);
  }
}

}  // namespace millrace
