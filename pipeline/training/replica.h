#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <unordered_map>
#include <vector>

#include "distributed/buckets.h"
#include "distributed/communicator.h"
#include "distributed/shards.h"
#include "distributed/subtree_sum.h"
#include "nn/flat.h"
#include "nn/optimizers/lookahead.h"
#include "nn/optimizers/optimizer.h"
#include "nn/switches.h"
#include "pipeline/training/class_counts.h"
#include "pipeline/training/feeder.h"
#include "pipeline/training/peers.h"
#include "pipeline/training/shard_recording.h"
#include "pipeline/training/trainer.h"
#include "pipeline/training/travelling_losses.h"
#include "tensor/kept_weights.h"

namespace millrace {

/// What all replicas do together in one step.
struct StepTask {
  const Batch& batch;
  const LossFunction& loss;
  std::int64_t valid = 0;  ///< Samples of the global batch.
  std::int64_t step = 0;
  TravellingLosses& losses;  ///< Out: the loss of each shard of this process.
};

/// What all replicas do together for one batch of an evaluation.
struct EvaluationTask {
  const Batch& batch;
  const ScoreFunction& score;
  std::span<double> losses;  ///< Out: the loss of each piece, see `pieces_of`.
};

/// Evaluation cuts shards into pieces of so many samples at most, and replicas take them in turn: which
/// samples are computed together does not depend on the number of replicas.
inline constexpr std::int64_t kPieceSamples = 64;
std::int64_t pieces_of(const Batch& batch);
/// Adds the losses of its pieces to those of the batch's shards.
void add_pieces(const Batch& batch, std::span<const double> pieces, std::span<double> shards);

/// One copy of the network, used by one thread: it computes the gradients of its shards, sums them with those
/// of the other replicas, and takes the same step as they do.
class Replica {
 public:
  /// Weights are drawn from options.seed; the calling thread's generator is left as it was.
  Replica(const Trainer::MakeModule& make_module, const nn::OptimizerOptions& optimizer,
          const TrainerOptions& options, Communicator& communicator);

  nn::Module& module() { return *module_; }
  nn::Optimizer& optimizer() { return optimizer_; }
  std::optional<nn::Lookahead>& lookahead() { return lookahead_; }
  /// What the optimizer goes on from, and in f16 the scale of the loss.
  nn::StateDict optimizer_state() const;
  /// Its state; empty where there is none.
  nn::StateDict average() const { return lookahead_ ? lookahead_->state_dict() : nn::StateDict(); }
  double idle_seconds() { return feeder_.idle_seconds(); }
  /// Training modes and `requires_grad` as they are now.
  std::vector<std::uint8_t> switches() const { return switches_.state(); }
  /// What of a replica lies on the CPU alone: the switches, then for how many steps each parameter was
  /// frozen.
  std::vector<double> host_state() const;
  void set_host_state(std::span<const double> numbers);
  /// Takes over the state dictionary and the optimizer's state (and the average) of replica 0, but for what
  /// lies on the CPU; all replicas call it.
  void synchronize();
  void step(const StepTask& task);
  /// A step on one shard, without the others' gradients, after which all is as it was: on a GPU, engines are
  /// chosen and kernels loaded by the first one. CUDA_MODULE_LOADING=EAGER, which would load what only later
  /// steps launch, is left to users: CUDA reads it once, maybe before us, and then loads all kernels of cuDNN
  /// and cuBLASLt to each GPU.
  void rehearse(const StepTask& task);
  /// After a failure: waits for what is still enqueued, which uses memory that the caller may free now.
  void drain() noexcept;
  /// Puts the network into evaluation mode, with its moving average if it has one, and clears the counts.
  void begin_evaluation(bool confusion);
  /// The modes, and the network, are as they were before.
  void end_evaluation();
  /// Counts the predictions for its pieces of the batch.
  void evaluate(const EvaluationTask& task);
  const ClassCounts& counts() const { return counts_; }
  /// The network may have changed: what was recorded of a step is no longer replayed.
  void forget_recorded() {
    recording_.forget();
    kept_.clear();  // it may have been written through pointers
  }

 private:
  void begin(const StepTask& task);
  void run_shard(const StepTask& task, int shard, bool last);
  Tensor run_pass(const LossFunction& loss_function, const Batch& batch, bool last);
  void run_shards(const StepTask& task);
  void run_subtrees(const StepTask& task);
  void update(std::int64_t begin, std::int64_t end);
  void step_if_finite();
  bool evaluates_average() const { return lookahead_ && !lookahead_->options().go_on_from_average; }
  std::size_t carry(unsigned shard);
  int local_rank() const { return communicator_.rank() % options_.replicas; }
  double evaluate_piece(const ScoreFunction& score, const Batch& shard, std::int64_t first,
                        std::int64_t count);
  void count(const Tensor& logits, const Tensor& labels, const Tensor& ids);
  std::int64_t bucket_bytes();
  Buckets make_buckets();

  const TrainerOptions options_;
  Communicator& communicator_;
  const Device device_;
  Feeder feeder_;
  std::unique_ptr<nn::Module> module_;
  nn::FlatParameters flat_;
  nn::Optimizer optimizer_;
  nn::Switches switches_;
  std::optional<nn::EvaluationScope> evaluation_;  // while there is one
  std::optional<nn::Lookahead> lookahead_;
  Tensor loss_scale_;  // the state of update_loss_scale; undefined but for f16
  // Partial sums of earlier shards of this step: element i holds 2^i of them, as bit i of a binary counter.
  std::vector<Tensor> partials_;
  nn::OptimizerStep step_;  // this one; each bucket is updated when it is summed
  Buckets buckets_;
  std::optional<SubtreeSum> subtrees_;  // in place of buckets where the ranks' shards are no subtrees
  std::unordered_map<const void*, std::size_t> slot_of_;  // by parameter; empty with one bucket
  ShardRecording recording_;
  KeptWeights kept_;    // for the shards of a step and the pieces of an evaluation
  ClassCounts counts_;  // of the evaluation
};

}  // namespace millrace
