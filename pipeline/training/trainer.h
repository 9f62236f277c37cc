#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "distributed/communicator.h"
#include "distributed/group/process_group.h"
#include "distributed/shards.h"
#include "nn/models/models.h"
#include "nn/optimizers/lookahead.h"
#include "nn/optimizers/optimizer.h"
#include "pipeline/image/loader.h"
#include "pipeline/training/step_loss.h"

namespace millrace {

struct TrainerOptions {
  int replicas = 0;  ///< In this process. 0: the largest power of two that the cores (or GPUs) and the shards
                     ///< allow; one where several processes share the machine.
  int shards = 0;    ///< 0: as many as replicas. Fixes the arithmetic: equal shards give equal bits on any
                     ///< number of replicas and processes.
  /// The processes that train together, each with equally many replicas; none: this one alone. Where they are
  /// no power of two, each has one replica.
  std::shared_ptr<ProcessGroup> processes = nullptr;
  /// Shards must divide it, and are chosen so; 0 leaves that to the loader.
  std::int64_t batch_size = 0;
  /// Where the replicas compute: the CPU, one GPU that they share, or GPUs of which each gets one.
  std::vector<Device> devices = {kCpu};
  /// Of images and activations: f32 or bf16, on GPUs also f16 with dynamic loss scaling; weights stay f32.
  DType dtype = DType::f32;
  std::uint64_t seed = 0;                              ///< Of the initial weights and of dropout.
  nn::Schedule schedule = nn::constant_schedule();     ///< Of the learning rate.
  std::optional<nn::LookaheadOptions> lookahead = {};  ///< An average of the weights, kept beside them.
  /// How long a replica waits for its peers.
  std::chrono::duration<double> timeout = std::chrono::minutes(5);
  /// Gradients go out in pieces of this size during the backward pass. 0: between GPUs of
  /// `overlapping_bucket_bytes`, else in one piece after it, which is best where the core that computes also
  /// communicates. Never changes a bit.
  std::int64_t bucket_bytes = 0;
  /// On CPUs: record what the kernels of a shard's pass are, and replay that for each full shard that
  /// follows, so that small steps are kernels alone. Never changes a bit. The loss function and the network
  /// are then not called in each step: what they compute must follow from the network and the tensors of the
  /// batch, and a loss of the same C++ type counts as the same one: call `module()` to record anew. A pass
  /// that cannot be replayed (see tensor/kernels/recording.h) runs as ever.
  bool replay = false;
  /// tree: the same bits on any number of replicas. engine: NCCL's own order of sums between GPUs.
  SumOrder sum_order = SumOrder::tree;
};

/// The sum over the valid samples of a batch, as a differentiable scalar. All replicas call it, each in its
/// own thread; several on GPUs once more for each new form of a shard, before the step, to rehearse it.
using LossFunction = std::function<Variable(nn::Module& net, const Batch& batch)>;

struct StepResult {
  StepLoss loss;  ///< Sum over the valid samples.
  std::int64_t valid = 0;
};

/// Class scores [n, classes] of images [n, C, H, W]; all replicas call it, each in its own thread.
using ScoreFunction = std::function<Variable(nn::Module& net, const Variable& images)>;

/// How many samples there are, of a class or of all, and for how many of them its score was the highest.
struct ClassCount {
  std::int64_t correct = 0, total = 0;
  double accuracy() const {
    return total > 0 ? static_cast<double>(correct) / static_cast<double>(total) : 0;
  }
  bool operator==(const ClassCount&) const = default;
};

struct EvaluationOptions {
  /// Asked batch by batch: whether to end early, with what there is.
  std::function<bool()> stop = {};
  /// Count each pair of a true and a predicted class, unless there are more than kMostConfusionClasses.
  bool confusion = false;
};
inline constexpr std::int64_t kMostConfusionClasses = 1000;

struct Evaluation : ClassCount {
  double loss = 0;  ///< Mean over the samples.
  std::vector<ClassCount> classes = {};
  /// Rows are true classes, columns predictions; empty unless asked for, and for too many classes.
  std::vector<std::vector<std::int64_t>> confusion = {};
  /// @throws InputError when there is no such class.
  double class_accuracy(int label) const;
};

/// What a training goes on from, besides its data: tensors on the CPU, by PyTorch's names.
struct TrainerState {
  std::int64_t steps = 0;
  nn::StateDict weights;       ///< Parameters and buffers.
  nn::StateDict optimizer;     ///< As Optimizer::state_dict gives it; in f16 with "loss_scale".
  nn::StateDict average = {};  ///< As Lookahead::state_dict gives it, where there is one.
  std::string engines = {};    ///< On GPUs: of convolutions, as EngineChoices::bytes gives them.
};

/// Trains replicas of one network data-parallel, in one process or in each of a group.
///
/// Each replica is a thread with a copy of the model; it computes the gradients of its shards, which are
/// summed on a fixed binary tree over the shards, so that weights do not depend on the number of replicas;
/// then each takes the same step. An exception in one replica aborts its peers and is thrown from `step`.
/// See docs/design.md.
class Trainer {
 public:
  using MakeModule = std::function<std::unique_ptr<nn::Module>()>;
  Trainer(MakeModule make_module, const nn::OptimizerOptions& optimizer, TrainerOptions options = {});
  ~Trainer();
  Trainer(const Trainer&) = delete;
  Trainer& operator=(const Trainer&) = delete;

