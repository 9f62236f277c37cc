#include <algorithm>

#include "pipeline/training/replica.h"

namespace millrace {

std::int64_t pieces_of(const Batch& batch) {
  std::int64_t pieces = 0;
  for (int i = 0; i < batch.shards(); ++i) {
    pieces += (batch.shard(i).valid + kPieceSamples - 1) / kPieceSamples;
  }
  return pieces;
}

void add_pieces(const Batch& batch, std::span<const double> pieces, std::span<double> shards) {
  auto piece = pieces.begin();
  for (int i = 0; i < batch.shards(); ++i) {
    for (std::int64_t first = 0; first < batch.shard(i).valid; first += kPieceSamples) {
      shards[static_cast<std::size_t>(i)] += *piece++;
    }
  }
}

void Replica::begin_evaluation(bool confusion) {
  if (evaluates_average()) {
    lookahead_->exchange();
  }
  evaluation_.emplace(*module_);
  counts_ = ClassCounts(confusion);
}

void Replica::end_evaluation() {
  if (evaluates_average()) {
    lookahead_->exchange();
  }
  evaluation_.reset();
  forget_recorded();
}

void Replica::evaluate(const EvaluationTask& task) {
  const NoGradScope no_grad;
  const KeptWeights::Use use(kept_);
  std::int64_t piece = 0;
  Batch batch;
  int brought = -1;
  for (int i = 0; i < task.batch.shards(); ++i) {
    const std::int64_t valid = task.batch.shard(i).valid;
    for (std::int64_t first = 0; first < valid; first += kPieceSamples, ++piece) {
      if (piece % options_.replicas != local_rank()) {
        continue;
      }
      if (brought != i) {
        batch = feeder_.bring(task.batch, i);
        brought = i;
      }
      task.losses[static_cast<std::size_t>(piece)] =
          evaluate_piece(task.score, batch, first, std::min(kPieceSamples, valid - first));
    }
  }
}

double Replica::evaluate_piece(const ScoreFunction& score, const Batch& shard, std::int64_t first,
                               std::int64_t count) {
  const Tensor images = shard.images().narrow(0, first, count);
  const Tensor labels = shard.labels().narrow(0, first, count);
  const Tensor logits = score(*module_, images).data().to(DType::f32);
  if (logits.dim() != 2 || logits.size(0) != count) {
    throw InputError("evaluate: {} images gave {}, expected one row of class scores for each", count,
                     logits.shape());
  }
  this->count(logits, labels, shard.ids().narrow(0, first, count));
  return cross_entropy(logits, labels, {.reduction = Reduction::sum}).item();
}

void Replica::count(const Tensor& logits, const Tensor& device_labels, const Tensor& ids) {
  const Tensor labels = device_labels.to(kCpu);
  if (counts_.classes() == 0) {
    counts_.resize(logits.size(1));
  }
  if (logits.size(1) != counts_.classes()) {
    throw InputError("evaluate: {} scores a sample, and {} before; expected as many for each", logits.size(1),
                     counts_.classes());
  }
  const Tensor predictions = argmax(logits, 1).to(kCpu);
  for (std::int64_t i = 0; i < labels.numel(); ++i) {
    const std::int64_t label = labels.data<std::int64_t>()[i];
    if (label < 0 || label >= logits.size(1)) {
      throw InputError("evaluate: sample {} has label {}, the network has {} classes", ids.at({i}), label,
                       logits.size(1));
    }
    counts_.add(label, predictions.data<std::int64_t>()[i]);
  }
}

double Evaluation::class_accuracy(int label) const {
  if (label < 0 || label >= std::ssize(classes)) {
    throw InputError("class_accuracy: got class {}, expected 0 to {}", label, std::ssize(classes) - 1);
  }
  return classes[static_cast<std::size_t>(label)].accuracy();
}

}  // namespace millrace
