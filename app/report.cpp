#include "app/report.h"

#include <algorithm>
#include <cmath>
#include <fmt/core.h>
#include <utility>

#include "app/interruption.h"
#include "app/options.h"
#include "app/output/measure.h"
#include "app/output/statistics.h"
#include "base/tell.h"

namespace millrace::app {

Report::Report(JsonLog& log, double epochs, std::int64_t steps_per_epoch, std::int64_t log_every)
    : log_(log), epochs_(epochs), steps_per_epoch_(steps_per_epoch), log_every_(log_every) {}

void Report::initialized() {
  const double seconds = seconds_since(start_);
  show(fmt::format("initialized in {:.1f} s\n", seconds));
  log_.write({{"event", "initialized"}, {"seconds", seconds}});
}

void Report::begin_epoch(std::int64_t epoch, std::int64_t step) {
  epoch_ = epoch + 1;
  step_ = first_step_ = step;
  recent_ = whole_ = Sum();
  progress_ = std::make_unique<Progress>(fmt::format("epoch {}/{}", epoch_, epochs_), steps_per_epoch_);
  epoch_start_ = Clock::now();
}

void Report::step(StepResult result) {
  constexpr std::size_t kMostPending = 64;  // so far the host may run ahead of a GPU
  pending_.push_back(std::move(result));
  while (!pending_.empty() && (pending_.size() > kMostPending || pending_.front().loss.ready())) {
    count(pending_.front());
    pending_.pop_front();
  }
}

void Report::count(const StepResult& result) {
  ++step_;
  recent_.add(result);
  whole_.add(result);
  if (!std::isfinite(result.loss)) {
    progress_->clear();
    throw InputError("train: the loss became {} at epoch {}, step {}; try a smaller --lr",
                     static_cast<double>(result.loss), epoch_, step_);
  }
  progress_->update(step_, whole_.images, whole_.mean());
  if (step_ % log_every_ != 0) {
    return;
  }
  progress_->clear();
  show(fmt::format("[{}, {:5}] loss: {:.3f}\n", epoch_, step_, recent_.mean()));
  log_.write({{"event", "step"}, {"epoch", epoch_}, {"step", step_}, {"loss", recent_.mean()}});
  recent_ = Sum();
}

void Report::say(const std::string& sentence) {
  if (progress_) {
    progress_->clear();
  }
  tell(fmt::format("millrace: {}", sentence));
  log_.write({{"event", "message"}, {"text", sentence}});
}

void Report::end_epoch(std::optional<double> idle_seconds) {
  for (; !pending_.empty(); pending_.pop_front()) {
    count(pending_.front());
  }
  if (step_ == first_step_) {
    progress_.reset();
    return;  // it was over before this run
  }
  const double seconds = seconds_since(epoch_start_);
  training_seconds_ += seconds;
  images_ += whole_.images;
  const double speed = static_cast<double>(whole_.images) / seconds;
  progress_.reset();
  const double idle = idle_seconds ? *idle_seconds - std::exchange(idle_seconds_, *idle_seconds) : 0;
  show(fmt::format("epoch {}: loss {:.4f}, {} images/s{}{}\n", epoch_, whole_.mean(), with_commas(speed),
                   first_step_ > 0 ? fmt::format(", from step {} on", first_step_) : "",
                   idle_seconds ? fmt::format(", GPU waited {:.1f} %", 100 * idle / seconds) : ""));
  log_.write({{"event", "epoch"},
              {"epoch", epoch_},
              {"steps", step_ - first_step_},
              {"loss", whole_.mean()},
              {"images", whole_.images},
              {"seconds", seconds},
              {"gpu_wait_seconds", idle_seconds ? Json(idle) : Json(nullptr)},
              {"images_per_second", speed}});
}

void Report::evaluated(const Evaluation& evaluation, double seconds, bool augmented) {
  (augmented ? augmented_accuracy_ : accuracy_) = evaluation.accuracy();
  show(fmt::format("epoch {}: test loss {:.4f}, test accuracy {:.2f} %{}\n", epoch_, evaluation.loss,
                   100 * evaluation.accuracy(), augmented ? " with test-time augmentation" : ""));
  log_.write({{"event", "eval"},
              {"epoch", epoch_},
              {"loss", evaluation.loss},
              {"accuracy", evaluation.accuracy()},
              {"views", augmented},
              {"seconds", seconds},
              {"correct", evaluation.correct},
              {"total", evaluation.total}});
}

void Report::finish(const std::string& weights_hash, const LoaderStatistics& loader) {
  const double seconds = seconds_since(start_);
  const double speed = static_cast<double>(images_) / std::max(training_seconds_, 1e-9);
  show(fmt::format("trained {} in {:.1f} s, {} images/s; weights {}\n", counted(epoch_, "epoch"), seconds,
                   with_commas(speed), weights_hash));
  show(fmt::format("loader {}\n", loader.verdict()));
  log_.write({{"event", "end"},
              {"epochs", epoch_},
              {"test_accuracy", accuracy_ ? Json(*accuracy_) : Json(nullptr)},
              {"test_accuracy_views", augmented_accuracy_ ? Json(*augmented_accuracy_) : Json(nullptr)},
              {"images_per_second", speed},
              {"seconds", seconds},
              {"weights_hash", weights_hash},
              {"loader", to_json(loader)}});
}

}  // namespace millrace::app