  int replicas() const;  ///< In this process.
  int shards() const;    ///< Of a batch, over all processes.
  /// Parameters whose name contains `word` get options, and a schedule, of their own, on all replicas: see
  /// nn::Optimizer::group.
  void group(std::string_view word, const nn::OptimizerOptions& options, const nn::Schedule& schedule = {});
  /// One step on one global batch, of which `batch` holds the shards of this process; without a valid sample
  /// it only counts. All processes call it, and get the sums over all; on their GPUs the first step calls
  /// `loss` once more. After a failure in a replica every later call throws.
  StepResult step(const Batch& batch, const LossFunction& loss);
  /// Accuracy over one epoch of `loader` (padded, not shuffled), on all replicas of all processes, each of
  /// which loads its shards. `score` may ask the network more than once: nn::average_over_augmentations.
  /// Afterwards each module is in the mode it was in. @throws InputError for a label that the network has no
  /// class for.
  Evaluation evaluate(Loader& loader, const ScoreFunction& score = &nn::Module::operator(),
                      const EvaluationOptions& options = {});
  /// At the end of a training with lookahead or a moving average: its weights and running statistics become
  /// the average, on all replicas. Otherwise nothing happens. All processes call it.
  void finish();
  /// The network of replica 0, between steps. What is changed in it (weights loaded, say, modes, parameters
  /// frozen) reaches the other replicas at the next `step` or `evaluate`; of several processes, that of rank
  /// 0 reaches the others. Recorded steps are recorded anew. Modes and `requires_grad` may be changed through
  /// a reference that was kept; for weights and buffers, call this each time.
  nn::Module& module();
  std::string weights_hash();
  std::int64_t steps() const;
  /// How long GPUs had nothing to do between two steps so far, on average over the replicas: data or the host
  /// came late. 0 on the CPU.
  double idle_seconds() const;
  const TrainerOptions& options() const;   ///< With replicas and shards filled in.
  const nn::Optimizer& optimizer() const;  ///< Of replica 0.

  /// A copy of all it takes to go on, between steps.
  TrainerState state() const;
  /// Goes on from a state, on all replicas, of which there may be another number.
  /// @throws InputError naming the tensors that do not fit this network.
  void restore(const TrainerState& state);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// `options` with replicas and shards filled in where they are 0, so that a Loader can be made with the same
/// shards, and with those of this process, `local_shards`.
///
/// Both are powers of two, replicas divide shards, and shards divide the batch where `batch_size` is given.
/// @throws InputError naming the values when what was asked for breaks these rules, or the device is not
/// there.
/// What is resolved already stays as it is.
TrainerOptions resolve(TrainerOptions options);
/// The shards of this process, of resolved options.
ShardRange local_shards(const TrainerOptions& options);

}  // namespace millrace
