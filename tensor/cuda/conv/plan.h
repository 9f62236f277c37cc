#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "tensor/cuda/conv/cudnn.h"
#include "tensor/gpu/arithmetic.h"
#include "tensor/gpu/engine_choices.h"
#include "tensor/kernels/options.h"
#include "tensor/shape.h"

namespace millrace::cuda {

enum class Direction : std::uint8_t { forward, backward_data, backward_weight };

/// All that an engine is chosen by, the device aside. Images are channels-last, weights O, H, W, I / groups
/// in memory, and all three of one type: cuDNN 9.19 has no engine that writes f32 gradients of bf16 or f16
/// factors.
struct Convolution {
  Direction direction = Direction::forward;
  DType dtype = DType::f32;
  Shape x, weight, out;  ///< N, C, H, W; O, I / groups, H, W; N, O, H', W'
  Conv2dOptions params;
  std::int64_t alignment = 16;  ///< Bytes that all three addresses are multiples of.
  GpuArithmetic arithmetic;

  /// In one line, as part of messages and keys.
  std::string to_string() const;
};

/// A convolution made ready for one device and one engine.
class ConvolutionPlan {
 public:
  std::int64_t workspace_bytes() const { return workspace_bytes_; }
  const EngineChoice& choice() const { return choice_; }
  /// Enqueues on the handle's stream. What is not the direction's result is read. @throws cudnn::Failure.
  void run(cudnnHandle_t handle, void* x, void* weight, void* out, void* workspace) const;

 private:
  friend class ConvolutionGraph;
  ConvolutionPlan(cudnn::Descriptor plan, EngineChoice choice);

  cudnn::Descriptor plan_;
  EngineChoice choice_;
  std::int64_t workspace_bytes_ = 0;
};

/// The convolution in cuDNN's words, for a device of the given properties, which need not be here. Plans may
/// outlive it. All members throw cudnn::Failure.
class ConvolutionGraph {
 public:
  ConvolutionGraph(const Convolution& convolution, cudnn::Descriptor device_properties);

  /// Plans by cuDNN's heuristics (mode A, then B, then the fallbacks), best first: engines that run here,
  /// compiled beforehand, with the arithmetic asked for and a bounded workspace; at most `most`, and few of
  /// one engine.
  std::vector<ConvolutionPlan> candidates(std::size_t most) const;
  /// The plan of a choice made before; nothing when it cannot run here or is not allowed now.
  std::optional<ConvolutionPlan> plan_of(const EngineChoice& choice) const;
  const cudnn::Descriptor& descriptor() const { return graph_; }

 private:
  bool allows(const cudnn::Descriptor& engine) const;
  std::optional<ConvolutionPlan> finish(const cudnn::Descriptor& config, EngineChoice choice) const;

  DType dtype_;
  GpuArithmetic arithmetic_;
  cudnn::Descriptor device_;
  cudnn::Descriptor graph_;
};

}  // namespace millrace::cuda
