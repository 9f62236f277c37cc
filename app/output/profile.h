#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "app/output/json_log.h"
#include "tensor/device.h"
#include "tensor/dtype.h"

namespace millrace::app {

/// Where the time of training steps goes, kernel by kernel: a GPU's by timed events on its streams.
class Profile {
 public:
  /// Measures first what a core, or the GPU, does at most in this type.
  Profile(DType dtype, Device device);
  ~Profile();
  Profile(const Profile&) = delete;
  Profile& operator=(const Profile&) = delete;

  /// Each thread that computes calls it, as often as it likes, before its first kernel; from then on this
  /// profile must stay. The convolutions of the time up to the first `start` are kept.
  void watch();
  /// Forgets what was timed. Not while a step runs.
  void start();

  /// What was found over `steps` steps that took `seconds`, of `images` each. Not while a step runs.
  struct Report;
  Report report(std::int64_t steps, double seconds, std::int64_t images) const;

 private:
  struct Thread;
  double convolutions_alone() const;

  Device device_;
  double peak_;
  std::mutex mutex_;
  std::vector<std::unique_ptr<Thread>> threads_;
};

/// Times are of one step, on average over the threads.
struct Profile::Report {
  struct Row {
    std::string operation;  ///< "conv2d_forward", "unary gelu"
    std::string shapes;     ///< Of the tensors, as far as they differ; at most two.
    double calls = 0;       ///< A step, over all threads.
    double milliseconds = 0;
    double share = 0;  ///< Of the step.
    /// A second; 0 where no operations are counted, as of all but convolutions and products. Convolutions
    /// count as if they were direct: Winograd's come to more than the peak.
    double gigaflops = 0;
  };
  std::vector<Row> rows;  ///< Longest first.
  Device device;
  double step_milliseconds = 0;     ///< The rows and `between` together.
  double between_milliseconds = 0;  ///< The engine, sums over replicas and waiting for them.
  double launches = 0;              ///< Of a thread.
  double peak_gigaflops = 0;        ///< Of a matrix product on one core, or the GPU.
  double limit_images_per_second =
      0;  ///< Were there nothing but the convolutions, back to back; 0 without any.
  double images_per_second = 0;

  std::string to_string() const;
  Json to_json() const;
};

}  // namespace millrace::app
