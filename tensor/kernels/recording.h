#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tensor/device_memory.h"
#include "tensor/kernels/launch.h"

namespace millrace {

/// The kernels that a thread launched in one pass, in their order and on the memory they had. Replaying them
/// does the same work again without the code around it: no graph, no checks, no allocation.
///
/// Memory that the pass takes and gives back is the recording's own from then on, and each block lies where
/// it lay then; tensors from before the pass are held. What is not a launch is not replayed, so a pass is
/// refused that reads or writes elements on the host, draws random numbers, leaves memory behind that it
/// took, or launches on a GPU.
class Recording {
 public:
  Recording();
  ~Recording();
  Recording(Recording&&) noexcept;
  Recording& operator=(Recording&&) noexcept;

  /// Runs `pass` and keeps its launches. `inputs`, dense and on the CPU, are what a replay may take from
  /// elsewhere. Returns false when the pass cannot be replayed; it did its work all the same.
  bool record(std::span<const Tensor> inputs, const std::function<void()>& pass);
  /// Runs the launches, with inputs of the same types, shapes and strides in place of those recorded. The
  /// launch hook sees them.
  void replay(std::span<const Tensor> inputs);

  std::size_t launches() const { return steps_.size(); }
  /// Why the last `record` returned false.
  const std::string& refusal() const { return refusal_; }

  /// A pass that takes more memory is refused: where steps are so large, nothing is to be won.
  static constexpr std::size_t kMostBytes = std::size_t{16} << 20;

 private:
  class Recorder;
  struct Input {
    std::shared_ptr<Tensor> tensor;  // what the launches have
    std::size_t number;              // of the input that it shows
    std::ptrdiff_t offset;           // bytes from the input's first element to its own
  };
  struct Step {
    std::string_view kernel, operation;
    std::function<void()> run;
    std::vector<const Tensor*> tensors;  // that `run` holds
  };

  static void show(const Step& step);
  friend void refuse_recording(std::string_view reason);

  std::unique_ptr<cpu::OwnBlocks> blocks_;
  std::vector<Input> inputs_;
  std::vector<Step> steps_;
  std::string refusal_;
};

/// Says that this thread does what a recording cannot repeat. Where none is under way this does nothing.
void refuse_recording(std::string_view reason);

}  // namespace millrace
